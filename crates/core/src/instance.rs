//! An instance's life: `starting -> ready -> draining -> stopping -> stopped`, or `failed` from anywhere before.

use serde::{Deserialize, Serialize};

/// Where an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Spawned or being spawned; not answering yet.
    Starting,
    /// Answers; its slots may claim.
    Ready,
    /// Finishes what it runs; claims nothing more.
    Draining,
    /// Being ended.
    Stopping,
    /// Gone, as wished.
    Stopped,
    /// Gone, or never came up, against our wish.
    Failed,
}

impl InstanceState {
    /// All states.
    pub const ALL: [InstanceState; 6] = [
        InstanceState::Starting,
        InstanceState::Ready,
        InstanceState::Draining,
        InstanceState::Stopping,
        InstanceState::Stopped,
        InstanceState::Failed,
    ];

    /// Whether it is gone for good.
    pub const fn is_final(self) -> bool {
        match self {
            InstanceState::Stopped | InstanceState::Failed => true,
            InstanceState::Starting
            | InstanceState::Ready
            | InstanceState::Draining
            | InstanceState::Stopping => false,
        }
    }

    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            InstanceState::Starting => "starting",
            InstanceState::Ready => "ready",
            InstanceState::Draining => "draining",
            InstanceState::Stopping => "stopping",
            InstanceState::Stopped => "stopped",
            InstanceState::Failed => "failed",
        }
    }

    /// The state of that word.
    pub fn parse(word: &str) -> Option<InstanceState> {
        InstanceState::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

/// What happens to an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// It answers.
    BecameReady,
    /// The planner or an operator wants it gone once its work is done.
    DrainRequested,
    /// It is being ended (drained, or not waited for).
    StopRequested,
    /// It is gone.
    Exited,
    /// It could not be started within `start_timeout`.
    StartFailed,
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a {state:?} instance cannot take {event:?}")]
pub struct InvalidTransition {
    /// The state it was in.
    pub state: InstanceState,
    /// The event.
    pub event: Event,
}

/// Applies one event.
///
/// # Errors
/// [`InvalidTransition`] when the event cannot happen; a final state never changes.
pub fn apply(state: InstanceState, event: Event) -> Result<InstanceState, InvalidTransition> {
    use InstanceState::{Draining, Failed, Ready, Starting, Stopped, Stopping};
    match (state, event) {
        (Starting, Event::BecameReady) => Ok(Ready),
        (Starting, Event::StartFailed) => Ok(Failed),
        (Ready, Event::DrainRequested) => Ok(Draining),
        (Starting | Ready | Draining, Event::StopRequested) => Ok(Stopping),
        (Stopping, Event::Exited) => Ok(Stopped),
        (Starting | Ready | Draining, Event::Exited) => Ok(Failed),
        (Ready | Draining | Stopping | Stopped | Failed, Event::BecameReady | Event::StartFailed)
        | (Starting | Draining | Stopping | Stopped | Failed, Event::DrainRequested)
        | (Stopping | Stopped | Failed, Event::StopRequested)
        | (Stopped | Failed, Event::Exited) => Err(InvalidTransition { state, event }),
    }
}
