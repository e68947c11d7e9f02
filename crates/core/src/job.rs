//! A job's life: `queued -> running -> succeeded | failed | cancelled | expired`, and back to `queued` on a retry.

use serde::{Deserialize, Serialize};

use crate::{AttemptOutcome, Failure, retry};

/// Where a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JobState {
    /// Accepted and durable; waits for a slot.
    Queued,
    /// An attempt holds it.
    Running,
    /// Done, outputs stored.
    Succeeded,
    /// Ended with a [`Failure`].
    Failed,
    /// Ended by a caller's wish.
    Cancelled,
    /// Waited longer than its time to live.
    Expired,
}

impl JobState {
    /// All states, in the order of a life.
    pub const ALL: [JobState; 6] = [
        JobState::Queued,
        JobState::Running,
        JobState::Succeeded,
        JobState::Failed,
        JobState::Cancelled,
        JobState::Expired,
    ];

    /// Whether nothing will happen to it any more (but an explicit retry).
    pub const fn is_final(self) -> bool {
        match self {
            JobState::Queued | JobState::Running => false,
            JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Expired => true,
        }
    }

    /// The stable word on the wire and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            JobState::Queued => "queued",
            JobState::Running => "running",
            JobState::Succeeded => "succeeded",
            JobState::Failed => "failed",
            JobState::Cancelled => "cancelled",
            JobState::Expired => "expired",
        }
    }

    /// The state of that word.
    pub fn parse(word: &str) -> Option<JobState> {
        JobState::ALL.into_iter().find(|s| s.as_str() == word)
    }
}

/// The part of a job that its life depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// Where it is.
    pub state: JobState,
    /// Attempts that ended `lost`; bounded by `max_attempts`.
    pub lost_attempts: u32,
    /// Attempts that ended `released`; bounded by [`retry::MAX_RELEASED`].
    pub released_attempts: u32,
    /// A caller asked for its end while it was running.
    pub cancel_requested: bool,
}

impl Life {
    /// A job that was just accepted.
    pub const fn queued() -> Self {
        Life {
            state: JobState::Queued,
            lost_attempts: 0,
            released_attempts: 0,
            cancel_requested: false,
        }
    }
}

/// What happens to a job.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A slot claimed it.
    Claimed,
    /// Its attempt ended.
    AttemptEnded(AttemptOutcome),
    /// A caller wants its end.
    CancelRequested,
    /// It waited longer than its time to live.
    TtlPassed,
    /// A caller explicitly wants it run again after a final state.
    RetryRequested,
}

/// What follows from an event, for the store to write in the same transaction.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// It entered a final state: write the result, the outbox row, the last event.
    Ended {
        /// Why, unless it succeeded or was cancelled.
        failure: Option<Failure>,
    },
    /// It is queued again.
    Requeued,
    /// The attempt that holds it must be told to stop.
    TellAttemptToStop,
}

/// An event that cannot happen in a state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a {state:?} job cannot take '{event}'")]
pub struct InvalidTransition {
    /// The state it was in.
    pub state: JobState,
    /// The event's name.
    pub event: &'static str,
}

/// Applies one event.
///
/// # Errors
/// [`InvalidTransition`] when the event cannot happen in this state; nothing changes then.
pub fn apply(
    life: &Life,
    event: Event,
    limits: retry::Limits,
) -> Result<(Life, Vec<Effect>), InvalidTransition> {
    use JobState::{Cancelled, Expired, Failed, Queued, Running, Succeeded};
    let refuse = |event| {
        Err(InvalidTransition {
            state: life.state,
            event,
        })
    };
    let to = |state| Life {
        state,
        ..life.clone()
    };
    let ended = |failure| vec![Effect::Ended { failure }];
    match (life.state, event) {
        (Queued, Event::Claimed) => Ok((to(Running), vec![])),
        (Running | Succeeded | Failed | Cancelled | Expired, Event::Claimed) => refuse("claimed"),

        (Running, Event::AttemptEnded(outcome)) => Ok(end_of_attempt(life, outcome, limits)),
        (Queued | Succeeded | Failed | Cancelled | Expired, Event::AttemptEnded(_)) => {
            refuse("attempt ended")
        }

        (Queued, Event::CancelRequested) => Ok((to(Cancelled), ended(None))),
        (Running, Event::CancelRequested) => Ok((
            Life {
                cancel_requested: true,
                ..life.clone()
            },
            vec![Effect::TellAttemptToStop],
        )),
        (Succeeded | Failed | Cancelled | Expired, Event::CancelRequested) => refuse("cancel requested"),

        (Queued, Event::TtlPassed) => Ok((to(Expired), ended(Some(retry::queue_timeout())))),
        (Running | Succeeded | Failed | Cancelled | Expired, Event::TtlPassed) => refuse("ttl passed"),

        (Succeeded | Failed | Cancelled | Expired, Event::RetryRequested) => {
            Ok((Life::queued(), vec![Effect::Requeued]))
        }
        (Queued | Running, Event::RetryRequested) => refuse("retry requested"),
    }
}

fn end_of_attempt(life: &Life, outcome: AttemptOutcome, limits: retry::Limits) -> (Life, Vec<Effect>) {
    let mut next = life.clone();
    match &outcome {
        AttemptOutcome::Lost { .. } => next.lost_attempts += 1,
        AttemptOutcome::Released { .. } => next.released_attempts += 1,
        AttemptOutcome::Done | AttemptOutcome::Failed(_) | AttemptOutcome::Cancelled => {}
    }
    let (state, effects) = match retry::decide(&next, outcome, limits) {
        retry::Decision::Succeed => (JobState::Succeeded, vec![Effect::Ended { failure: None }]),
        retry::Decision::Cancel => (JobState::Cancelled, vec![Effect::Ended { failure: None }]),
        retry::Decision::Fail(failure) => (
            JobState::Failed,
            vec![Effect::Ended {
                failure: Some(failure),
            }],
        ),
        retry::Decision::Requeue => (JobState::Queued, vec![Effect::Requeued]),
    };
    next.state = state;
    (next, effects)
}
