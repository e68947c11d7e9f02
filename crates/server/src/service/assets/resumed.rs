//! Large files a piece at a time: what came stays over broken connections and restarts, and the client goes on where it ended.

use std::time::Duration;

use bytes::Bytes;
use darkroom_core::{AssetId, TenantId, Timestamp};
pub use darkroom_store::assets::AssetUpload;
use darkroom_store::assets::Piece;
use futures::{StreamExt, TryStreamExt, stream, stream::BoxStream};

use super::{
    AssetError,
    create::{AssetTerms, Created},
    path,
};
use crate::service::{Error, Service};

/// The longest file that comes in pieces, in bytes (32 GiB).
pub const MAX_RESUMED_BYTES: u64 = 32 << 30;
/// What comes in one request is stored in pieces of about this, so that a connection that breaks costs no more.
const PIECE_BYTES: u64 = 8 << 20;
/// A file has no more pieces than this: sixteen times as many as its bytes need.
const MAX_PIECES: u32 = 65_536;
/// Who does not go on for so long has given up.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// Ended at a time, so that other writers get between.
const SWEPT_AT_ONCE: u32 = 20;

/// Why bytes were not taken.
#[derive(Debug, thiserror::Error)]
pub enum ResumeError {
    /// It has ended, was given up, or is another tenant's.
    #[error("there is no such upload")]
    NoUpload,
    /// They do not begin where the ones before them end; the client asks how far it is.
    #[error("the upload goes on at byte {received}, and not at {offset}")]
    Elsewhere {
        /// How many bytes are here.
        received: u64,
        /// Where the client wanted to go on.
        offset: u64,
    },
    /// No asset was made of them.
    #[error(transparent)]
    Asset(#[from] AssetError),
}

impl From<Error> for ResumeError {
    fn from(error: Error) -> Self {
        ResumeError::Asset(error.into())
    }
}

impl From<darkroom_store::Error> for ResumeError {
    fn from(error: darkroom_store::Error) -> Self {
        ResumeError::Asset(error.into())
    }
}

impl Service {
    /// Begins an upload.
    ///
    /// # Errors
    /// [`AssetError::BadPath`], or the store's own.
    pub async fn begin_resumed(
        &self,
        tenant: &TenantId,
        terms: &AssetTerms,
    ) -> Result<AssetUpload, AssetError> {
        if terms
            .file_path
            .as_deref()
            .is_some_and(|path| !path::is_good(path))
        {
            return Err(AssetError::BadPath);
        }
        let upload = AssetUpload {
            id: AssetId::new(&*self.ids),
            tenant: tenant.clone(),
            terms: serde_json::to_value(terms).map_err(|e| Error::Internal(e.into()))?,
            received: 0,
            pieces: 0,
            expires_at: self.given_up_at(),
        };
        self.store.begin_upload(upload.clone()).await?;
        Ok(upload)
    }

    /// How an upload stands.
    ///
    /// # Errors
    /// [`ResumeError::NoUpload`], or the store's own.
    pub async fn resumed(&self, tenant: &TenantId, id: AssetId) -> Result<AssetUpload, ResumeError> {
        let found = self.store.asset_upload(tenant, id).await?;
        found.ok_or(ResumeError::NoUpload)
    }

    /// Takes bytes that begin at `offset`. What came before an error stays.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub async fn resume_upload(
        &self,
        tenant: &TenantId,
        id: AssetId,
        offset: u64,
        bytes: BoxStream<'_, Result<Bytes, std::io::Error>>,
    ) -> Result<AssetUpload, ResumeError> {
        let mut upload = self.resumed(tenant, id).await?;
        let elsewhere = |received| ResumeError::Elsewhere { received, offset };
        if upload.received != offset {
            return Err(elsewhere(upload.received));
        }
        let mut rest = Pieces { bytes, left: None };
        while rest.has_more().await {
            if upload.received >= MAX_RESUMED_BYTES || upload.pieces >= MAX_PIECES {
                return Err(too_large().into());
            }
            let key = self.asset_key(tenant, "piece")?;
            self.store.intend_input(&key).await.map_err(Error::from)?;
            let stored = self.blobs.put_stream(&key, rest.next_piece(), u64::MAX).await;
            let size = match stored {
                Ok(stored) => stored.size,
                Err(error) => {
                    self.discard(vec![key]).await;
                    return Err(Error::from(error).into());
                }
            };
            let piece = Piece {
                offset: upload.received,
                size,
                blob: key.clone(),
            };
            let stands = self.store.add_piece(tenant, id, piece, self.given_up_at()).await;
            let taken = matches!(&stands, Ok(Some(now)) if now.received == upload.received + size);
            if !taken {
                self.discard(vec![key]).await;
            }
            let now = stands?.ok_or(ResumeError::NoUpload)?;
            if !taken {
                return Err(elsewhere(now.received));
            }
            upload = now;
        }
        Ok(upload)
    }

