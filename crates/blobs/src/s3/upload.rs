//! How bytes get into a bucket: small ones in one request, others in parts, one part in memory at a time.

use std::{io, path::Path};

use bytes::{Bytes, BytesMut};
use darkroom_core::BlobKey;
use futures::{StreamExt, stream::BoxStream};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path as ObjectPath};
use tokio::io::AsyncReadExt;

use super::unavailable;
use crate::{BlobMeta, Error};

/// A part; S3 takes none that is shorter, but for the last. With 10,000 of them a blob has up to 50 GB.
const PART_BYTES: usize = 5 << 20;
/// Parts of larger blobs grow: S3 takes 10,000.
const PARTS: u64 = 9_000;
/// How much is hashed on the runtime at once; a megabyte takes a third of a millisecond.
const HASHED_AT_ONCE: usize = 64 * 1024;

/// Stores a stream of at most `max_bytes`.
pub(super) async fn stream(
    store: &dyn ObjectStore,
    to: ObjectPath,
    key: &BlobKey,
    mut body: BoxStream<'_, Result<Bytes, io::Error>>,
    max_bytes: u64,
) -> Result<BlobMeta, Error> {
    let mut upload = Upload::to(store, to, key);
    let mut gathered = BytesMut::new();
    let mut received = 0;
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
        upload.hash(&piece).await;
        gathered.extend_from_slice(&piece);
        while gathered.len() > PART_BYTES {
            // What is sent is let go of before the next part gathers.
            let part = gathered.split_to(PART_BYTES).freeze();
            upload.part(part).await?;
        }
    }
    upload.finish(gathered.freeze()).await
}

/// Stores a file.
pub(super) async fn file(
    store: &dyn ObjectStore,
    to: ObjectPath,
    key: &BlobKey,
    path: &Path,
) -> Result<BlobMeta, Error> {
    let broken = |source| Error::Source {
        key: key.clone(),
        source,
    };
    let mut file = tokio::fs::File::open(path).await.map_err(broken)?;
    let length = file.metadata().await.map_err(broken)?.len();
    let part_bytes = PART_BYTES.max(usize::try_from(length / PARTS).unwrap_or(usize::MAX));
    let mut upload = Upload::to(store, to, key);
    loop {
        let mut part =
            BytesMut::with_capacity(part_bytes.min(usize::try_from(length).unwrap_or(part_bytes) + 1));
        while part.len() < part_bytes {
            let room = part_bytes - part.len();
            let mut limited = (&mut file).take(room as u64);
            if limited.read_buf(&mut part).await.map_err(broken)? == 0 {
                let part = part.freeze();
                upload.hash(&part).await;
                return upload.finish(part).await;
            }
        }
        let part = part.freeze();
        upload.hash(&part).await;
        upload.part(part).await?;
    }
}

/// One blob on its way. Dropped before its end, it leaves nothing.
struct Upload<'a> {
    store: &'a dyn ObjectStore,
    to: ObjectPath,
    key: &'a BlobKey,
    hasher: blake3::Hasher,
    size: u64,
    parts: Option<Box<dyn MultipartUpload>>,
}

impl<'a> Upload<'a> {
    fn to(store: &'a dyn ObjectStore, to: ObjectPath, key: &'a BlobKey) -> Self {
        Upload {
            store,
            to,
            key,
            hasher: blake3::Hasher::new(),
            size: 0,
            parts: None,
        }
    }

    async fn hash(&mut self, bytes: &[u8]) {
        for piece in bytes.chunks(HASHED_AT_ONCE) {
            self.hasher.update(piece);
            if bytes.len() > HASHED_AT_ONCE {
                tokio::task::yield_now().await;
            }
        }
        self.size += bytes.len() as u64;
    }

    /// Sends a part that is not the last.
    async fn part(&mut self, part: Bytes) -> Result<(), Error> {
        let failed = |e| unavailable(self.key, e);
        let parts = match &mut self.parts {
            Some(parts) => parts,
            none => none.insert(self.store.put_multipart(&self.to).await.map_err(failed)?),
        };
        parts.put_part(PutPayload::from(part)).await.map_err(failed)
    }

    /// Sends the last part and makes the blob visible.
    async fn finish(mut self, last: Bytes) -> Result<BlobMeta, Error> {
        let failed = |e| unavailable(self.key, e);
        if self.parts.is_none() {
            let put = self.store.put(&self.to, PutPayload::from(last)).await;
            put.map_err(failed)?;
        } else {
            if !last.is_empty() {
                self.part(last).await?;
            }
            if let Some(parts) = &mut self.parts {
                parts.complete().await.map_err(failed)?;
            }
            self.parts = None;
        }
        Ok(BlobMeta {
            size: self.size,
            blake3: self.hasher.finalize().to_hex().to_string(),
        })
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        let Some(mut parts) = self.parts.take() else {
            return;
        };
        // Best effort, and no task that anybody waits for: parts that stay are the bucket's lifecycle rules' to remove.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = parts.abort().await {
                    tracing::debug!(error = %super::said(&error), "parts of an upload that was given up stay in the bucket");
                }
            });
        }
    }
}
