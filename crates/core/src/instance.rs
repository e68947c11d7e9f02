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

/// How far a start is, in the order in which it goes. Stored and shown by these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartStep {
    /// Its process (or container) runs.
    Spawned,
    /// Its port takes connections.
    Listening,
    /// It answers requests, which a ComfyUI does only once its nodes are imported.
    NodesLoaded,
    /// It ran the endpoint's `warmup`, where there is one.
    WarmedUp,
    /// Its slots may claim.
    Ready,
}

impl StartStep {
    /// All steps.
    pub const ALL: [StartStep; 5] = [
        StartStep::Spawned,
        StartStep::Listening,
        StartStep::NodesLoaded,
        StartStep::WarmedUp,
        StartStep::Ready,
    ];

    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            StartStep::Spawned => "spawned",
            StartStep::Listening => "listening",
            StartStep::NodesLoaded => "nodes_loaded",
            StartStep::WarmedUp => "warmed_up",
            StartStep::Ready => "ready",
        }
    }

    /// The step of that word.
    pub fn parse(word: &str) -> Option<StartStep> {
        StartStep::ALL.into_iter().find(|s| s.as_str() == word)
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

impl Event {
    /// All events.
    pub const ALL: [Event; 5] = [
        Event::BecameReady,
        Event::DrainRequested,
        Event::StopRequested,
        Event::Exited,
        Event::StartFailed,
    ];

    /// The event's name, for messages and the document of states.
    pub const fn name(self) -> &'static str {
        match self {
            Event::BecameReady => "became ready",
            Event::DrainRequested => "drain requested",
            Event::StopRequested => "stop requested",
            Event::Exited => "exited",
            Event::StartFailed => "start failed",
        }
    }
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an instance that is {} cannot take '{}'", state.as_str(), event.name())]
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_an_exit_that_was_asked_for_is_no_failure() {
        assert_eq!(
            apply(InstanceState::Stopping, Event::Exited),
            Ok(InstanceState::Stopped)
        );
        for state in [
            InstanceState::Starting,
            InstanceState::Ready,
            InstanceState::Draining,
        ] {
            assert_eq!(apply(state, Event::Exited), Ok(InstanceState::Failed));
        }
    }

    #[test]
    fn every_live_state_can_end() {
        for state in InstanceState::ALL.into_iter().filter(|s| !s.is_final()) {
            assert!(apply(state, Event::Exited).unwrap().is_final());
        }
    }

    proptest! {
        #[test]
        fn a_final_state_never_changes_and_nothing_goes_back(picks in proptest::collection::vec(0usize..5, 0..20)) {
            let mut state = InstanceState::Starting;
            for event in picks.into_iter().map(|i| Event::ALL[i]) {
                if let Ok(next) = apply(state, event) {
                    prop_assert!(!state.is_final());
                    prop_assert!(next > state, "the order of the states is the order of a life");
                    state = next;
                }
            }
        }
    }
}
