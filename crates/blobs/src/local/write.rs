//! How a put becomes durable: temporary file, sync, rename, sync of the folder.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use darkroom_core::BlobKey;

use super::{Inner, disk::DiskFile};
use crate::{BlobMeta, Error};

/// How much is read, hashed and written at a time.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// How much may be written that is not on the disk yet. A large blob that is synced only at its end keeps the disk busy for
/// a tenth of a second, and the commits of everybody else wait behind it.
const SYNC_EVERY_BYTES: usize = 2 << 20;

/// How often a rename is tried again when a concurrent delete pruned the folder under it.
const RENAME_TRIES: usize = 16;

/// A blob being written, not yet visible. Dropped without a commit, it leaves nothing.
pub(super) struct Staged {
    inner: Arc<Inner>,
    key: BlobKey,
    temporary: PathBuf,
    file: Box<dyn DiskFile>,
    hasher: blake3::Hasher,
    size: u64,
    unsynced: usize,
    renamed: bool,
}

impl Staged {
    /// Opens the temporary file.
    pub(super) fn begin(inner: Arc<Inner>, key: &BlobKey) -> Result<Staged, Error> {
        let temporary = inner.next_temporary();
        let file = inner
            .disk
            .create(&temporary)
            .map_err(|e| Error::from_io("create", key, e))?;
        Ok(Staged {
            inner,
            key: key.clone(),
            temporary,
            file,
            hasher: blake3::Hasher::new(),
            size: 0,
            unsynced: 0,
            renamed: false,
        })
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for piece in bytes.chunks(SYNC_EVERY_BYTES) {
            self.file
                .write_all(piece)
                .map_err(|e| Error::from_io("write", &self.key, e))?;
            self.hasher.update(piece);
            self.size += piece.len() as u64;
            self.unsynced += piece.len();
            if self.unsynced >= SYNC_EVERY_BYTES {
                self.file
                    .sync()
                    .map_err(|e| Error::from_io("sync", &self.key, e))?;
                self.unsynced = 0;
            }
        }
        Ok(())
    }

    /// Appends a whole file.
    pub(super) fn copy_from(&mut self, path: &Path) -> Result<(), Error> {
        let broken = |source| Error::Source {
            key: self.key.clone(),
            source,
        };
        let mut source = std::fs::File::open(path).map_err(broken)?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match source.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(read) => self.write(&chunk[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(Error::Source {
                        key: self.key.clone(),
                        source,
                    });
                }
            }
        }
    }

    /// Makes it durable under its key.
    pub(super) fn commit(mut self) -> Result<BlobMeta, Error> {
        let inner = Arc::clone(&self.inner);
        let failed = |action| move |e| (action, e);
        let target = inner.path_of(&self.key);
        let folder = target.parent().unwrap_or(&inner.data);
        self.file
            .sync()
            .map_err(failed("sync"))
            .and_then(|()| self.rename(&target, folder).map_err(failed("rename")))
            .and_then(|()| inner.disk.sync_dir(folder).map_err(failed("sync the folder of")))
            .map_err(|(action, e)| Error::from_io(action, &self.key, e))?;
        inner.reached("blob_after_rename");
        Ok(BlobMeta {
            size: self.size,
            blake3: self.hasher.finalize().to_hex().to_string(),
        })
    }

    fn rename(&mut self, target: &Path, folder: &Path) -> io::Result<()> {
        let inner = &self.inner;
        let mut tries = 0;
        loop {
            inner.folders.ensure(&*inner.disk, &inner.data, folder)?;
            if tries == 0 {
                inner.reached("blob_before_rename");
            }
            match inner.disk.rename(&self.temporary, target) {
                Ok(()) => {
                    self.renamed = true;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && tries < RENAME_TRIES => tries += 1,
                Err(error) => return Err(error),
            }
        }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.renamed {
            // Best effort: what stays is removed when the store is next opened.
            let _ = self.inner.disk.unlink(&self.temporary);
        }
    }
}
