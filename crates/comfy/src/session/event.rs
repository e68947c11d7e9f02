//! What a session tells, asks for, and is told about failures.

use crate::wire::{BinaryFrame, Message};

/// Something that belongs to the prompt, to be passed on.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionEvent {
    /// Part of the job's record: start, cached, executing, executed, error, interrupted, success.
    Durable(Message),
    /// Of the moment: progress, progress_state, and what custom nodes send while the prompt runs.
    Ephemeral(Message),
    /// A preview, or a final image of SaveImageWebsocket, with the node it is of (as far as known).
    Image {
        node: Option<String>,
        frame: BinaryFrame,
    },
    /// Progress text of a node.
    Text { node: String, text: String },
    /// The socket was away: messages may be missing here. Outputs are complete in the history.
    Gap,
}

/// What the session wants to know. One HTTP request is asked for at a time; each has to be answered with the
/// matching `on_…`, or with `on_failed`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `GET /queue`, answered by `on_queue`.
    FetchQueue,
    /// `GET /history/{prompt_id}`, answered by `on_history`.
    FetchHistory,
    /// Connect `/ws` under the same client id, answered by `on_socket_opened`.
    OpenSocket,
}

/// How a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection: nothing listens there.
    Refused,
    /// Connected, but no usable answer: a node may hold the interpreter for a long time.
    NoAnswer,
    /// An answer that no ComfyUI gives: something else is at its address, or it is out of its mind.
    Garbage,
}
