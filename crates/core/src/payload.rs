//! A job's input, result, or chunk: small ones travel inline in rows, large ones are blobs.

use serde::{Deserialize, Serialize};

use crate::BlobKey;

/// The largest payload kept inline in a row, in bytes (32 KiB). Above it the bytes go to the blob store
/// *before* the row that names them, so that no large body ever passes through the store's writer.
pub const INLINE_MAX_BYTES: usize = 32 * 1024;

/// Bytes of a request or a result, wherever they are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// In the row itself.
    Inline(Vec<u8>),
    /// In the blob store; `size` in bytes.
    Blob {
        /// Where.
        key: BlobKey,
        /// Length in bytes.
        size: u64,
    },
}

impl Payload {
    /// Length in bytes.
    pub fn size(&self) -> u64 {
        match self {
            Payload::Inline(bytes) => bytes.len() as u64,
            Payload::Blob { size, .. } => *size,
        }
    }

    /// The blob it lives in, if it does.
    pub fn blob(&self) -> Option<&BlobKey> {
        match self {
            Payload::Inline(_) => None,
            Payload::Blob { key, .. } => Some(key),
        }
    }
}
