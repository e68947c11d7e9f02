//! The port over HTTP, as data: what an agent and a server say to each other under `/darkroom/v1/agent`.
//!
//! An agent *connects* and gets a session on an instance; every later call names both, and, where it is about an attempt,
//! the attempt's lease. Bodies are JSON; files are sent as they are, described by the header [`PRODUCED`].

use darkroom_core::{
    AttemptOutcome, EndpointName, InstanceId, JobState, attempt::Lease, event::NewEvent, output::Output,
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::link::{Completion, StopCause};

/// Grows when one side cannot understand the other any more.
pub const PROTOCOL: u32 = 2;
/// Holds [`Produced`] as JSON in base64 (the URL alphabet, unpadded): names are not ASCII.
pub const PRODUCED: &str = "darkroom-produced";

/// An agent introduces itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// Whose jobs it runs.
    pub endpoint: EndpointName,
    /// How it calls itself: the same name later is the same instance.
    pub name: String,
    /// Only this instance will do: it goes on with what it runs there.
    #[serde(default)]
    pub instance: Option<InstanceId>,
    /// What it is at. Everything else on the instance is handed out again, or given back.
    #[serde(default)]
    pub holding: Vec<Lease>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// The agent's instance.
    pub instance: InstanceId,
    /// Good until the next one connects under this name, or the server restarts.
    pub session: Uuid,
    /// Under which the instance's socket is opened.
    pub client_id: String,
}

/// Asks for an attempt. 200 with an [`Assignment`](crate::link::Assignment), 204: ask again, 410: there is no more work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Next {
    /// The last one that it got: one that is not named here is handed out again.
    pub got: Option<Lease>,
}

/// What went on in a run, in its order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// The process that tells, by an id that it made for itself: after a restart it counts anew.
    pub teller: Uuid,
    /// Durable events of the attempt that it told before these.
    pub first: u64,
    /// These.
    pub items: Vec<Happening>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// Stored.
    Durable(NewEvent),
    /// Shown: a ComfyUI message.
    Message(String),
    /// Shown: a picture.
    Preview {
        /// The node, where the framing tells.
        node_id: Option<String>,
        /// `image/jpeg` or `image/png`.
        content_type: String,
        /// The picture.
        base64: String,
    },
}

/// A produced file, but for its bytes; see [`ProducedFile`](crate::link::ProducedFile).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Produced {
    /// The node.
    pub node_id: String,
    /// The list it stands in.
    pub kind: String,
    /// Its place there.
    pub index: u32,
    /// The item as reported.
    pub raw: serde_json::Value,
    /// Its name on the instance.
    pub file_name: String,
}

/// The end of an attempt; see [`Completion`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// How.
    pub outcome: AttemptOutcome,
    /// What it made.
    pub outputs: Vec<Output>,
    /// JSON of the history entry.
    pub result: Option<String>,
    /// Last durable events.
    pub events: Vec<NewEvent>,
}

/// The answer to an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// What the job is now.
    pub state: JobState,
}

/// The answer to who asks whether an attempt should stop; without a cause: ask again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stop {
    /// Why.
    pub cause: Option<StopCause>,
}

/// An agent goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// Why, for the operator.
    pub reason: String,
    /// Its ComfyUI broke.
    #[serde(default)]
    pub broken: bool,
}

impl From<Completion> for Ended {
    fn from(completion: Completion) -> Self {
        let Completion {
            outcome,
            outputs,
            result,
            events,
        } = completion;
        Ended {
            outcome,
            outputs,
            result: result.map(|json| String::from_utf8_lossy(&json).into_owned()),
            events,
        }
    }
}

impl From<Ended> for Completion {
    fn from(ended: Ended) -> Self {
        let Ended {
            outcome,
            outputs,
            result,
            events,
        } = ended;
        Completion {
            outcome,
            outputs,
            result: result.map(String::into_bytes),
            events,
        }
    }
}

/// The codes of answers that are errors, as they stand in `error.code`.
pub mod code {
    /// The attempt no longer owns its job (409).
    pub const STALE: &str = "stale_attempt";
    /// An input cannot be had (422).
    pub const INPUT_UNAVAILABLE: &str = "input_unavailable";
    /// The session is not known: connect again (404).
    pub const NO_SESSION: &str = "no_session";
    /// Another session has taken this instance (409).
    pub const SUPERSEDED: &str = "superseded";
    /// The instance is no more; it may connect as a new one (410).
    pub const GONE: &str = "instance_gone";
    /// No more work on this instance (410).
    pub const CLOSED: &str = "instance_closed";
}
