//! Blobs as files of one directory: `data/` holds them by key, `tmp/` what is being written.

use std::{
    fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use darkroom_core::BlobKey;
use futures::{StreamExt, stream::BoxStream};
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use tokio_util::io::ReaderStream;

mod disk;
mod folders;
mod list;
#[cfg(any(test, feature = "power-loss"))]
pub mod power_loss;
#[cfg(test)]
mod tests;
mod write;

pub use disk::{Disk, DiskFile};

use self::{
    disk::RealDisk,
    folders::Folders,
    write::{CHUNK_BYTES, Staged},
};
use crate::{BlobMeta, BlobReader, BlobStat, Blobs, Error, Listed};

/// Called with `blob_before_rename` and `blob_after_rename` (when the put is durable) during every put, on a blocking
/// thread: fault tests kill the process there.
pub type Failpoint = Arc<dyn Fn(&'static str) + Send + Sync>;

/// The local blob store. Cheap to clone.
#[derive(Clone)]
pub struct LocalBlobs {
    inner: Arc<Inner>,
}

struct Inner {
    data: PathBuf,
    temporary: PathBuf,
    disk: Arc<dyn Disk>,
    failpoint: Option<Failpoint>,
    folders: Folders,
    next_temporary: AtomicU64,
}

impl LocalBlobs {
    /// Opens the store under `root`, which is made if it is missing. Removes what a dead process was writing: the
    /// caller holds the lock of the data directory, so nobody else is writing here.
    ///
    /// # Errors
    /// [`Error::Root`] when the directory cannot be made or written.
    pub fn open(root: &Path, failpoint: Option<Failpoint>) -> Result<Self, Error> {
        Self::open_on(Arc::new(RealDisk), root, failpoint)
    }

    /// As [`LocalBlobs::open`], on a disk of the caller's.
    ///
    /// # Errors
    /// [`Error::Root`].
    pub fn open_on(disk: Arc<dyn Disk>, root: &Path, failpoint: Option<Failpoint>) -> Result<Self, Error> {
        let inner = Inner {
            data: root.join("data"),
            temporary: root.join("tmp"),
            disk,
            failpoint,
            folders: Folders::default(),
            next_temporary: AtomicU64::new(0),
        };
        inner.prepare(root).map_err(|source| Error::Root {
            path: root.to_owned(),
            source,
        })?;
        Ok(LocalBlobs {
            inner: Arc::new(inner),
        })
    }

    /// Runs blocking work on the inner store, off the runtime.
    async fn blocking<T, F>(&self, work: F) -> T
    where
        T: Send + 'static,
        F: FnOnce(Arc<Inner>) -> T + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        run_blocking(move || work(inner)).await
    }
}

#[async_trait]
impl Blobs for LocalBlobs {
    async fn put_bytes(&self, key: &BlobKey, bytes: Bytes) -> Result<BlobMeta, Error> {
        let key = key.clone();
        self.blocking(move |inner| {
            let mut staged = Staged::begin(inner, &key)?;
            staged.write(&bytes)?;
            staged.commit()
        })
        .await
    }

    async fn put_file(&self, key: &BlobKey, path: &Path) -> Result<BlobMeta, Error> {
        let (key, path) = (key.clone(), path.to_owned());
        self.blocking(move |inner| {
            let mut staged = Staged::begin(inner, &key)?;
            staged.copy_from(&path)?;
            staged.commit()
        })
        .await
    }

    async fn put_stream(
        &self,
        key: &BlobKey,
        mut body: BoxStream<'_, Result<Bytes, io::Error>>,
        max_bytes: u64,
    ) -> Result<BlobMeta, Error> {
        // A thread is held only while it writes: a thousand slow uploads must not use up the blocking pool.
        let begin = key.clone();
        let mut staged = self.blocking(move |inner| Staged::begin(inner, &begin)).await?;
        let mut gathered = BytesMut::new();
        let mut received: u64 = 0;
        while let Some(piece) = body.next().await {
            let piece = piece.map_err(|source| Error::Source {
                key: key.clone(),
                source,
            })?;
            received += piece.len() as u64;
            if received > max_bytes {
                return Err(Error::TooLarge {
                    key: key.clone(),
                    max_bytes,
                });
            }
            gathered.extend_from_slice(&piece);
            if gathered.len() >= CHUNK_BYTES {
                let full = gathered.split().freeze();
                staged = run_blocking(move || staged.write(&full).map(|()| staged)).await?;
            }
        }
        run_blocking(move || {
            staged.write(&gathered)?;
            staged.commit()
        })
        .await
    }

    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>, Error> {
        let path = self.inner.path_of(key);
        let failed = |e| Error::from_io("read", key, e);
        let opened = run_blocking(move || {
            let Some(file) = absent_is_none(fs::File::open(path))? else {
                return Ok(None);
            };
            let metadata = file.metadata()?;
            Ok(metadata.is_file().then_some((file, metadata)))
        })
        .await
        .map_err(failed)?;
        let Some((file, metadata)) = opened else {
            return Ok(None);
        };
        let size = metadata.len();
        let range = range.unwrap_or(0..size);
        let end = range.end.min(size);
        let range = range.start.min(end)..end;
        let mut file = tokio::fs::File::from_std(file);
        if range.start > 0 {
            file.seek(io::SeekFrom::Start(range.start))
                .await
                .map_err(failed)?;
        }
        let part = file.take(range.end - range.start);
        Ok(Some(BlobReader {
            size,
            modified: list::modified(&metadata),
            range,
            stream: ReaderStream::with_capacity(part, CHUNK_BYTES).boxed(),
        }))
    }

    async fn read(&self, key: &BlobKey, max_bytes: u64) -> Result<Option<Bytes>, Error> {
        let key = key.clone();
        self.blocking(move |inner| {
            let path = inner.path_of(&key);
            let failed = |e| Error::from_io("read", &key, e);
            match absent_is_none(fs::metadata(&path)).map_err(failed)? {
                Some(metadata) if metadata.is_file() => {
                    if metadata.len() > max_bytes {
                        return Err(Error::TooLarge { key, max_bytes });
                    }
                }
                _ => return Ok(None),
            }
            let bytes = absent_is_none(fs::read(&path)).map_err(failed)?;
            Ok(bytes.map(Bytes::from))
        })
        .await
    }

    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobStat>, Error> {
        let path = self.inner.path_of(key);
        let metadata = run_blocking(move || absent_is_none(fs::metadata(path)))
            .await
            .map_err(|e| Error::from_io("read", key, e))?;
        Ok(metadata.filter(fs::Metadata::is_file).map(|m| BlobStat {
            size: m.len(),
            modified: list::modified(&m),
        }))
    }

    async fn delete(&self, key: &BlobKey) -> Result<(), Error> {
        let key = key.clone();
        self.blocking(move |inner| {
            let path = inner.path_of(&key);
            let folder = path.parent().unwrap_or(&inner.data);
            if path.is_dir() {
                return Ok(());
            }
            // Not synced: a blob that comes back after a power loss is one that no row names, and is swept again.
            absent_is_none(inner.disk.unlink(&path)).map_err(|e| Error::from_io("delete", &key, e))?;
            inner.folders.prune(&*inner.disk, &inner.data, folder);
            Ok(())
        })
        .await
    }

    async fn list(&self, after: Option<&BlobKey>, limit: usize) -> Result<Vec<Listed>, Error> {
        let after = after.map(|key| key.as_str().to_owned());
        let data = self.inner.data.clone();
        run_blocking(move || {
            list::list(&data, after.as_deref(), limit).map_err(|source| Error::Root { path: data, source })
        })
        .await
    }
}

impl Inner {
    /// Makes the two directories, durably, and empties the one of temporary files.
    fn prepare(&self, root: &Path) -> io::Result<()> {
        fs::create_dir_all(root)?;
        if let Some(above) = root.parent().filter(|path| !path.as_os_str().is_empty()) {
            fs::File::open(above)?.sync_all()?;
        }
        for path in [&self.data, &self.temporary] {
            match self.disk.create_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        self.disk.sync_dir(root)?;
        let mut removed = 0_u64;
        for entry in fs::read_dir(&self.temporary)? {
            self.disk.unlink(&entry?.path())?;
            removed += 1;
        }
        if removed > 0 {
            tracing::info!(
                blobs.removed = removed,
                "removed unfinished blobs of an earlier run"
            );
        }
        Ok(())
    }

    /// Where a blob is. A key cannot leave `data`: see [`BlobKey`].
    fn path_of(&self, key: &BlobKey) -> PathBuf {
        self.data.join(key.as_str())
    }

    fn next_temporary(&self) -> PathBuf {
        let number = self.next_temporary.fetch_add(1, Ordering::Relaxed);
        self.temporary.join(number.to_string())
    }

    fn reached(&self, point: &'static str) {
        if let Some(failpoint) = &self.failpoint {
            failpoint(point);
        }
    }
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        // A key below another blob's: that blob is a file, so nothing can be there.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn run_blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Not started because the runtime is shutting down: so is whoever waits for it.
            Err(_) => std::future::pending().await,
        },
    }
}
