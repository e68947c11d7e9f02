//! Files that appeared in an instance's output directory and that its history does not mention.
//!
//! Some nodes write files and report nothing. What is new is judged by the file system's own time stamps against the
//! newest ones seen when the previous attempt ended, so that a file of one job is never handed to the next.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use super::places::{Found, Stamp};

/// Files looked at per sweep. Beyond this the directory is not what one job made; the rest is left alone.
const MAX_FILES: usize = 100_000;
const MAX_DEPTH: usize = 8;
/// File time stamps come from the kernel's coarse clock, which runs up to one tick (10 ms at 100 Hz) behind.
const COARSE_CLOCK: Duration = Duration::from_millis(10);

/// Remembers how new the newest file was when it last looked.
#[derive(Debug)]
pub struct OutputWatch {
    output: PathBuf,
    newest: Duration,
    at_newest: BTreeSet<PathBuf>,
}

/// A file below the output directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewFile {
    /// Relative to the output directory.
    pub relative: PathBuf,
    /// The file.
    pub found: Found,
}

/// From when on files count as made by an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// What the last look did not see and what is not older than the attempt (time since the epoch).
    LastLook(Duration),
    /// Strictly after this time (since the epoch); for an attempt that began before this process did.
    Start(Duration),
}

impl OutputWatch {
    /// Takes the directory as it is now for old. Blocks.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn begin(output: &Path) -> io::Result<Self> {
        let mut watch = OutputWatch {
            output: output.to_owned(),
            newest: Duration::ZERO,
            at_newest: BTreeSet::new(),
        };
        watch.look(Since::LastLook(Duration::MAX))?;
        Ok(watch)
    }

    /// What is new, by name; and takes it for old from now on. Blocks.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn look(&mut self, since: Since) -> io::Result<Vec<NewFile>> {
        let mut files = Vec::new();
        walk(&self.output, Path::new(""), MAX_DEPTH, &mut files)?;
        let is_new = |file: &Seen| match since {
            Since::LastLook(start) => {
                let unseen = file.fresh > self.newest
                    || (file.fresh == self.newest && !self.at_newest.contains(&file.new.relative));
                unseen && file.fresh >= start.saturating_sub(COARSE_CLOCK)
            }
            Since::Start(start) => file.fresh > start,
        };
        let mut new: Vec<_> = files
            .iter()
            .filter(|f| is_new(f))
            .map(|f| f.new.clone())
            .collect();
        new.sort_by(|a, b| a.relative.cmp(&b.relative));
        self.newest = files.iter().map(|f| f.fresh).max().unwrap_or_default();
        let at_newest = files.into_iter().filter(|f| f.fresh == self.newest);
        self.at_newest = at_newest.map(|f| f.new.relative).collect();
        Ok(new)
    }
}

struct Seen {
    /// Last change or birth, whichever is later: a copied file may carry an old time of change.
    fresh: Duration,
    new: NewFile,
}

/// Regular files only: a link may lead anywhere. Hidden files are some program's own business.
fn walk(base: &Path, below: &Path, depth: usize, files: &mut Vec<Seen>) -> io::Result<()> {
    for entry in fs::read_dir(base.join(below))? {
        let entry = entry?;
        let name = entry.file_name();
        if name.as_encoded_bytes().starts_with(b".") || files.len() >= MAX_FILES {
            continue;
        }
        let relative = below.join(&name);
        let kind = entry.file_type()?;
        if kind.is_dir() && depth > 0 {
            // A subdirectory that vanishes or is not ours to read hides only its own files.
            let _ = walk(base, &relative, depth - 1, files);
        }
        let Ok(metadata) = entry.metadata() else { continue };
        if !kind.is_file() {
            continue;
        }
        let stamp = Stamp::of(&metadata);
        let born = metadata
            .created()
            .ok()
            .and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        files.push(Seen {
            fresh: born.map_or(stamp.modified, |born| born.max(stamp.modified)),
            new: NewFile {
                found: Found {
                    path: base.join(&relative),
                    stamp,
                },
                relative,
            },
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const ANY: Since = Since::LastLook(Duration::ZERO);

    fn names(files: &[NewFile]) -> Vec<String> {
        files.iter().map(|f| f.relative.display().to_string()).collect()
    }

    #[test]
    fn a_file_is_new_once_and_old_files_never() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("old.txt"), b"o").unwrap();
        let mut watch = OutputWatch::begin(root.path()).unwrap();
        assert_eq!(names(&watch.look(ANY).unwrap()), [""; 0]);
        fs::create_dir(root.path().join("sub")).unwrap();
        fs::write(root.path().join("sub/new.bin"), b"n").unwrap();
        fs::write(root.path().join(".hidden"), b"h").unwrap();
        assert_eq!(names(&watch.look(ANY).unwrap()), ["sub/new.bin"]);
        assert_eq!(names(&watch.look(ANY).unwrap()), [""; 0]);
    }

    #[test]
    fn a_file_that_was_late_for_its_own_attempt_does_not_go_to_the_next() {
        let root = tempfile::tempdir().unwrap();
        let mut watch = OutputWatch::begin(root.path()).unwrap();
        let path = root.path().join("late.txt");
        fs::write(&path, b"l").unwrap();
        let after_it = fs::metadata(&path).unwrap().modified().unwrap() + Duration::from_secs(1);
        let start = after_it.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(names(&watch.look(Since::LastLook(start)).unwrap()), [""; 0]);
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), b"s").unwrap();
        let mut watch = OutputWatch::begin(root.path()).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.path().join("dir")).unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), root.path().join("file")).unwrap();
        assert_eq!(names(&watch.look(ANY).unwrap()), [""; 0]);
    }
}
