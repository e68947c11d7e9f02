//! What can go wrong with a blob, by what the caller can do about it.

use std::{io, time::Duration};

use darkroom_core::BlobKey;

/// A failed operation on a blob.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk or quota is full: refuse new work, keep what is owed and try again when space returns.
    #[error("no space left for blob '{key}'")]
    NoSpace {
        /// The blob.
        key: BlobKey,
        /// The system's error.
        source: io::Error,
    },
    /// Longer than the caller allowed.
    #[error("blob '{key}' is larger than {max_bytes} bytes")]
    TooLarge {
        /// The blob.
        key: BlobKey,
        /// The bound it broke.
        max_bytes: u64,
    },
    /// The blob store cannot be reached now; the same call may succeed later.
    #[error("the blob store is unavailable")]
    Unavailable {
        /// When to try again.
        retry_after: Duration,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bytes to store could not be read: the stream broke, or the file is gone.
    #[error("the source of blob '{key}' could not be read")]
    Source {
        /// The blob.
        key: BlobKey,
        /// The error of the stream or the file.
        source: io::Error,
    },
    /// The key is a folder of another blob's key, or the other way round.
    #[error("blob '{0}' clashes with a blob above or below it")]
    KeyClash(BlobKey),
    /// Any other failure of the file system.
    #[error("cannot {action} blob '{key}'")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The blob.
        key: BlobKey,
        /// The system's error.
        source: io::Error,
    },
    /// A bucket cannot be used as it is configured.
    #[error("cannot use the bucket '{bucket}'")]
    Bucket {
        /// Its name.
        bucket: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The directory of the local blob store cannot be used.
    #[error("cannot use the blob directory {}", path.display())]
    Root {
        /// The directory.
        path: std::path::PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

impl Error {
    /// Whether the same call may succeed later without anything changing in what was asked.
    pub fn is_transient(&self) -> bool {
        match self {
            Error::NoSpace { .. } | Error::Unavailable { .. } | Error::Io { .. } | Error::Root { .. } => true,
            Error::TooLarge { .. } | Error::Source { .. } | Error::KeyClash(_) | Error::Bucket { .. } => {
                false
            }
        }
    }

    /// The error for a failed system call.
    pub(crate) fn from_io(action: &'static str, key: &BlobKey, source: io::Error) -> Error {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::NoSpace {
                key: key.clone(),
                source,
            },
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => Error::KeyClash(key.clone()),
            _ => Error::Io {
                action,
                key: key.clone(),
                source,
            },
        }
    }
}
