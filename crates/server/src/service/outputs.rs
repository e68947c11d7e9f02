//! What a job made, as callers may have it: signed addresses, bytes.

use bytes::Bytes;
use darkroom_blobs::signed_url::Method;
use darkroom_core::{
    BlobKey, Timestamp,
    output::{Output, OutputBody},
};

use super::{Error, Service};

/// Where a file can be fetched without credentials until the signature expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedPath {
    /// Path and query, to be put after the base address the caller used.
    pub path_and_query: String,
    /// Until when it is good.
    pub expires_at: Timestamp,
}

impl Service {
    /// A signed address of a blob, good for `[blobs] url_expiry`.
    pub fn signed_path(&self, key: &BlobKey) -> SignedPath {
        let expires = self.clock.now().plus(self.settings.url_expiry);
        SignedPath {
            path_and_query: self.signer.sign_path(Method::Get, key, expires, None),
            expires_at: expires,
        }
    }

    /// The whole of an output file.
    ///
    /// # Errors
    /// [`Error::TooLarge`] above `max_bytes`, [`Error::NotFound`] when retention took it.
    pub async fn read_output(&self, key: &BlobKey, max_bytes: u64) -> Result<Bytes, Error> {
        self.blobs
            .read(key, max_bytes)
            .await?
            .ok_or_else(|| Error::not_found("output", key.file_name()))
    }
}

/// The file of an output, if it is one.
pub fn file_of(output: &Output) -> Option<(&BlobKey, u64, &str)> {
    match &output.body {
        OutputBody::File {
            key,
            size,
            content_type,
            ..
        } => Some((key, *size, content_type)),
        OutputBody::Text { .. } => None,
    }
}
