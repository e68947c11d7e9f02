//! What was synced and what was not, per file.

use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

/// A disk; one per registered VFS.
#[derive(Debug)]
pub struct Disk {
    name: String,
    state: Mutex<State>,
}

/// Which of the writes that were not synced are on the disk after the power came back.
#[derive(Debug, Clone, Copy)]
pub enum Survivors {
    /// None: the disk had written back nothing by itself.
    None,
    /// Any, chosen by this seed: a disk writes back what it likes, in any order.
    Some(u64),
}

#[derive(Debug, Default)]
struct State {
    unsynced: HashMap<PathBuf, Vec<Change>>,
    off: bool,
    syncs_fail: bool,
    syncs: u64,
}

#[derive(Debug)]
struct Change {
    what: What,
    /// What stood there before.
    before: Vec<u8>,
    size_before: u64,
}

#[derive(Debug)]
enum What {
    Write { at: u64, bytes: Vec<u8> },
    Truncate { size: u64 },
}

/// The real file below, through the handle that SQLite holds: opening it by path would drop SQLite's locks when closed.
pub(crate) trait Real {
    fn size(&mut self) -> u64;
    fn read(&mut self, at: u64, length: usize) -> Vec<u8>;
    fn write(&mut self, at: u64, bytes: &[u8]) -> Code;
    fn truncate(&mut self, size: u64) -> Code;
}

/// A result code of SQLite.
pub(crate) type Code = std::ffi::c_int;

/// The power is off, or the disk is asked to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Refused;

impl Disk {
    /// Registers a VFS under this name, for the life of the process; one name is registered once.
    ///
    /// # Panics
    /// When SQLite does not take it.
    pub fn register(name: &str) -> &'static Disk {
        let disk: &'static Disk = Box::leak(Box::new(Disk {
            name: name.to_owned(),
            state: Mutex::default(),
        }));
        crate::vfs::register(disk, name);
        disk
    }

    /// The name to open databases with.
    pub fn vfs(&self) -> &str {
        &self.name
    }

    /// How many syncs there were.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// From now on every sync fails (as with a broken disk), or none.
    pub fn fail_syncs(&self, fail: bool) {
        self.lock().syncs_fail = fail;
    }

    /// Cuts the power: unsynced writes are undone but for the survivors, and everything fails until [`Disk::power_on`].
    ///
    /// # Errors
    /// When the real files cannot be written.
    pub fn cut(&self, survivors: Survivors) -> io::Result<()> {
        let mut state = self.lock();
        state.off = true;
        for (path, changes) in std::mem::take(&mut state.unsynced) {
            let file = match OpenOptions::new().read(true).write(true).open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            for change in changes.iter().rev() {
                change.undo(&file)?;
            }
            if let Survivors::Some(seed) = survivors {
                let mut random = seed | 1;
                for change in &changes {
                    if next(&mut random) & 1 == 1 {
                        change.redo(&file)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The power is back.
    pub fn power_on(&self) {
        let mut state = self.lock();
        state.off = false;
        state.unsynced.clear();
    }

    /// A write of `bytes` at `at`; returns what the real file says.
    pub(crate) fn write(
        &self,
        path: &Path,
        real: &mut dyn Real,
        at: u64,
        bytes: &[u8],
    ) -> Result<Code, Refused> {
        let what = What::Write {
            at,
            bytes: bytes.to_vec(),
        };
        self.change(path, real, what)
    }

    /// A truncation to `size`; returns what the real file says.
    pub(crate) fn truncate(&self, path: &Path, real: &mut dyn Real, size: u64) -> Result<Code, Refused> {
        self.change(path, real, What::Truncate { size })
    }

    /// A sync, as SQLite asks for it or as a program does by itself: what was written to this file is safe.
    ///
    /// # Errors
    /// While the power is off, or the disk was asked to fail.
    pub fn sync(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock();
        if state.off || state.syncs_fail {
            return Err(io::Error::other("the disk does not sync"));
        }
        state.syncs += 1;
        state.unsynced.remove(path);
        Ok(())
    }

    /// The file goes; directories are taken to be synced at once.
    pub(crate) fn delete<T>(&self, path: &Path, delete: impl FnOnce() -> T) -> Result<T, Refused> {
        let mut state = self.lock();
        if state.off {
            return Err(Refused);
        }
        state.unsynced.remove(path);
        Ok(delete())
    }

    fn change(&self, path: &Path, real: &mut dyn Real, what: What) -> Result<Code, Refused> {
        // Held while the file changes, so that a cut sees either all of it or nothing.
        let mut state = self.lock();
        if state.off {
            return Err(Refused);
        }
        let (at, length) = what.range();
        let size_before = real.size();
        let kept = size_before.saturating_sub(at).min(length);
        let before = real.read(
            at,
            usize::try_from(kept).expect("a write of SQLite fits in memory"),
        );
        let code = match &what {
            What::Write { at, bytes } => real.write(*at, bytes),
            What::Truncate { size } => real.truncate(*size),
        };
        state.unsynced.entry(path.to_owned()).or_default().push(Change {
            what,
            before,
            size_before,
        });
        Ok(code)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl What {
    /// Where it changes bytes, and how many at most.
    fn range(&self) -> (u64, u64) {
        match self {
            What::Write { at, bytes } => (*at, bytes.len() as u64),
            What::Truncate { size } => (*size, u64::MAX),
        }
    }
}

impl Change {
    fn undo(&self, file: &File) -> io::Result<()> {
        let (at, _) = self.what.range();
        file.write_all_at(&self.before, at)?;
        file.set_len(self.size_before)
    }

    fn redo(&self, file: &File) -> io::Result<()> {
        match &self.what {
            What::Write { at, bytes } => file.write_all_at(bytes, *at),
            What::Truncate { size } => file.set_len(*size),
        }
    }
}

/// xorshift64*: enough to choose survivors.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32
}
