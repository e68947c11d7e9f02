//! What an instance prints: one file it appends to. A file, not a pipe, so that it goes on printing when the server
//! is gone.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
};

/// Lines of a log that go into a reason.
const LAST_LINES: usize = 20;
/// Bytes of them, together.
const LAST_LINES_BYTES: usize = 2048;
/// Bytes read to find them; progress bars are long.
const LAST_LINES_READ: u64 = 16 * 1024;

/// Opens the log for an instance to write to. Appending: what we cut off does not leave a hole.
pub(super) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// The last bytes of a log; none when it does not exist.
pub(super) fn tail(path: &Path, bytes: u64) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(bytes)))?;
    let mut tail = Vec::new();
    file.take(bytes).read_to_end(&mut tail)?;
    Ok(tail)
}

/// Keeps the newer half of a log that is longer than `max_bytes`. A line printed at that very moment may be lost.
pub(super) fn trim(path: &Path, max_bytes: u64) -> io::Result<()> {
    let length = match path.metadata() {
        Ok(metadata) => metadata.len(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if length <= max_bytes {
        return Ok(());
    }
    let kept = tail(path, max_bytes / 2)?;
    let mut file = OpenOptions::new().append(true).open(path)?;
    file.set_len(0)?;
    file.write_all(&kept)
}

/// The last lines of a log, fit to stand in a reason; empty when it cannot be read.
pub(super) fn last_lines(path: &Path, secrets: &[String]) -> String {
    let tail = tail(path, LAST_LINES_READ).unwrap_or_default();
    readable(&String::from_utf8_lossy(&tail), secrets)
}

fn readable(text: &str, secrets: &[String]) -> String {
    let lines: Vec<String> = text
        .lines()
        // Of a progress bar, which returns to the start of its line, only what it shows last.
        .map(|line| plain(line.trim_end_matches('\r').rsplit('\r').next().unwrap_or(line)))
        .filter(|line| !line.trim().is_empty())
        .map(|line| {
            secrets
                .iter()
                .fold(line, |line, secret| line.replace(secret.as_str(), "[hidden]"))
        })
        .collect();
    let mut kept = Vec::new();
    let mut bytes = 0;
    for line in lines.into_iter().rev().take(LAST_LINES) {
        let room = LAST_LINES_BYTES - bytes;
        if line.len() + 1 > room {
            // One line alone may be too long: its end says more than nothing.
            if kept.is_empty() {
                let mut from = line.len() - (room - 1);
                while !line.is_char_boundary(from) {
                    from += 1;
                }
                kept.push(line[from..].to_owned());
            }
            break;
        }
        bytes += line.len() + 1;
        kept.push(line);
    }
    kept.reverse();
    kept.join("\n")
}

/// A line without terminal escapes (`ESC [ … letter`) and control characters.
fn plain(line: &str) -> String {
    let mut plain = String::new();
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            if chars.next() == Some('[') {
                chars.find(|c| ('\u{40}'..='\u{7e}').contains(c));
            }
        } else if c == '\t' || !c.is_control() {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reasons_are_plain_lines() {
        let text = "\u{1b}[31mError\u{1b}[0m: key sk-123456 refused\r\n\n 10%\r 50%\r100% done\nend\u{7}";
        assert_eq!(
            readable(text, &["sk-123456".to_owned()]),
            "Error: key [hidden] refused\n100% done\nend"
        );
    }

    #[test]
    fn only_the_last_lines_are_kept() {
        let text: String = (0..100).map(|n| format!("line {n}\n")).collect();
        let kept = readable(&text, &[]);
        assert!(
            kept.starts_with("line 80\n") && kept.ends_with("line 99"),
            "{kept}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn a_reason_is_bounded_and_holds_no_secret(text in "(.|\n|\r|\u{1b}|x){0,1500}", secret in "[a-c]{6,9}") {
            let text = format!("{text}{secret}\n{text}");
            let kept = readable(&text, std::slice::from_ref(&secret));
            prop_assert!(kept.len() <= LAST_LINES_BYTES);
            prop_assert!(kept.lines().count() <= LAST_LINES);
            prop_assert!(!kept.contains(&secret));
            prop_assert!(!kept.chars().any(|c| c.is_control() && c != '\n' && c != '\t'));
        }
    }

    #[test]
    fn a_log_is_trimmed_under_its_writer() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.txt");
        assert_eq!(tail(&path, 10).unwrap(), b"");
        trim(&path, 10).unwrap();
        let mut writer = open(&path).unwrap();
        writer.write_all(b"0123456789ab").unwrap();
        trim(&path, 12).unwrap();
        assert_eq!(tail(&path, 100).unwrap(), b"0123456789ab");
        trim(&path, 10).unwrap();
        writer.write_all(b"cd").unwrap();
        assert_eq!(tail(&path, 100).unwrap(), b"789abcd");
        assert_eq!(tail(&path, 2).unwrap(), b"cd");
    }
}
