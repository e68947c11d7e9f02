//! Files by what they hold: brought once, had by id or by hash, shared by every protocol that uploads.
//!
//! [`Service::receive`] takes bytes in, [`Service::create_asset`] makes an asset of them ([`create`]); large ones come in
//! pieces ([`resumed`]); [`read`] is how they are found again, [`references`] how a graph names them. What a job made is an asset too, without a row of its own: its id is
//! the job and the place among its outputs ([`AssetRef::Made`]).
//!
//! Callers without a key share a tenant with strangers: they have what they know the id of, and neither find bytes by hash,
//! nor by path, nor in lists.

use bytes::Bytes;
pub use darkroom_core::{AssetId, AssetRef, ContentHash, Digest, JobId};
use darkroom_core::{BlobKey, Timestamp};
use darkroom_store::assets::AssetRecord;

use super::Error;

pub mod create;
pub mod path;
pub mod read;
pub mod references;
pub mod resumed;

/// The longest asset that comes in one request, in bytes (4 GiB); protocols may have less.
pub const MAX_ASSET_BYTES: u64 = 4 << 30;

/// A file that can be had by id.
#[derive(Debug, Clone, PartialEq)]
pub struct Asset {
    /// Its id.
    pub id: AssetRef,
    /// BLAKE3 of its bytes.
    pub blake3: Option<Digest>,
    /// SHA-256 of its bytes, where it is known: of what was brought.
    pub sha256: Option<Digest>,
    /// Its length in bytes.
    pub size: u64,
    /// Its media type.
    pub content_type: String,
    /// The path it was brought under, or the name that the instance gave it.
    pub file_path: Option<String>,
    /// When it was brought first, or its job ended.
    pub created_at: Timestamp,
    /// When it goes; `None`: never, or with its job.
    pub expires_at: Option<Timestamp>,
    /// The job that made it.
    pub job: Option<JobId>,
    /// Its bytes.
    pub body: AssetBody,
}

/// Where the bytes of an asset are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AssetBody {
    /// In the blob store.
    Blob(BlobKey),
    /// A text that a node reported.
    Text(Bytes),
}

impl Asset {
    /// The name to save it under.
    pub fn file_name(&self) -> &str {
        let path = self.file_path.as_deref().unwrap_or("asset");
        path.rsplit('/').next().unwrap_or(path)
    }

    /// Its BLAKE3 as protocols write it.
    pub fn hash(&self) -> Option<ContentHash> {
        self.blake3.map(ContentHash::Blake3)
    }
}

impl From<AssetRecord> for Asset {
    fn from(record: AssetRecord) -> Self {
        Asset {
            id: AssetRef::Brought(record.id),
            blake3: Some(record.content.blake3),
            sha256: Some(record.content.sha256),
            size: record.content.size,
            content_type: record.content_type,
            file_path: record.file_path,
            created_at: record.created_at,
            expires_at: record.expires_at,
            job: None,
            body: AssetBody::Blob(record.content.blob),
        }
    }
}

/// Why no asset was made.
#[derive(Debug, thiserror::Error)]
pub enum AssetError {
    /// The bytes are not what the caller said they are; nothing is kept.
    #[error("the bytes are {found} and not {expected}")]
    HashMismatch {
        /// What the caller said.
        expected: ContentHash,
        /// What came.
        found: ContentHash,
    },
    /// The caller has no such bytes here.
    #[error("there are no bytes {0} here")]
    NoSuchBytes(ContentHash),
    /// The path is none, or leaves its folder.
    #[error("the file path is empty, too long, or leaves the input directory")]
    BadPath,
    /// Something else went wrong.
    #[error(transparent)]
    Service(#[from] Error),
}

impl From<darkroom_store::Error> for AssetError {
    fn from(error: darkroom_store::Error) -> Self {
        AssetError::Service(error.into())
    }
}

#[cfg(test)]
mod tests;
