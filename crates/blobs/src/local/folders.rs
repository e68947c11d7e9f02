//! The folders above blobs: made durable before a blob goes into one, removed when the last blob left.

use std::{
    collections::HashSet,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::disk::Disk;

/// Folders remembered as durable; a cache only, so it may be emptied at any time. At about 150 bytes each: 150 KB.
const REMEMBERED: usize = 1024;

/// Which folders are known to have durable names.
///
/// "It exists" does not mean "it survives a power loss": another thread, or a killed process, may have made it and
/// not yet synced its parent. So a folder counts only after *this* process synced its parent.
#[derive(Debug, Default)]
pub(super) struct Folders {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    durable: HashSet<PathBuf>,
    /// Grows with every removed folder: a sync begun before a removal says nothing about a folder made after it.
    removals: u64,
}

impl Folders {
    /// Makes `folder` and all above it, up to `top` (which exists), exist durably.
    pub(super) fn ensure(&self, disk: &dyn Disk, top: &Path, folder: &Path) -> io::Result<()> {
        let below: Vec<&Path> = folder.ancestors().take_while(|path| *path != top).collect();
        for path in below.into_iter().rev() {
            let removals = {
                let state = self.lock();
                if state.durable.contains(path) {
                    continue;
                }
                match disk.create_dir(path) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        if !path.is_dir() {
                            return Err(io::ErrorKind::NotADirectory.into());
                        }
                    }
                    Err(error) => return Err(error),
                }
                state.removals
            };
            disk.sync_dir(path.parent().unwrap_or(top))?;
            let mut state = self.lock();
            if state.removals == removals {
                if state.durable.len() >= REMEMBERED {
                    state.durable.clear();
                }
                state.durable.insert(path.to_owned());
            }
        }
        Ok(())
    }

    /// Removes `folder` and those above it, below `top`, as far as they are empty.
    pub(super) fn prune(&self, disk: &dyn Disk, top: &Path, folder: &Path) {
        for path in folder.ancestors().take_while(|path| *path != top) {
            let mut state = self.lock();
            if disk.remove_dir(path).is_err() {
                return;
            }
            state.removals += 1;
            state.durable.remove(path);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves at worst one folder too few remembered.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
