//! The bytes of payloads, outputs and assets, under [`BlobKey`]s.
//!
//! A put that returned has survived a power loss: callers write the blob first and then the row that names it.
//! This crate deliberately does not know rows, references, jobs or HTTP: who still needs a blob is the store's
//! question, and who may read one is the server's. It only helps the latter with pure rules: [`signed_url`] (our own
//! expiring links), [`range`] (which part was asked for) and [`content_type`] (what a file is and whether a browser
//! may show it).
//!
//! Start with [`Blobs`], then [`LocalBlobs`] and how it makes a put durable (`local/write.rs`), and [`S3Blobs`].

use std::{ops::Range, path::Path};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::{BlobKey, Timestamp};
use futures::stream::BoxStream;

#[cfg(test)]
mod conformance;
pub mod content_type;
mod error;
mod local;
pub mod range;
mod s3;
pub mod signed_url;

pub use error::Error;
#[cfg(any(test, feature = "power-loss"))]
pub use local::power_loss;
pub use local::{Disk, DiskFile, Failpoint, LocalBlobs};
pub use s3::{Presigned, S3Blobs, S3Credentials, S3Options};

/// A place for blobs.
///
/// Putting to a key that exists replaces the blob at once: a reader sees the old or the new bytes, never a mixture.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Stores bytes; they are durable when this returns.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Unavailable`] (worth a retry), [`Error::KeyClash`], [`Error::Io`].
    async fn put_bytes(&self, key: &BlobKey, bytes: Bytes) -> Result<BlobMeta, Error>;

    /// Stores a copy of a file, which its owner may rewrite or remove afterwards; durable when this returns.
    ///
    /// # Errors
    /// As [`Blobs::put_bytes`], and [`Error::Source`] when the file cannot be read.
    async fn put_file(&self, key: &BlobKey, path: &Path) -> Result<BlobMeta, Error>;

    /// Stores a stream of at most `max_bytes`; durable when this returns. Nothing is stored when it fails, or when
    /// the future is dropped before its end. Memory does not grow with the length of the stream.
    ///
    /// # Errors
    /// As [`Blobs::put_bytes`], [`Error::TooLarge`] beyond `max_bytes`, [`Error::Source`] when the stream breaks.
    async fn put_stream(
        &self,
        key: &BlobKey,
        body: BoxStream<'_, Result<Bytes, std::io::Error>>,
        max_bytes: u64,
    ) -> Result<BlobMeta, Error>;

    /// Opens a blob for reading, or a part of it; a range that reaches beyond the end is cut to what there is.
    /// `None`: there is no such blob.
    ///
    /// # Errors
    /// [`Error::Unavailable`] or [`Error::Io`].
    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>, Error>;

    /// The whole blob in memory.
    ///
    /// # Errors
    /// As [`Blobs::open`], and [`Error::TooLarge`] when it is longer than `max_bytes`.
    async fn read(&self, key: &BlobKey, max_bytes: u64) -> Result<Option<Bytes>, Error>;

    /// What is known of a blob without reading it.
    ///
    /// # Errors
    /// As [`Blobs::open`].
    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobStat>, Error>;

    /// Removes a blob; one that does not exist is removed already.
    ///
    /// # Errors
    /// As [`Blobs::open`].
    async fn delete(&self, key: &BlobKey) -> Result<(), Error>;

    /// Up to `limit` blobs whose keys come after `after`, in byte order of their keys: for the sweeper that looks
    /// for blobs no row names.
    ///
    /// # Errors
    /// As [`Blobs::open`].
    async fn list(&self, after: Option<&BlobKey>, limit: usize) -> Result<Vec<Listed>, Error>;
}

/// What was stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobMeta {
    /// Length in bytes.
    pub size: u64,
    /// BLAKE3 of the bytes, lower-case hex.
    pub blake3: String,
}

/// What the place of a blob knows about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlobStat {
    /// Length in bytes.
    pub size: u64,
    /// When it was stored.
    pub modified: Timestamp,
}

/// An opened blob.
pub struct BlobReader {
    /// Length of the whole blob in bytes, also when only a part is read.
    pub size: u64,
    /// When it was stored.
    pub modified: Timestamp,
    /// The part that the stream gives.
    pub range: Range<u64>,
    /// Its bytes, in pieces of at most 64 KiB.
    pub stream: BoxStream<'static, Result<Bytes, std::io::Error>>,
}

impl std::fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobReader")
            .field("size", &self.size)
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

/// One blob of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its key.
    pub key: BlobKey,
    /// Length in bytes.
    pub size: u64,
    /// When it was stored.
    pub modified: Timestamp,
}
