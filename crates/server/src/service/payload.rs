//! Where a payload lies: inline in its row while it is small, else in the blob store, written before the row that names it.

use bytes::Bytes;
use darkroom_core::{BlobKey, Payload, payload::INLINE_MAX_BYTES};

use super::{Error, Service};

impl Service {
    /// As [`Service::place`], for what a caller sent: only while there is more space than the disk reserve.
    pub(super) async fn place_input(&self, key: BlobKey, body: Bytes) -> Result<Payload, Error> {
        if body.len() <= INLINE_MAX_BYTES {
            return Ok(Payload::Inline(body.to_vec()));
        }
        let size = body.len() as u64;
        self.put_intended(&key, body).await?;
        Ok(Payload::Blob { key, size })
    }

    /// Small payloads stay inline; large ones become blobs before any row names them.
    pub(super) async fn place(&self, key: BlobKey, body: Bytes) -> Result<Payload, Error> {
        if body.len() <= INLINE_MAX_BYTES {
            return Ok(Payload::Inline(body.to_vec()));
        }
        self.store.intend(&key).await?;
        let size = body.len() as u64;
        self.blobs.put_bytes(&key, body).await?;
        Ok(Payload::Blob { key, size })
    }

    /// The bytes of a payload; `None` when its blob is gone.
    ///
    /// # Errors
    /// When the blob store fails.
    pub async fn read_payload(&self, payload: &Payload) -> Result<Option<Bytes>, Error> {
        match payload {
            Payload::Inline(bytes) => Ok(Some(Bytes::copy_from_slice(bytes))),
            Payload::Blob { key, size } => Ok(self.blobs.read(key, *size).await?),
        }
    }
}
