//! Why a job did not succeed, as data that every protocol can put into its own shape.

use serde::{Deserialize, Serialize};

/// The closed set of reasons; the code is stable and appears in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// A node raised while it ran: the workflow's fault, not retried.
    ExecutionError,
    /// The instance refused the graph (it validated differently than our pre-flight did).
    PromptRefused,
    /// An input file could not be fetched, decoded, or uploaded.
    InputUnavailable,
    /// The device ran out of memory, also after a fresh instance.
    OutOfMemory,
    /// It ran longer than `execution_timeout`.
    ExecutionTimeout,
    /// Every attempt was lost with its instance (`max_attempts`).
    InstanceLost,
    /// No instance could be started (bound of released attempts, or the start itself failed for good).
    StartFailed,
    /// It waited longer than `queue_ttl`.
    QueueTimeout,
    /// The instance said success, but a file it named was not there.
    OutputMissing,
    /// A defect of ours.
    Internal,
}

impl FailureCode {
    /// The stable code as it appears on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            FailureCode::ExecutionError => "execution_error",
            FailureCode::PromptRefused => "prompt_refused",
            FailureCode::InputUnavailable => "input_unavailable",
            FailureCode::OutOfMemory => "out_of_memory",
            FailureCode::ExecutionTimeout => "execution_timeout",
            FailureCode::InstanceLost => "instance_lost",
            FailureCode::StartFailed => "start_failed",
            FailureCode::QueueTimeout => "queue_timeout",
            FailureCode::OutputMissing => "output_missing",
            FailureCode::Internal => "internal",
        }
    }
}

/// A failure: code, human text, and, where a node of the graph is to blame, which one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub code: FailureCode,
    /// One sentence for a person; lower case, no full stop; never host paths, prompts, or secrets.
    pub message: String,
    /// The node at fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_id: Option<String>,
    /// Its class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_type: Option<String>,
    /// What the instance said, verbatim (`execution_error` data, `{error, node_errors}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

impl Failure {
    /// A failure that no node is to blame for.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Failure {
            code,
            message: message.into(),
            node_id: None,
            node_type: None,
            detail: None,
        }
    }
}
