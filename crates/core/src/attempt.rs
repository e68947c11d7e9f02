//! One try of a job on one instance, under a lease with a fence.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Failure, InstanceId, JobId};

/// The fencing token of an attempt: grows for ever, one per claim. Every write under a lease carries it, and a
/// write with a stale one is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fence(pub i64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who writes: a job and the fence of the attempt that holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    /// The job.
    pub job: JobId,
    /// Its attempt's token.
    pub fence: Fence,
}

/// A write under a lease was refused: the attempt no longer owns the job. Its result is discarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale;

/// What an adopting server must know about a running attempt; written before the prompt is posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningOn {
    /// The instance.
    pub instance: InstanceId,
    /// The client id under which the instance's socket was opened.
    pub client_id: String,
    /// The prompt id on the instance; a retry uses a new one.
    pub prompt_id: String,
}

/// Where an attempt is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    /// Holds the job; inputs are being brought, the prompt may not be posted yet.
    Claimed,
    /// The prompt was (or is about to be) posted to the instance.
    Running,
    /// The instance is done; outputs wait for the blob store. The slot is free.
    Collecting,
    /// Ended well.
    Done,
    /// The workflow failed.
    Failed,
    /// The instance died or stalled.
    Lost,
    /// Given back by us: restart, drain, start failure.
    Released,
    /// Ended on request.
    Cancelled,
}

impl AttemptState {
    /// All states.
    pub const ALL: [AttemptState; 8] = [
        AttemptState::Claimed,
        AttemptState::Running,
        AttemptState::Collecting,
        AttemptState::Done,
        AttemptState::Failed,
        AttemptState::Lost,
        AttemptState::Released,
        AttemptState::Cancelled,
    ];

    /// Whether it ended.
    pub const fn is_final(self) -> bool {
        match self {
            AttemptState::Claimed | AttemptState::Running | AttemptState::Collecting => false,
            AttemptState::Done
            | AttemptState::Failed
            | AttemptState::Lost
            | AttemptState::Released
            | AttemptState::Cancelled => true,
        }
    }

    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            AttemptState::Claimed => "claimed",
            AttemptState::Running => "running",
            AttemptState::Collecting => "collecting",
            AttemptState::Done => "done",
            AttemptState::Failed => "failed",
            AttemptState::Lost => "lost",
            AttemptState::Released => "released",
            AttemptState::Cancelled => "cancelled",
        }
    }

    /// The state of that word.
    pub fn parse(word: &str) -> Option<AttemptState> {
        AttemptState::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptOutcome {
    /// The workflow succeeded and its outputs are stored.
    Done,
    /// The workflow's own fault: not retried.
    Failed(Failure),
    /// The instance died or stalled: counts towards `max_attempts`.
    Lost {
        /// The evidence, for the operator.
        reason: String,
    },
    /// Our own doing (restart, drain, start failure): does not count, but has a bound of its own.
    Released {
        /// Why.
        reason: String,
    },
    /// Ended because a caller asked.
    Cancelled,
}

impl AttemptOutcome {
    /// The final state this outcome leads to.
    pub const fn state(&self) -> AttemptState {
        match self {
            AttemptOutcome::Done => AttemptState::Done,
            AttemptOutcome::Failed(_) => AttemptState::Failed,
            AttemptOutcome::Lost { .. } => AttemptState::Lost,
            AttemptOutcome::Released { .. } => AttemptState::Released,
            AttemptOutcome::Cancelled => AttemptState::Cancelled,
        }
    }
}

/// What happens to an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The instance, client id, and prompt id were stored; the prompt is about to be posted.
    Started,
    /// The instance finished; outputs are being stored.
    CollectingBegan,
    /// It ended.
    Ended(AttemptOutcome),
}

impl Event {
    /// The event's name, for messages and the document of states.
    pub const fn name(&self) -> &'static str {
        match self {
            Event::Started => "started",
            Event::CollectingBegan => "collecting began",
            Event::Ended(outcome) => match outcome {
                AttemptOutcome::Done => "ended done",
                AttemptOutcome::Failed(_) => "ended failed",
                AttemptOutcome::Lost { .. } => "ended lost",
                AttemptOutcome::Released { .. } => "ended released",
                AttemptOutcome::Cancelled => "ended cancelled",
            },
        }
    }
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an attempt that is {} cannot take '{event}'", state.as_str())]
pub struct InvalidTransition {
    /// The state it was in.
    pub state: AttemptState,
    /// The event's name.
    pub event: &'static str,
}

/// Applies one event to an attempt's state.
///
/// # Errors
/// [`InvalidTransition`] when the event cannot happen; a final state never changes.
pub fn apply(state: AttemptState, event: &Event) -> Result<AttemptState, InvalidTransition> {
    use AttemptState::{Cancelled, Claimed, Collecting, Done, Failed, Lost, Released, Running};
    match (state, event) {
        // Starting again happens when a server adopts a running attempt and re-reads its instance.
        (Claimed | Running, Event::Started) => Ok(Running),
        // Beginning again happens when a server takes up a spool after a restart. From `claimed`: the prompt finished
        // while the server that had posted it was down.
        (Claimed | Running | Collecting, Event::CollectingBegan) => Ok(Collecting),
        // A worker's job has no phases of its own: it may end from `claimed`.
        (Claimed | Running | Collecting, Event::Ended(outcome)) => Ok(outcome.state()),
        (Collecting, Event::Started)
        | (
            Done | Failed | Lost | Released | Cancelled,
            Event::Started | Event::CollectingBegan | Event::Ended(_),
        ) => Err(InvalidTransition {
            state,
            event: event.name(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::failure::FailureCode;

    fn any_event() -> impl Strategy<Value = Event> {
        let reason = || "reason".to_owned();
        prop_oneof![
            Just(Event::Started),
            Just(Event::CollectingBegan),
            Just(Event::Ended(AttemptOutcome::Done)),
            Just(Event::Ended(AttemptOutcome::Failed(Failure::new(
                FailureCode::ExecutionError,
                "raised"
            )))),
            Just(Event::Ended(AttemptOutcome::Lost { reason: reason() })),
            Just(Event::Ended(AttemptOutcome::Released { reason: reason() })),
            Just(Event::Ended(AttemptOutcome::Cancelled)),
        ]
    }

    #[test]
    fn an_adopted_attempt_may_start_again_but_not_after_collecting() {
        assert_eq!(
            apply(AttemptState::Running, &Event::Started),
            Ok(AttemptState::Running)
        );
        let refused = apply(AttemptState::Collecting, &Event::Started).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "an attempt that is collecting cannot take 'started'"
        );
    }

    proptest! {
        #[test]
        fn a_final_state_never_changes(events in proptest::collection::vec(any_event(), 0..20)) {
            let mut state = AttemptState::Claimed;
            let mut ended = 0;
            for event in events {
                if let Ok(next) = apply(state, &event) {
                    prop_assert!(!state.is_final());
                    ended += u32::from(next.is_final());
                    state = next;
                }
            }
            prop_assert_eq!(ended, u32::from(state.is_final()), "it ends at most once");
        }
    }
}
