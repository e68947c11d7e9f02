//! The port between a slot and whoever hands out attempts: the server in the same process, or a server far away.

use std::{path::PathBuf, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::{
    AttemptOutcome, JobState,
    attempt::{Lease, RunningOn},
    event::NewEvent,
    output::Output,
};
use futures::stream::BoxStream;
use serde::{Deserialize, Serialize};

/// The request of a ComfyUI job as the runner takes it: the JSON of a job's input payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ComfyWork {
    /// The graph, in API format, as validated and coerced.
    pub graph: serde_json::Value,
    /// Travels to ComfyUI as `extra_data` (`extra_pnginfo`, …).
    #[serde(default)]
    pub extra_data: serde_json::Map<String, serde_json::Value>,
    /// Only these output nodes.
    #[serde(default)]
    pub partial_execution_targets: Option<Vec<String>>,
    /// The output nodes that run, as validation found them; empty where it was left to the instance.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// Files that must be on the instance before the prompt is posted; their names go into the graph.
    #[serde(default)]
    pub files: Vec<InputFile>,
}

/// A file that a node's input needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputFile {
    /// The node whose input it is.
    pub node_id: String,
    /// The input's name (`image`).
    pub input: String,
    /// Where in the input the name goes, as a JSON pointer; `None`: it is the whole of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nested: Option<String>,
    /// The name it gets on the instance; content-addressed, so that equal files hit ComfyUI's cache.
    pub file_name: String,
    /// Where it comes from.
    pub source: InputSource,
}

/// Where the bytes of an input come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputSource {
    /// The blob store.
    Blob(darkroom_core::BlobKey),
    /// An address, fetched under the server's `[fetch]` rules when the attempt starts.
    Url(Address),
}

/// An address to fetch, and what is expected there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "WrittenAddress")]
pub struct Address {
    /// The http(s) address.
    pub url: String,
    /// Class of the node that names it, for error texts; empty where it is not known.
    pub class: String,
    /// What that node takes.
    pub media: Media,
}

/// What a loader takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Media {
    /// A picture.
    Image,
    /// Anything else: only its length is looked at.
    Other,
}

/// Jobs of older versions have the address alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum WrittenAddress {
    Alone(String),
    Whole {
        url: String,
        class: String,
        media: Media,
    },
}

impl From<WrittenAddress> for Address {
    fn from(written: WrittenAddress) -> Self {
        match written {
            WrittenAddress::Alone(url) => Address {
                url,
                class: String::new(),
                media: Media::Other,
            },
            WrittenAddress::Whole { url, class, media } => Address { url, class, media },
        }
    }
}

/// An attempt for a slot to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Assignment {
    /// Job and fence.
    pub lease: Lease,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// What to run.
    pub work: ComfyWork,
    /// Set when a server adopts an attempt that runs on this instance already: do not post it again, follow it.
    #[serde(default)]
    pub resume: Option<RunningOn>,
    /// The attempt's bounds.
    pub bounds: Bounds,
    /// If it runs out of the device's memory, the job is run once more; its instance is given up then, so that a fresh one
    /// takes its place, and nobody is told of a failure.
    pub may_restart: bool,
}

/// Bounds on one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// Longer than this from the prompt's start is a failure (`execution_timeout`).
    pub execution_timeout: Duration,
    /// Silence while a node runs beyond this is a lost attempt.
    pub stall_timeout: Duration,
    /// After an interrupt was sent, how long the node may take before the instance counts as stuck.
    pub cancel_grace: Duration,
}

/// Something the job's followers see at once and nobody stores.
#[derive(Debug, Clone, PartialEq)]
pub enum Ephemeral {
    /// A ComfyUI text message (`progress`, `progress_state`, `status`), verbatim JSON `{type, data}`.
    Message(std::sync::Arc<str>),
    /// A preview image.
    Preview {
        /// The node, where the framing tells.
        node_id: Option<String>,
        /// `image/jpeg` or `image/png`.
        content_type: &'static str,
        /// The image.
        bytes: Bytes,
    },
}

/// One produced file on its way to the blob store.
pub struct ProducedFile {
    /// The node, or empty for a file that history does not mention.
    pub node_id: String,
    /// The list it stands in (`images`, `gifs`, `audio`, `3d`, `files`, …).
    pub kind: String,
    /// Position in that list, from 0.
    pub index: u32,
    /// The item as reported.
    pub raw: serde_json::Value,
    /// Its file name on the instance.
    pub file_name: String,
    /// Its bytes.
    pub body: ProducedBody,
}

