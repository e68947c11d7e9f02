//! The names `SaveImage` gives: `<prefix>_<counter, five digits>_.png`, counted by listing the directory.

use std::path::{Path, PathBuf};

use jiff::Zoned;

use super::{inside, normalize};
use crate::exec::Raised;

/// Where the files of one save go and how the first is numbered.
#[derive(Debug, PartialEq, Eq)]
pub struct SaveName {
    /// The directory, which exists.
    pub directory: PathBuf,
    /// The directory below the output directory, as history reports it.
    pub subfolder: String,
    /// The prefix without its directory; may still hold `%batch_num%`.
    pub stem: String,
    /// The number of the first file.
    pub counter: u64,
}

impl SaveName {
    /// Chooses the name for `prefix`, whose variables are the size of the first frame and the local time `now`.
    pub fn choose(
        base: &Path,
        prefix: &str,
        width: usize,
        height: usize,
        now: &Zoned,
    ) -> Result<SaveName, Raised> {
        let prefix = fill_in(prefix, width, height, now);
        let normal = normalize(Path::new(&prefix));
        let subfolder = normal
            .parent()
            .map(|p| p.to_string_lossy().into_owned())
            .unwrap_or_default();
        // An empty prefix normalises to ".", whose file name Python gives as "." too.
        let stem = match normal.file_name() {
            Some(name) => name.to_string_lossy().into_owned(),
            None if normal.as_os_str().is_empty() => ".".to_owned(),
            None => return Err(outside()),
        };
        let directory = inside(base, Path::new(&subfolder)).ok_or_else(outside)?;
        let typed = prefix.rsplit('/').next().unwrap_or_default().chars().count();
        let counter = match std::fs::read_dir(&directory) {
            Ok(entries) => {
                let names = entries
                    .flatten()
                    .filter_map(|entry| entry.file_name().into_string().ok());
                names
                    .filter_map(|name| number(&name, typed, &stem))
                    .max()
                    .map_or(1, |n| n + 1)
            }
            Err(_) => {
                std::fs::create_dir_all(&directory).map_err(|error| Raised::io(&error))?;
                1
            }
        };
        Ok(SaveName {
            directory,
            subfolder,
            stem,
            counter,
        })
    }

    /// The name of a file that holds everything; `%batch_num%` stays as it is, as in the original.
    pub fn single(&self, extension: &str) -> String {
        format!("{}_{:05}_.{extension}", self.stem, self.counter)
    }

    /// The name of one file of a batch.
    pub fn file(&self, index: usize) -> String {
        let stem = self.stem.replace("%batch_num%", &index.to_string());
        format!("{stem}_{:05}_.png", self.counter + index as u64)
    }
}

fn outside() -> Raised {
    Raised::new(
        "Exception",
        "**** ERROR: Saving image outside the output folder is not allowed.",
    )
}

fn fill_in(prefix: &str, width: usize, height: usize, now: &Zoned) -> String {
    if !prefix.contains('%') {
        return prefix.to_owned();
    }
    prefix
        .replace("%width%", &width.to_string())
        .replace("%height%", &height.to_string())
        .replace("%year%", &now.year().to_string())
        .replace("%month%", &format!("{:02}", now.month()))
        .replace("%day%", &format!("{:02}", now.day()))
        .replace("%hour%", &format!("{:02}", now.hour()))
        .replace("%minute%", &format!("{:02}", now.minute()))
        .replace("%second%", &format!("{:02}", now.second()))
}

/// The number of an existing file if its name is `stem`, an underscore and digits. ComfyUI cuts at the length of the
/// prefix *as typed*, so a prefix with a trailing slash never finds its own files; nor does one with `%batch_num%`.
fn number(name: &str, typed: usize, stem: &str) -> Option<u64> {
    let cut = name
        .char_indices()
        .nth(typed + 1)
        .map_or(name.len(), |(at, _)| at);
    let (head, tail) = name.split_at(cut);
    if head.strip_suffix('_') != Some(stem) {
        return None;
    }
    Some(
        tail.split('_')
            .next()
            .and_then(|digits| digits.parse().ok())
            .unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noon() -> Zoned {
        "2026-11-20T12:03:04[UTC]".parse().unwrap()
    }

    fn choose(dir: &Path, prefix: &str) -> SaveName {
        SaveName::choose(dir, prefix, 12, 10, &noon()).unwrap()
    }

    #[test]
    fn counting_goes_on_after_the_largest_number() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "a_00007_.png",
            "a_00002_.png",
            "ab_00099_.png",
            "a_x_.png",
            "a",
            "_",
        ] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(choose(dir.path(), "a").counter, 8);
        assert_eq!(choose(dir.path(), "ab").counter, 100);
        assert_eq!(choose(dir.path(), "new").file(0), "new_00001_.png");
    }

    #[test]
    fn variables_and_odd_prefixes() {
        let dir = tempfile::tempdir().unwrap();
        let names = |prefix| {
            let name = choose(dir.path(), prefix);
            (name.subfolder.clone(), name.file(2))
        };
        let is = |subfolder: &str, file: &str| (subfolder.to_owned(), file.to_owned());
        assert_eq!(
            names("%year%-%month%-%day%/%hour%_%minute%_%second%"),
            is("2026-11-20", "12_03_04_00003_.png")
        );
        assert_eq!(
            names("%width%x%height%_%batch_num%"),
            is("", "12x10_2_00003_.png")
        );
        assert_eq!(names(""), is("", "._00003_.png"));
        assert_eq!(names("sub/"), is("", "sub_00003_.png"));
        assert_eq!(names("a/../b/pic"), is("b", "pic_00003_.png"));
        assert_eq!(names("%date:yyyy%"), is("", "%date:yyyy%_00003_.png"));
    }

    #[test]
    fn prefixes_that_leave_the_folder_are_refused_without_naming_it() {
        let dir = tempfile::tempdir().unwrap();
        for prefix in ["../x", "/etc/evil", "..", "a/../../x", "/"] {
            let error = SaveName::choose(dir.path(), prefix, 1, 1, &noon()).unwrap_err();
            assert!(
                !error.to_string().contains(&*dir.path().to_string_lossy()),
                "{prefix}: {error}"
            );
        }
    }
}