    /// Makes an asset of what came. Where that is refused the upload stays, and can be said again or given up.
    ///
    /// # Errors
    /// [`ResumeError`].
    pub async fn complete_resumed(&self, tenant: &TenantId, id: AssetId) -> Result<Created, ResumeError> {
        let upload = self.resumed(tenant, id).await?;
        let terms: AssetTerms =
            serde_json::from_value(upload.terms).map_err(|e| Error::Internal(e.into()))?;
        let pieces = self.store.upload_pieces(id).await?;
        let blobs = self.blobs.clone();
        let bytes = stream::iter(pieces)
            .map(Ok)
            .and_then(move |piece| {
                let blobs = blobs.clone();
                async move {
                    match blobs.open(&piece.blob, None).await {
                        Ok(Some(reader)) => Ok(reader.stream),
                        Ok(None) => Err(std::io::ErrorKind::NotFound.into()),
                        Err(error) => Err(std::io::Error::other(error)),
                    }
                }
            })
            .try_flatten()
            .boxed();
        let name = terms.file_path.clone().unwrap_or_else(|| "asset".to_owned());
        let incoming = self.receive(tenant, &name, bytes, upload.received).await?;
        let created = self.create_asset(tenant, incoming, terms).await?;
        self.store.end_upload(tenant, id).await?;
        Ok(created)
    }

    /// Gives an upload up.
    ///
    /// # Errors
    /// [`ResumeError::NoUpload`], or the store's own.
    pub async fn forget_resumed(&self, tenant: &TenantId, id: AssetId) -> Result<(), ResumeError> {
        match self.store.end_upload(tenant, id).await? {
            true => Ok(()),
            false => Err(ResumeError::NoUpload),
        }
    }

    /// Forgets uploads that nobody goes on with.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep_resumed(&self) -> Result<(), Error> {
        while self.store.sweep_uploads(SWEPT_AT_ONCE).await? == u64::from(SWEPT_AT_ONCE) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn given_up_at(&self) -> Timestamp {
        self.clock.now().plus(PATIENCE)
    }
}

fn too_large() -> Error {
    Error::TooLarge {
        what: "the upload",
        limit_bytes: MAX_RESUMED_BYTES,
    }
}

/// A body, cut into pieces.
struct Pieces<'a> {
    bytes: BoxStream<'a, Result<Bytes, std::io::Error>>,
    left: Option<Result<Bytes, std::io::Error>>,
}

impl Pieces<'_> {
    async fn has_more(&mut self) -> bool {
        while self
            .left
            .as_ref()
            .is_none_or(|left| left.as_ref().is_ok_and(Bytes::is_empty))
        {
            self.left = self.bytes.next().await;
            if self.left.is_none() {
                return false;
            }
        }
        true
    }

    /// Ends after about [`PIECE_BYTES`], or when the connection breaks: then a piece of what came is whole all the same, and the
    /// error is the next piece's.
    fn next_piece(&mut self) -> BoxStream<'_, Result<Bytes, std::io::Error>> {
        let begin = (self, 0_u64);
        stream::unfold(begin, |(rest, taken)| async move {
            if taken >= PIECE_BYTES {
                return None;
            }
            if !rest.has_more().await || taken > 0 && matches!(rest.left, Some(Err(_))) {
                return None;
            }
            let next = rest.left.take()?;
            let length = next.as_ref().map_or(0, |bytes| bytes.len() as u64);
            Some((next, (rest, taken + length)))
        })
        .boxed()
    }
}