/// Where a produced file's bytes are.
pub enum ProducedBody {
    /// In a local directory of the instance.
    Path(PathBuf),
    /// Streamed from the instance.
    Stream(BoxStream<'static, std::io::Result<Bytes>>),
}

/// Why a call of the link did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The attempt no longer owns the job: stop, throw the result away.
    #[error("the attempt no longer owns its job")]
    Stale,
    /// The other side cannot be reached or cannot store just now: wait and try again.
    #[error("not available just now: {0}")]
    Unavailable(String),
    /// An input cannot be had (refused, not found, not an image): the job fails with this text.
    #[error("{0}")]
    InputUnavailable(String),
    /// It will never work.
    #[error("{0}")]
    Rejected(String),
}

/// How an attempt ended and what it made.
#[derive(Debug, Clone)]
pub struct Completion {
    /// How.
    pub outcome: AttemptOutcome,
    /// Stored outputs, in the order of history.
    pub outputs: Vec<Output>,
    /// JSON: `{outputs, status, meta}` of the history entry, when there is one.
    pub result: Option<Vec<u8>>,
    /// Last durable events (the progress summary).
    pub events: Vec<NewEvent>,
}

impl Completion {
    /// An end of which there is nothing more to say.
    pub fn of(outcome: AttemptOutcome) -> Self {
        Completion {
            outcome,
            outputs: Vec::new(),
            result: None,
            events: Vec::new(),
        }
    }
}

/// What a slot needs from whoever hands out attempts. Implemented in the server, and over HTTP by the agent.
#[async_trait]
pub trait AttemptLink: Send + Sync {
    /// Waits for the next attempt; `None` when the slot should close (drain, shutdown).
    async fn next(&self) -> Option<Assignment>;

    /// Stores where the attempt runs, *before* its prompt is posted.
    async fn started(&self, lease: Lease, on: RunningOn) -> Result<(), LinkError>;

    /// The bytes of an input file.
    async fn input(&self, lease: Lease, source: &InputSource) -> Result<Bytes, LinkError>;

    /// Appends durable events, in order.
    async fn event(&self, lease: Lease, events: Vec<NewEvent>) -> Result<(), LinkError>;

    /// Shows something to the job's followers; never waits, never fails.
    fn progress(&self, lease: Lease, what: Ephemeral);

    /// The instance is done with the prompt and its slot is free; outputs still wait for the blob store.
    async fn collecting(&self, lease: Lease) -> Result<(), LinkError>;

    /// Stores one produced file.
    async fn put_output(&self, lease: Lease, file: ProducedFile) -> Result<Output, LinkError>;

    /// Makes a file that was stored for an earlier attempt of this instance an output of this job too: a cached rerun
    /// reports old files and writes nothing. The answer names bytes that are really there and stay as long as this
    /// job does; `None` means that this cannot be had, and the file is stored again (or is missing).
    async fn reuse_output(&self, lease: Lease, output: Output) -> Result<Option<Output>, LinkError> {
        let _ = (lease, output);
        Ok(None)
    }

    /// Ends the attempt.
    async fn finish(&self, lease: Lease, completion: Completion) -> Result<JobState, LinkError>;

    /// The slot works on the attempt no more and writes no end of it: its lease is gone, or its end was refused. Never
    /// waits, never fails.
    fn abandoned(&self, lease: Lease) {
        let _ = lease;
    }

    /// Resolves when the attempt should stop: its caller cancelled, or its lease was lost. Renewing the lease is the
    /// link's business, not the slot's.
    async fn cancelled(&self, lease: Lease) -> StopCause;
}

/// Why a running attempt should stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StopCause {
    /// A caller cancelled the job.
    Cancelled,
    /// The lease is gone: another attempt owns the job.
    Stale,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_older_versions_stored_are_read() {
        let read = |json: &str| serde_json::from_str::<InputSource>(json).unwrap();
        let InputSource::Url(old) = read(r#"{"url":"http://x/a.png"}"#) else {
            panic!("not an address")
        };
        assert_eq!((old.url.as_str(), old.class.as_str()), ("http://x/a.png", ""));
        let new = InputSource::Url(Address {
            class: "LoadImage".into(),
            media: Media::Image,
            ..old
        });
        assert_eq!(read(&serde_json::to_string(&new).unwrap()), new);
    }
}
