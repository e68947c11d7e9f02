//! What an operation of the service can answer instead of its result: few kinds, which every protocol maps to its own
//! statuses and shapes.

use std::time::Duration;

use darkroom_core::JobId;

use crate::memory::{Exhausted, RETRY_AFTER};

/// Why an operation was refused or did not work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such thing, or it belongs to another tenant.
    #[error("there is no {what} '{name}'")]
    NotFound {
        /// The noun.
        what: &'static str,
        /// Its name or id, as asked for.
        name: String,
    },
    /// The request makes no sense; the text says what and where.
    #[error("{0}")]
    Invalid(String),
    /// The graph was refused before it was queued.
    #[error("{}", .0.message())]
    InvalidGraph(Box<super::preflight::Refusal>),
    /// An input file cannot be had: refused by the fetch rules, not found, too large, or not what it claims to be.
    #[error("{0}")]
    InputUnavailable(Box<Unavailable>),
    /// The id was used before.
    #[error("the id '{id}' belongs to job {job} already")]
    Duplicate {
        /// The client's id.
        id: String,
        /// The job that has it.
        job: JobId,
    },
    /// Larger than allowed.
    #[error("{what} is larger than {limit_bytes} bytes")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The bound it broke, in bytes.
        limit_bytes: u64,
    },
    /// The endpoint's queue is full.
    #[error("the queue of endpoint '{endpoint}' is full: {queued} jobs wait")]
    QueueFull {
        /// Which endpoint.
        endpoint: String,
        /// How many wait.
        queued: u64,
    },
    /// Not just now: the writer is busy, the disk is nearly full, or the server stops. Try again after a moment.
    #[error("{reason}")]
    Unavailable {
        /// Why.
        reason: String,
        /// When to try again.
        retry_after: Duration,
    },
    /// A defect of ours or of the machine; the chain is logged, the caller gets only the fact.
    #[error("internal error")]
    Internal(#[source] anyhow::Error),
}

/// Why an input file cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// As protocols that send graphs tell it, with the class of the node.
    pub text: String,
    /// The same for who does not know the graph.
    pub plain: String,
    /// The node and its input, where it is known.
    pub place: Option<(String, &'static str)>,
    /// The ids of assets that the caller does not have, as the graph has them, where it is those that are missing.
    pub missing_assets: Vec<String>,
}

impl std::fmt::Display for Unavailable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for Unavailable {
    fn from(text: String) -> Self {
        Unavailable {
            plain: text.clone(),
            text,
            place: None,
            missing_assets: Vec::new(),
        }
    }
}

impl Error {
    /// A file that cannot be had, in words that do for everybody.
    pub fn input_unavailable(text: String) -> Error {
        Error::InputUnavailable(Box::new(text.into()))
    }

    /// The stable word of its kind, as our own API shows it.
    pub fn code(&self) -> &'static str {
        match self {
            Error::NotFound { .. } => "not_found",
            Error::Invalid(_) => "invalid_request",
            Error::InvalidGraph(_) => "invalid_graph",
            Error::InputUnavailable(_) => "input_unavailable",
            Error::Duplicate { .. } => "duplicate",
            Error::TooLarge { .. } => "too_large",
            Error::QueueFull { .. } => "queue_full",
            Error::Unavailable { .. } => "unavailable",
            Error::Internal(_) => "internal",
        }
    }

    /// A lookup that found nothing.
    pub fn not_found(what: &'static str, name: impl ToString) -> Error {
        let mut name = name.to_string();
        if name.chars().count() > 80 {
            name = name.chars().take(80).chain("…".chars()).collect();
        }
        Error::NotFound { what, name }
    }
}

impl From<Exhausted> for Error {
    fn from(exhausted: Exhausted) -> Self {
        Error::Unavailable {
            reason: exhausted.to_string(),
            retry_after: RETRY_AFTER,
        }
    }
}

impl From<darkroom_store::Error> for Error {
    fn from(error: darkroom_store::Error) -> Self {
        use darkroom_store::Error as Store;
        match error {
            Store::Busy | Store::DiskFull { .. } | Store::Closed => Error::Unavailable {
                reason: error.to_string(),
                retry_after: Duration::from_secs(1),
            },
            other => Error::Internal(anyhow::Error::new(other)),
        }
    }
}

impl From<darkroom_blobs::Error> for Error {
    fn from(error: darkroom_blobs::Error) -> Self {
        use darkroom_blobs::Error as Blobs;
        match error {
            Blobs::TooLarge { max_bytes, .. } => Error::TooLarge {
                what: "the file",
                limit_bytes: max_bytes,
            },
            Blobs::Unavailable { retry_after, .. } => Error::Unavailable {
                reason: "the blob store is unavailable".into(),
                retry_after,
            },
            Blobs::NoSpace { .. } => Error::Unavailable {
                reason: "the disk is full".into(),
                retry_after: Duration::from_secs(5),
            },
            Blobs::Source { source, .. } => Error::Invalid(format!("the upload broke off: {source}")),
            other if other.is_transient() => {
                tracing::warn!(error = ?other, "the blob store failed");
                Error::Unavailable {
                    reason: "the blob store is unavailable".into(),
                    retry_after: Duration::from_secs(1),
                }
            }
            other => Error::Internal(anyhow::Error::new(other)),
        }
    }
}
