//! A job's life: `queued -> running -> succeeded | failed | cancelled | expired`, and back to `queued` on a retry.

use serde::{Deserialize, Serialize};

use crate::{AttemptOutcome, Failure, failure::FailureCode, retry};

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
    /// Attempts that failed because the device was out of memory; bounded by [`retry::MAX_OUT_OF_MEMORY`].
    pub out_of_memory: u32,
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
            out_of_memory: 0,
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

impl Event {
    /// The event's name, for messages and the document of states.
    pub const fn name(&self) -> &'static str {
        match self {
            Event::Claimed => "claimed",
            Event::AttemptEnded(_) => "attempt ended",
            Event::CancelRequested => "cancel requested",
            Event::TtlPassed => "ttl passed",
            Event::RetryRequested => "retry requested",
        }
    }
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
#[error("a {} job cannot take '{event}'", state.as_str())]
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
    let to = |state| Life {
        state,
        ..life.clone()
    };
    let ended = |failure| vec![Effect::Ended { failure }];
    match (life.state, event) {
        (Queued, Event::Claimed) => Ok((to(Running), vec![])),
        (Running, Event::AttemptEnded(outcome)) => Ok(end_of_attempt(life, outcome, limits)),

        (Queued, Event::CancelRequested) => Ok((to(Cancelled), ended(None))),
        // Asking twice tells the attempt twice: the first word may have been lost with a connection.
        (Running, Event::CancelRequested) => Ok((
            Life {
                cancel_requested: true,
                ..life.clone()
            },
            vec![Effect::TellAttemptToStop],
        )),

        (Queued, Event::TtlPassed) => Ok((to(Expired), ended(Some(retry::queue_timeout())))),

        (Succeeded | Failed | Cancelled | Expired, Event::RetryRequested) => {
            Ok((Life::queued(), vec![Effect::Requeued]))
        }

        (state @ Queued, event @ (Event::AttemptEnded(_) | Event::RetryRequested))
        | (state @ Running, event @ (Event::Claimed | Event::TtlPassed | Event::RetryRequested))
        | (
            state @ (Succeeded | Failed | Cancelled | Expired),
            event @ (Event::Claimed | Event::AttemptEnded(_) | Event::CancelRequested | Event::TtlPassed),
        ) => Err(InvalidTransition {
            state,
            event: event.name(),
        }),
    }
}

