//! The messages and bodies of ComfyUI's HTTP and WebSocket API, as observed with 0.3.64.
//!
//! Reading is tolerant (custom nodes and newer versions add fields and types) and nothing is lost: a
//! [`Message`] keeps the text it came from, bodies keep unknown fields.

mod binary;
mod files;
mod history;
mod json;
mod message;
mod prompt;
mod queue;
mod system;
mod view;

pub use self::binary::{BinaryFrame, ImageFormat, PreviewMetadata};
pub use self::files::{FileRef, output_files};
pub use self::history::{HistoryEntry, HistoryStatus};
pub use self::json::parse_lenient;
pub use self::message::{Body, ExecutionError, Message, NodeProgress};
pub use self::prompt::{PromptReply, PromptRequest, UploadReply};
pub use self::queue::{QueueItem, QueueSnapshot};
pub use self::system::{Device, SystemInfo, SystemStats};
pub use self::view::Conversion;

/// Why something from an instance could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("not JSON")]
    Json(#[from] serde_json::Error),
    #[error("a message must be an object with a type, got {found}")]
    NotAMessage { found: String },
    #[error("binary frame of {length} bytes is too short for {what}")]
    ShortFrame { what: &'static str, length: usize },
    #[error("binary frame holds text that is not UTF-8")]
    NotUtf8,
}
