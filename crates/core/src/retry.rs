//! Whether a job whose attempt ended is run again. `lost` counts, `released` does not, a failed workflow is final.

use crate::{AttemptOutcome, Failure, failure::FailureCode, job::Life};

/// How many times our own doings (restart, drain, start failure) may give a job back before it fails.
pub const MAX_RELEASED: u32 = 20;

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