fn end_of_attempt(life: &Life, outcome: AttemptOutcome, limits: retry::Limits) -> (Life, Vec<Effect>) {
    let mut next = life.clone();
    match &outcome {
        AttemptOutcome::Lost { .. } => next.lost_attempts = next.lost_attempts.saturating_add(1),
        AttemptOutcome::Released { .. } => next.released_attempts = next.released_attempts.saturating_add(1),
        AttemptOutcome::Failed(failure) if failure.code == FailureCode::OutOfMemory => {
            next.out_of_memory = next.out_of_memory.saturating_add(1);
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: retry::Limits = retry::Limits { max_attempts: 2 };

    fn lost() -> Event {
        Event::AttemptEnded(AttemptOutcome::Lost {
            reason: "it died".to_owned(),
        })
    }

    fn after(events: impl IntoIterator<Item = Event>) -> (Life, Vec<Effect>) {
        let start = (Life::queued(), vec![]);
        events.into_iter().fold(start, |(life, _), event| {
            apply(&life, event, LIMITS).expect("the test's events are possible")
        })
    }

    #[test]
    fn a_lost_attempt_is_tried_again_until_the_bound() {
        let (life, effects) = after([Event::Claimed, lost()]);
        assert_eq!((life.state, life.lost_attempts), (JobState::Queued, 1));
        assert_eq!(effects, [Effect::Requeued]);

        let (life, effects) = after([Event::Claimed, lost(), Event::Claimed, lost()]);
        assert_eq!(life.state, JobState::Failed);
        let [
            Effect::Ended {
                failure: Some(failure),
            },
        ] = &effects[..]
        else {
            panic!("{effects:?}")
        };
        assert_eq!(failure.code, FailureCode::InstanceLost);
    }

    #[test]
    fn a_cancelled_job_does_not_come_back_when_its_attempt_is_lost() {
        let (life, effects) = after([Event::Claimed, Event::CancelRequested, lost()]);
        assert_eq!(life.state, JobState::Cancelled);
        assert_eq!(effects, [Effect::Ended { failure: None }]);
    }

    #[test]
    fn a_result_wins_over_a_cancel_that_came_too_late() {
        let done = Event::AttemptEnded(AttemptOutcome::Done);
        let (life, _) = after([Event::Claimed, Event::CancelRequested, done]);
        assert_eq!(life.state, JobState::Succeeded);
    }

    #[test]
    fn an_explicit_retry_begins_a_new_life() {
        let (life, effects) = after([
            Event::Claimed,
            lost(),
            Event::Claimed,
            lost(),
            Event::RetryRequested,
        ]);
        assert_eq!(life, Life::queued());
        assert_eq!(effects, [Effect::Requeued]);
    }

    #[test]
    fn a_job_that_ran_out_of_memory_is_run_once_more_on_a_fresh_instance() {
        let failure = Failure::new(FailureCode::OutOfMemory, "node 3 raised");
        let ended = || Event::AttemptEnded(AttemptOutcome::Failed(failure.clone()));
        let (life, effects) = after([Event::Claimed, ended()]);
        assert_eq!((life.state, life.out_of_memory), (JobState::Queued, 1));
        assert_eq!(effects, [Effect::Requeued]);
        let (life, effects) = after([Event::Claimed, ended(), Event::Claimed, ended()]);
        assert_eq!(life.state, JobState::Failed);
        let failure = Some(failure.clone());
        assert_eq!(effects, [Effect::Ended { failure }]);
        let (life, _) = after([Event::Claimed, Event::CancelRequested, ended()]);
        assert_eq!(life.state, JobState::Cancelled);
    }

    fn any_event() -> impl Strategy<Value = Event> {
        let reason = || "reason".to_owned();
        prop_oneof![
            4 => Just(Event::Claimed),
            1 => Just(Event::AttemptEnded(AttemptOutcome::Done)),
            1 => Just(Event::AttemptEnded(AttemptOutcome::Failed(retry::queue_timeout()))),
            1 => Just(Event::AttemptEnded(AttemptOutcome::Failed(Failure::new(FailureCode::OutOfMemory, "full")))),
            3 => Just(Event::AttemptEnded(AttemptOutcome::Lost { reason: reason() })),
            3 => Just(Event::AttemptEnded(AttemptOutcome::Released { reason: reason() })),
            1 => Just(Event::AttemptEnded(AttemptOutcome::Cancelled)),
            1 => Just(Event::CancelRequested),
            1 => Just(Event::TtlPassed),
            1 => Just(Event::RetryRequested),
        ]
    }

    proptest! {
        #[test]
        fn a_final_state_changes_only_by_an_explicit_retry(
            events in proptest::collection::vec(any_event(), 0..80),
            max_attempts in 0u32..4,
        ) {
            let limits = retry::Limits { max_attempts };
            let mut life = Life::queued();
            for event in events {
                let is_retry = event == Event::RetryRequested;
                match apply(&life, event, limits) {
                    Ok((next, effects)) => {
                        prop_assert!(!life.state.is_final() || is_retry);
                        let ends = effects.iter().any(|e| matches!(e, Effect::Ended { .. }));
                        prop_assert_eq!(ends, next.state.is_final(), "every end is announced, once");
                        prop_assert!(next.lost_attempts <= limits.max_attempts.max(1));
                        prop_assert!(next.released_attempts <= retry::MAX_RELEASED);
                        prop_assert!(next.out_of_memory <= retry::MAX_OUT_OF_MEMORY);
                        life = next;
                    }
                    Err(refused) => prop_assert_eq!(refused.state, life.state),
                }
            }
        }

        #[test]
        fn a_job_that_keeps_being_tried_ends(released: bool, max_attempts in 0u32..10) {
            let mut life = Life::queued();
            let mut tries = 0;
            while !life.state.is_final() {
                tries += 1;
                prop_assert!(tries <= max_attempts.max(1) + retry::MAX_RELEASED);
                let reason = "reason".to_owned();
                let outcome = if released {
                    AttemptOutcome::Released { reason }
                } else {
                    AttemptOutcome::Lost { reason }
                };
                for event in [Event::Claimed, Event::AttemptEnded(outcome)] {
                    life = apply(&life, event, retry::Limits { max_attempts }).unwrap().0;
                }
            }
        }
    }
}
