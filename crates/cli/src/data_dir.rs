//! The data directory: private, and used by one server at a time.
//!
//! Two locks, both released by the kernel however their holder ends. `lock` belongs to the parent (or to a command
//! that works offline): who holds it owns the directory. `server.lock` belongs to the child, which for a moment can
//! outlive a parent that was killed: the next parent waits for it.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};

/// Why the directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Somebody else uses it.
    #[error(
        "{} is in use by another darkroom (a running server, or a command that works offline); \
         stop that, or choose another --data-dir", path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// It holds other things, and others may read it: making it private could lock somebody out.
    #[error(
        "{} is no data directory of ours: it is not empty and others may read it; \
         choose another --data-dir, or make it private yourself (chmod 700)", path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be made or opened.
    #[error("cannot use the data directory {}", path.display())]
    Io {
        /// The directory or a file in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The directory is ours until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// This process is the server of its data directory until this is dropped.
#[derive(Debug)]
pub struct ServerLock {
    _lock: File,
}

/// A child whose parent was killed is killed with it; this is how long the kernel may take.
const ORPHAN_WAIT: Duration = Duration::from_secs(10);

impl DataDir {
    /// Makes the directory when missing (mode 0700), takes its lock, and waits for an orphaned child to be gone.
    ///
    /// # Errors
    /// [`Error`].
    pub fn lock(path: &Path) -> Result<Self, Error> {
        make_private(path)?;
        let lock = try_lock(&path.join("lock"))?.ok_or_else(|| Error::InUse {
            path: path.to_owned(),
        })?;
        let dir = DataDir {
            path: path.to_owned(),
            _lock: lock,
        };
        drop(ServerLock::take(&dir.path)?);
        Ok(dir)
    }
}

impl ServerLock {
    /// Takes the child's lock, waiting for a predecessor that is just being killed.
    ///
    /// # Errors
    /// [`Error::InUse`] when it stays taken.
    pub fn take(data_dir: &Path) -> Result<Self, Error> {
        const STEP: Duration = Duration::from_millis(20);
        let path = data_dir.join("server.lock");
        let mut waited = Duration::ZERO;
        loop {
            if let Some(lock) = try_lock(&path)? {
                return Ok(ServerLock { _lock: lock });
            }
            if waited >= ORPHAN_WAIT {
                return Err(Error::InUse {
                    path: data_dir.to_owned(),
                });
            }
            sleep(STEP);
            waited += STEP;
        }
    }
}

fn try_lock(path: &Path) -> Result<Option<File>, Error> {
    let io_error = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(io_error)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(io_error(errno.into())),
    }
}

fn make_private(path: &Path) -> Result<(), Error> {
    let io_error = |source| Error::Io {
        path: path.to_owned(),
        source,
    };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(path)
                .map_err(io_error);
        }
        Err(error) => return Err(io_error(error)),
    };
    if !metadata.is_dir() {
        return Err(io_error(io::ErrorKind::NotADirectory.into()));
    }
    if metadata.permissions().mode() & 0o077 == 0 {
        return Ok(());
    }
    let is_ours = path.join("lock").exists() || fs::read_dir(path).map_err(io_error)?.next().is_none();
    if !is_ours {
        return Err(Error::Foreign {
            path: path.to_owned(),
        });
    }
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(io_error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let held = DataDir::lock(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert!(matches!(DataDir::lock(&path), Err(Error::InUse { .. })));
        drop(held);
        DataDir::lock(&path).unwrap();
    }

    #[test]
    fn the_next_parent_waits_for_an_orphan() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        drop(DataDir::lock(&path).unwrap());
        let orphan = ServerLock::take(&path).unwrap();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| DataDir::lock(&path));
            // Whether it is already waiting or not yet: it must succeed once the orphan is gone.
            drop(orphan);
            next.join().unwrap().unwrap();
        });
    }

    #[test]
    fn somebody_elses_directory_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        fs::write(dir.path().join("thesis.txt"), "").unwrap();
        assert!(matches!(DataDir::lock(dir.path()), Err(Error::Foreign { .. })));
        assert_eq!(mode(dir.path()), 0o755);
        fs::remove_file(dir.path().join("thesis.txt")).unwrap();
        DataDir::lock(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
        assert!(matches!(
            DataDir::lock(Path::new("/dev/null")),
            Err(Error::Io { .. })
        ));
    }
}
