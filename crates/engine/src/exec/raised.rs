//! What a node can end with instead of a result.

use std::io;

/// A node's failure, or a reason to stop that is no failure of the node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Raised {
    /// The node failed. `kind` is the name of the Python exception that clients know for it.
    #[error("{message}")]
    Error {
        /// For instance `ValueError` or `torch.OutOfMemoryError`.
        kind: String,
        /// One sentence, without paths of this machine.
        message: String,
    },
    /// The prompt was interrupted.
    #[error("processing interrupted")]
    Interrupted,
    /// Nothing will be executed any more, while the server keeps answering (only the test node asks for this).
    #[error("the worker is gone")]
    WorkerGone,
}

impl Raised {
    /// A failure.
    pub fn new(kind: impl Into<String>, message: impl Into<String>) -> Raised {
        Raised::Error {
            kind: kind.into(),
            message: message.into(),
        }
    }

    /// A failed file operation; the system's text names no path.
    pub fn io(error: &io::Error) -> Raised {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => "FileNotFoundError",
            io::ErrorKind::PermissionDenied => "PermissionError",
            _ => "OSError",
        };
        Raised::new(kind, error.to_string())
    }
}
