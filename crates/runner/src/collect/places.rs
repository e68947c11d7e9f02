//! From the names that an instance reports to files on this machine, without ever leaving the instance's directories.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use darkroom_comfy::wire::FileRef;

/// The directories an instance was started with, where they are on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dirs {
    /// `--input-directory`.
    pub input: PathBuf,
    /// `--output-directory`; no other instance may write there.
    pub output: PathBuf,
    /// `--temp-directory`.
    pub temp: PathBuf,
}

/// A regular file and what tells it from a later one of the same name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its real path, below the instance's directory.
    pub path: PathBuf,
    /// Its version.
    pub stamp: Stamp,
}

/// Time of the last change (since the epoch, file system's clock) and length in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Last change of the contents.
    pub modified: Duration,
    /// Length in bytes.
    pub size: u64,
}

impl Stamp {
    /// Reads it from a file's metadata.
    pub fn of(metadata: &fs::Metadata) -> Self {
        let modified = metadata.modified().map_or(Duration::ZERO, since_epoch);
        Stamp {
            modified,
            size: metadata.len(),
        }
    }
}

/// Why a reported name does not lead to a file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It would leave the instance's directories.
    #[error("the instance reported the unsafe file name '{0}'")]
    Unsafe(String),
    /// A symbolic link leads out of the directory: whether to follow it is the instance's business, not ours.
    #[error("the file '{0}' is a link to elsewhere")]
    Elsewhere(String),
    /// There is no such file.
    #[error("the file '{0}' is not there")]
    Missing(String),
    /// Reading the directory failed.
    #[error("the file '{name}' cannot be read")]
    Io {
        /// As reported.
        name: String,
        /// Why.
        source: io::Error,
    },
}

impl Dirs {
    /// Finds the file that the instance means.
    ///
    /// # Errors
    /// [`Error::Unsafe`] for a name and [`Error::Elsewhere`] for a symbolic link that leads out of the directory,
    /// [`Error::Missing`] when there is no regular file.
    pub fn find(&self, file: &FileRef) -> Result<Found, Error> {
        let shown = shown(file);
        let base = match file.kind.as_str() {
            "output" => self.output.clone(),
            // ComfyUI makes a `temp` below its `--temp-directory`; the engine uses the directory itself.
            "temp" => Some(self.temp.join("temp"))
                .filter(|own| own.is_dir())
                .unwrap_or_else(|| self.temp.clone()),
            "input" => self.input.clone(),
            _ => return Err(Error::Unsafe(shown)),
        };
        let relative = relative(file).ok_or_else(|| Error::Unsafe(shown.clone()))?;
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Error::Missing(shown.clone()),
            _ => Error::Io {
                name: shown.clone(),
                source,
            },
        };
        let base = base.canonicalize().map_err(failed)?;
        let path = base.join(relative).canonicalize().map_err(failed)?;
        if !path.starts_with(&base) {
            return Err(Error::Elsewhere(shown));
        }
        let metadata = fs::metadata(&path).map_err(failed)?;
        // A pipe or a device would block whoever opens it.
        if !metadata.is_file() {
            return Err(Error::Missing(shown));
        }
        Ok(Found {
            path,
            stamp: Stamp::of(&metadata),
        })
    }
}

/// The name as an operator reads it: `output/sub/a.png`.
pub fn shown(file: &FileRef) -> String {
    let parts = [&file.kind, &file.subfolder, &file.filename];
    let parts: Vec<_> = parts
        .into_iter()
        .filter(|p| !p.is_empty())
        .map(String::as_str)
        .collect();
    parts.join("/")
}

/// Whether the name stays inside its directory; also asked before a name goes into a request to the instance.
pub fn is_safe(file: &FileRef) -> bool {
    matches!(file.kind.as_str(), "output" | "temp" | "input") && relative(file).is_some()
}

fn relative(file: &FileRef) -> Option<PathBuf> {
    let path = Path::new(&file.subfolder).join(&file.filename);
    let plain = path
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    // `Path::join` drops the subfolder when the name is absolute: the check on the result sees the root then.
    let clean = !file.filename.contains('\0') && !file.subfolder.contains('\0');
    (plain && clean && path.file_name().is_some()).then_some(path)
}

fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dirs(root: &Path) -> Dirs {
        let make = |name: &str| {
            let path = root.join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        Dirs {
            input: make("input"),
            output: make("output"),
            temp: make("temp"),
        }
    }

    fn file(area: &str, subfolder: &str, name: &str) -> FileRef {
        FileRef {
            filename: name.into(),
            subfolder: subfolder.into(),
            kind: area.into(),
        }
    }

    #[test]
    fn files_in_subfolders_with_any_name_are_found() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        fs::create_dir_all(dirs.output.join("图像/2")).unwrap();
        fs::write(dirs.output.join("图像/2/ä b.png"), b"123").unwrap();
        let found = dirs.find(&file("output", "图像/2", "ä b.png")).unwrap();
        assert_eq!(found.stamp.size, 3);
        assert!(matches!(
            dirs.find(&file("output", "", "none.png")),
            Err(Error::Missing(_))
        ));
        assert!(matches!(
            dirs.find(&file("output", "", "图像")),
            Err(Error::Missing(_))
        ));
    }

    #[test]
    fn no_name_leads_out_of_the_directories() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        fs::write(root.path().join("secret"), b"s").unwrap();
        fs::write(dirs.input.join("in.png"), b"i").unwrap();
        let absolute = root.path().join("secret").display().to_string();
        let bad = [
            file("output", "", "../secret"),
            file("output", "..", "secret"),
            file("output", "x/../..", "secret"),
            file("output", "", &absolute),
            file("output", &root.path().display().to_string(), "secret"),
            file("output", "", ".."),
            file("output", "", "a\0b"),
            file("../output", "", "a"),
            file("etc", "", "passwd"),
        ];
        for name in bad {
            assert!(matches!(dirs.find(&name), Err(Error::Unsafe(_))), "{name:?}");
            assert!(!is_safe(&name), "{name:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_symbolic_link_does_not_lead_out_either() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path());
        fs::write(root.path().join("secret"), b"s").unwrap();
        std::os::unix::fs::symlink(root.path().join("secret"), dirs.output.join("a.png")).unwrap();
        assert!(matches!(
            dirs.find(&file("output", "", "a.png")),
            Err(Error::Elsewhere(_))
        ));
    }
}
