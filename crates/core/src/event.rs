//! Durable events of a job: state changes and what the instance reported, numbered per job by the store.
//!
//! Ephemeral ones (progress, previews, status) never come here; they live in memory, last value per job and node.

use serde::{Deserialize, Serialize};

use crate::Timestamp;

/// Durable events kept per attempt before a marker says that more were dropped; see [`EventKind::room`].
pub const MAX_EVENTS_PER_ATTEMPT: u64 = 2_000;
/// Bytes of event data kept per attempt (1 MB), same rule.
pub const MAX_EVENT_BYTES_PER_ATTEMPT: u64 = 1_000_000;
/// Chunks are what a streaming handler is asked for, so they have more room: a token each for a long text …
pub const MAX_CHUNKS_PER_ATTEMPT: u64 = 100_000;
/// … and 64 MB of them in rows; larger ones lie in the blob store and take only their address here.
pub const MAX_CHUNK_BYTES_PER_ATTEMPT: u64 = 64_000_000;

/// How much of an attempt may be stored before events of a kind are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Events of the attempt, of any kind.
    pub events: u64,
    /// Bytes of their data.
    pub bytes: u64,
}

/// The closed set of durable event kinds. Those named after ComfyUI's messages carry the message's `data` verbatim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The job changed state; data: `{state, ...}`.
    State,
    /// ComfyUI `execution_start`.
    ExecutionStart,
    /// ComfyUI `execution_cached`.
    ExecutionCached,
    /// ComfyUI `executing`.
    Executing,
    /// ComfyUI `executed`.
    Executed,
    /// ComfyUI `execution_success`.
    ExecutionSuccess,
    /// ComfyUI `execution_error`.
    ExecutionError,
    /// ComfyUI `execution_interrupted`.
    ExecutionInterrupted,
    /// One output was stored; data: [`crate::output::Output`].
    Output,
    /// A worker's streamed chunk.
    Chunk,
    /// A line for the operator.
    Log,
    /// The compact last progress of the run, written once at the end; data: the last `progress_state`.
    ProgressSummary,
    /// The cap was reached: later events of this attempt were dropped.
    Truncated,
}

impl EventKind {
    /// All kinds.
    pub const ALL: [EventKind; 13] = [
        EventKind::State,
        EventKind::ExecutionStart,
        EventKind::ExecutionCached,
        EventKind::Executing,
        EventKind::Executed,
        EventKind::ExecutionSuccess,
        EventKind::ExecutionError,
        EventKind::ExecutionInterrupted,
        EventKind::Output,
        EventKind::Chunk,
        EventKind::Log,
        EventKind::ProgressSummary,
        EventKind::Truncated,
    ];

    /// The stable word; for ComfyUI's messages the same as their `type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            EventKind::State => "state",
            EventKind::ExecutionStart => "execution_start",
            EventKind::ExecutionCached => "execution_cached",
            EventKind::Executing => "executing",
            EventKind::Executed => "executed",
            EventKind::ExecutionSuccess => "execution_success",
            EventKind::ExecutionError => "execution_error",
            EventKind::ExecutionInterrupted => "execution_interrupted",
            EventKind::Output => "output",
            EventKind::Chunk => "chunk",
            EventKind::Log => "log",
            EventKind::ProgressSummary => "progress_summary",
            EventKind::Truncated => "truncated",
        }
    }

    /// The room of events of this kind, `None` for those that are never dropped. What came out of a run, and how it
    /// ended, has room of its own behind that of what went on meanwhile: a long run does not hide its end.
    pub const fn room(self) -> Option<Room> {
        let shares = match self {
            EventKind::State | EventKind::Truncated => return None,
            EventKind::Chunk => {
                return Some(Room {
                    events: MAX_CHUNKS_PER_ATTEMPT,
                    bytes: MAX_CHUNK_BYTES_PER_ATTEMPT,
                });
            }
            EventKind::ExecutionStart
            | EventKind::ExecutionCached
            | EventKind::Executing
            | EventKind::Log => 1,
            EventKind::Executed | EventKind::Output | EventKind::ProgressSummary => 2,
            EventKind::ExecutionSuccess | EventKind::ExecutionError | EventKind::ExecutionInterrupted => 3,
        };
        Some(Room {
            events: MAX_EVENTS_PER_ATTEMPT * shares,
            bytes: MAX_EVENT_BYTES_PER_ATTEMPT * shares,
        })
    }

    /// Whether an instance may tell of it. The others are ours: a state is what the job's machine says, an output what was
    /// stored, a chunk what a worker yielded.
    pub const fn is_an_instances(self) -> bool {
        match self {
            EventKind::ExecutionStart
            | EventKind::ExecutionCached
            | EventKind::Executing
            | EventKind::Executed
            | EventKind::ExecutionSuccess
            | EventKind::ExecutionError
            | EventKind::ExecutionInterrupted
            | EventKind::Log
            | EventKind::ProgressSummary => true,
            EventKind::State | EventKind::Output | EventKind::Chunk | EventKind::Truncated => false,
        }
    }

    /// The kind of that word.
    pub fn parse(word: &str) -> Option<EventKind> {
        EventKind::ALL.into_iter().find(|k| k.as_str() == word)
    }
}

/// An event before the store numbered it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NewEvent {
    /// What.
    pub kind: EventKind,
    /// JSON text, verbatim as the instance sent it where it is ComfyUI's.
    pub data: String,
}

/// A stored event. `seq` starts at 1 and grows by one per event of the job, across attempts.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Its number within the job.
    pub seq: u64,
    /// When the store wrote it.
    pub at: Timestamp,
    /// The attempt (1, 2, …) it belongs to; 0 before the first.
    pub attempt: u32,
    /// What.
    pub kind: EventKind,
    /// JSON text.
    pub data: String,
}
