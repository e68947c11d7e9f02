//! Paths that assets are brought under. Nothing here is a path on a disk.

use super::super::intake::MAX_NAME_BYTES;

/// Whether a path is one that a graph can name: relative, with `/` between its parts, and none of them empty, `.` or `..`.
pub fn is_good(path: &str) -> bool {
    path.len() <= MAX_NAME_BYTES
        && !path.contains('\\')
        && !path.chars().any(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

/// The paths under which a graph's name for a file may have been brought: graphs name files within the input directory, and
/// callers may write that directory in front (`protocols/comfy-v2.md` §6).
pub(super) fn brought_as(name: &str) -> [String; 2] {
    [name.to_owned(), format!("input/{name}")]
}

/// The ending of a file's name, with its dot: what loaders tell the kind of a file by.
pub(super) fn extension(path: &str) -> String {
    let name = path.rsplit('/').next().unwrap_or(path);
    match name.rsplit_once('.') {
        Some((stem, ending))
            if !stem.is_empty()
                && (1..=8).contains(&ending.len())
                && ending.bytes().all(|b| b.is_ascii_alphanumeric()) =>
        {
            format!(".{}", ending.to_ascii_lowercase())
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below() {
        for good in ["a.png", "input/a.png", "a b/图.png", "..a", "a..b/c"] {
            assert!(is_good(good), "{good}");
        }
        let long = "x".repeat(MAX_NAME_BYTES + 1);
        for bad in [
            "", "/a", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "a\nb", &long,
        ] {
            assert!(!is_good(bad), "{bad}");
        }
    }

    #[test]
    fn endings_are_plain() {
        for (path, ending) in [
            ("a/b.PNG", ".png"),
            ("a.tar.gz", ".gz"),
            (".png", ""),
            ("a", ""),
            ("a.b/c", ""),
            ("a.p/g", ""),
            ("a.überlang", ""),
            ("a.", ""),
        ] {
            assert_eq!(extension(path), ending, "{path}");
        }
    }
}
