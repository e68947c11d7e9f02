//! Whether a job whose attempt ended is run again. `lost` counts, `released` does not, a failed workflow is final.

use crate::{AttemptOutcome, Failure, failure::FailureCode, job::Life};

/// How many times our own doings (restart, drain, start failure) may give a job back before it fails.
pub const MAX_RELEASED: u32 = 20;

/// How many attempts may run out of the device's memory: the one that shows it, and one on a fresh instance.
pub const MAX_OUT_OF_MEMORY: u32 = 2;

/// The bounds in force for a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Attempts that may be lost before the job fails (`limits.max_attempts`, at least 1).
    pub max_attempts: u32,
}

/// What becomes of the job.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// It succeeded.
    Succeed,
    /// It ended as its caller wished.
    Cancel,
    /// It failed for good.
    Fail(Failure),
    /// It waits for another slot.
    Requeue,
}

/// Decides from a life whose counters already include the attempt that just ended.
pub fn decide(life: &Life, outcome: AttemptOutcome, limits: Limits) -> Decision {
    match outcome {
        // A result that arrived before the cancel was seen is a result: the work is done and stored.
        AttemptOutcome::Done => Decision::Succeed,
        AttemptOutcome::Cancelled => Decision::Cancel,
        AttemptOutcome::Failed(_) | AttemptOutcome::Lost { .. } | AttemptOutcome::Released { .. }
            if life.cancel_requested =>
        {
            Decision::Cancel
        }
        // What the models of others left behind is gone with the instance; what is too large stays too large.
        AttemptOutcome::Failed(failure)
            if failure.code == FailureCode::OutOfMemory && life.out_of_memory < MAX_OUT_OF_MEMORY =>
        {
            Decision::Requeue
        }
        AttemptOutcome::Failed(failure) => Decision::Fail(failure),
        AttemptOutcome::Lost { reason } if life.lost_attempts >= limits.max_attempts.max(1) => {
            let message = format!(
                "every attempt was lost ({}); the last: {reason}",
                life.lost_attempts
            );
            Decision::Fail(Failure::new(FailureCode::InstanceLost, message))
        }
        AttemptOutcome::Released { reason } if life.released_attempts >= MAX_RELEASED => {
            let message = format!("given back {} times; the last: {reason}", life.released_attempts);
            Decision::Fail(Failure::new(FailureCode::StartFailed, message))
        }
        AttemptOutcome::Lost { .. } | AttemptOutcome::Released { .. } => Decision::Requeue,
    }
}

/// The failure of a job that waited too long.
pub fn queue_timeout() -> Failure {
    Failure::new(FailureCode::QueueTimeout, "waited longer than its queue_ttl")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn life(lost_attempts: u32, released_attempts: u32) -> Life {
        Life {
            lost_attempts,
            released_attempts,
            ..Life::queued()
        }
    }

    fn lost() -> AttemptOutcome {
        AttemptOutcome::Lost {
            reason: "no heartbeat".to_owned(),
        }
    }

    fn released() -> AttemptOutcome {
        AttemptOutcome::Released {
            reason: "restart".to_owned(),
        }
    }

    #[test]
    fn lost_counts_and_released_has_its_own_bound() {
        let limits = Limits { max_attempts: 2 };
        assert_eq!(decide(&life(1, 0), lost(), limits), Decision::Requeue);
        assert_eq!(decide(&life(1, 19), released(), limits), Decision::Requeue);
        assert!(
            matches!(decide(&life(2, 0), lost(), limits), Decision::Fail(f) if f.code == FailureCode::InstanceLost)
        );
        assert!(
            matches!(decide(&life(0, MAX_RELEASED), released(), limits), Decision::Fail(f) if f.code == FailureCode::StartFailed)
        );
        assert_eq!(
            decide(&life(1, MAX_RELEASED), lost(), limits),
            Decision::Requeue,
            "each bound is judged by its own kind of end"
        );
    }

    #[test]
    fn no_attempts_at_all_is_read_as_one() {
        assert!(matches!(
            decide(&life(1, 0), lost(), Limits { max_attempts: 0 }),
            Decision::Fail(_)
        ));
    }

    #[test]
    fn a_failed_workflow_is_final_at_once() {
        let failure = Failure::new(FailureCode::ExecutionError, "raised");
        let decision = decide(
            &life(0, 0),
            AttemptOutcome::Failed(failure.clone()),
            Limits { max_attempts: 9 },
        );
        assert_eq!(decision, Decision::Fail(failure));
    }
}
