//! What an attempt made, on its way into the blob store.

use bytes::Bytes;
use darkroom_core::{
    BlobKey,
    attempt::Lease,
    output::{Output, OutputBody},
};
use darkroom_runner::link::{LinkError, ProducedBody, ProducedFile};
use futures::TryStreamExt;

use super::{blobs_away, store_away};
use crate::service::Service;

impl Service {
    /// Stores one produced file; durable when this returns, and named by no row yet. One that comes as a stream is refused
    /// beyond `max_bytes`.
    pub(super) async fn store_output(
        &self,
        lease: Lease,
        file: ProducedFile,
        max_bytes: u64,
    ) -> Result<Output, LinkError> {
        let key = BlobKey::output(lease.job, self.ids.uuid_v4(), &file.file_name);
        self.store.intend(&key).await.map_err(store_away)?;
        let meta = match file.body {
            ProducedBody::Path(path) if is_longer(&path, max_bytes).await => {
                let key = key.clone();
                Err(darkroom_blobs::Error::TooLarge { key, max_bytes })
            }
            ProducedBody::Path(path) => self.blobs.put_file(&key, &path).await,
            ProducedBody::Stream(stream) => self.blobs.put_stream(&key, stream, max_bytes).await,
        };
        let meta = meta.map_err(|e| blobs_away(&e))?;
        self.reach("blob_stored");
        let content_type = self.content_type_of(&key, &file.file_name).await;
        Ok(Output {
            node_id: file.node_id,
            kind: file.kind,
            index: file.index,
            raw: file.raw,
            body: OutputBody::File {
                key,
                size: meta.size,
                content_type,
                blake3: meta.blake3,
            },
        })
    }

    /// A cached rerun re-reports a file that was stored for an earlier job, which may have been swept meanwhile: the
    /// intent keeps its blob until this job's end is written and refers to it.
    pub(super) async fn store_again(&self, output: Output) -> Result<Option<Output>, LinkError> {
        let OutputBody::File { key, .. } = &output.body else {
            return Ok(Some(output));
        };
        // No blob is deleted between the intent and the look: what is there then, stays.
        let _kept = self.deletions.read().await;
        self.store.intend(key).await.map_err(store_away)?;
        let there = self.blobs.stat(key).await.map_err(|e| blobs_away(&e))?;
        Ok(there.map(|_| output))
    }

    /// Deletes a blob of the trash unless somebody took it up meanwhile: first the row, then the bytes, so that a crash
    /// between the two leaves bytes that a listing can find, and never a row without bytes.
    ///
    /// # Errors
    /// When a store fails.
    pub async fn delete_trashed(&self, blob: &BlobKey) -> anyhow::Result<()> {
        let _alone = self.deletions.write().await;
        if self.store.empty_trash(blob).await? {
            self.blobs.delete(blob).await?;
        }
        Ok(())
    }

    pub(in crate::service) async fn content_type_of(&self, key: &BlobKey, file_name: &str) -> String {
        let head = match self.blobs.open(key, Some(0..64)).await {
            Ok(Some(reader)) => reader
                .stream
                .try_collect::<Vec<Bytes>>()
                .await
                .map(|pieces| pieces.concat())
                .unwrap_or_default(),
            Ok(None) | Err(_) => Vec::new(),
        };
        darkroom_blobs::content_type::of(file_name, &head).to_owned()
    }
}

/// One whose length cannot be read is for the blob store to complain about.
async fn is_longer(file: &std::path::Path, max_bytes: u64) -> bool {
    let meta = tokio::fs::metadata(file).await;
    meta.is_ok_and(|meta| meta.len() > max_bytes)
}
