//! What a caller may wish for one job of a worker, and the bounds that follow from it.
//!
//! The options and their ranges are RunPod's documented ones (`protocols/async-endpoints.md` §2.4); they travel with the
//! job, so that whoever hands it to a worker knows when its time is over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Keep, Timestamp, endpoint::Limits};

/// The shortest `executionTimeout`, in milliseconds.
pub const MIN_EXECUTION_TIMEOUT_MS: u64 = 5_000;
/// The shortest `ttl`, in milliseconds.
pub const MIN_TTL_MS: u64 = 10_000;
/// The longest of both, in milliseconds: seven days.
pub const MAX_TIME_MS: u64 = 7 * 24 * 3600 * 1000;
/// The vendor's own `executionTimeout` where a job names none, enforced with `vendor_limits`.
pub const VENDOR_EXECUTION_TIMEOUT: Duration = Duration::from_secs(600);
/// The vendor's own `ttl` where a job names none, enforced with `vendor_limits`.
pub const VENDOR_TTL: Duration = Duration::from_secs(24 * 3600);

/// The wishes of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Wishes {
    /// How long a worker may hold it, in milliseconds; the endpoint's `execution_timeout` where it is not said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_timeout_ms: Option<u64>,
    /// Its whole life from the submit on, running time included, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// It starts no worker.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub low_priority: bool,
    /// Its caller waits for the result (`runsync`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sync: bool,
    /// How long its protocol keeps it after its end, in milliseconds, where the vendor's own limits count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_ms: Option<u64>,
}

/// A wish that cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy.{field} must be {min} to {max} milliseconds, not {got}", max = MAX_TIME_MS)]
pub struct OutOfRange {
    /// The key of the request.
    pub field: &'static str,
    /// The least that is allowed.
    pub min: u64,
    /// What was wished for.
    pub got: u64,
}

impl Wishes {
    /// Whether they can be granted.
    ///
    /// # Errors
    /// [`OutOfRange`] names the first that cannot.
    pub fn check(&self) -> Result<(), OutOfRange> {
        for (field, min, got) in [
            (
                "executionTimeout",
                MIN_EXECUTION_TIMEOUT_MS,
                self.execution_timeout_ms,
            ),
            ("ttl", MIN_TTL_MS, self.ttl_ms),
        ] {
            if let Some(got) = got.filter(|ms| !(min..=MAX_TIME_MS).contains(ms)) {
                return Err(OutOfRange { field, min, got });
            }
        }
        Ok(())
    }

    /// How long a worker may hold the job.
    pub fn execution_timeout(&self, limits: &Limits) -> Duration {
        let own = self.execution_timeout_ms.map(Duration::from_millis);
        own.unwrap_or(match limits.vendor_limits {
            true => VENDOR_EXECUTION_TIMEOUT.min(limits.execution_timeout),
            false => limits.execution_timeout,
        })
    }

    /// The whole life of the job, from its submit on; `None`: without a bound.
    pub fn ttl(&self, limits: &Limits) -> Option<Duration> {
        let own = self.ttl_ms.map(Duration::from_millis);
        own.or(limits.vendor_limits.then_some(VENDOR_TTL))
    }

    /// How long its data is kept, beside the endpoint's retention.
    pub fn keep(&self, limits: &Limits) -> Keep {
        Keep {
            life: self.ttl(limits),
            after_end: self.kept_ms.map(Duration::from_millis),
        }
    }

    /// How long it may wait in the queue.
    pub fn queue_ttl(&self, limits: &Limits) -> Option<Duration> {
        match (self.ttl(limits), limits.queue_ttl) {
            (Some(life), Some(waiting)) => Some(life.min(waiting)),
            (one, other) => one.or(other),
        }
    }

    /// When an attempt must be over that was handed out at `claimed`, of a job that was accepted at `submitted`.
    pub fn deadline(&self, submitted: Timestamp, claimed: Timestamp, limits: &Limits) -> Timestamp {
        let by_execution = claimed.plus(self.execution_timeout(limits));
        match self.ttl(limits) {
            Some(ttl) => by_execution.min(submitted.plus(ttl)),
            None => by_execution,
        }
    }

    /// Its place among others: a job of low priority runs after them and starts no worker.
    pub const fn priority(&self) -> i32 {
        if self.low_priority { -1 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_out_of_range_are_named() {
        let execution = |ms| Wishes {
            execution_timeout_ms: Some(ms),
            ..Wishes::default()
        };
        let ttl = |ms| Wishes {
            ttl_ms: Some(ms),
            ..Wishes::default()
        };
        assert_eq!(Wishes::default().check(), Ok(()));
        for good in [
            execution(5_000),
            execution(MAX_TIME_MS),
            ttl(10_000),
            ttl(MAX_TIME_MS),
        ] {
            assert_eq!(good.check(), Ok(()));
        }
        for bad in [execution(4_999), execution(MAX_TIME_MS + 1), ttl(9_999), ttl(0)] {
            assert!(bad.check().is_err(), "{bad:?}");
        }
        assert_eq!(
            ttl(5).check().unwrap_err().to_string(),
            "policy.ttl must be 10000 to 604800000 milliseconds, not 5"
        );
    }

    #[test]
    fn an_attempt_ends_with_its_own_time_or_with_the_jobs_life_whichever_is_sooner() {
        let limits = Limits::default();
        let at = |s: i64| Timestamp::from_millis(s * 1000);
        let wishes = Wishes {
            execution_timeout_ms: Some(60_000),
            ttl_ms: Some(100_000),
            ..Wishes::default()
        };
        assert_eq!(wishes.deadline(at(0), at(10), &limits), at(70));
        assert_eq!(wishes.deadline(at(0), at(50), &limits), at(100));
        assert_eq!(wishes.queue_ttl(&limits), Some(Duration::from_secs(100)));
        assert_eq!(Wishes::default().deadline(at(0), at(50), &limits), at(7250));
        assert_eq!(Wishes::default().queue_ttl(&limits), None);
    }

    #[test]
    fn the_vendors_defaults_count_only_where_they_are_asked_for() {
        let vendor = Limits {
            vendor_limits: true,
            ..Limits::default()
        };
        let none = Wishes::default();
        assert_eq!(none.execution_timeout(&vendor), VENDOR_EXECUTION_TIMEOUT);
        assert_eq!(none.queue_ttl(&vendor), Some(VENDOR_TTL));
        assert_eq!(none.keep(&vendor).life, Some(VENDOR_TTL));
        assert_eq!(none.keep(&Limits::default()), Keep::default());
        let own = Wishes {
            execution_timeout_ms: Some(3_600_000),
            ..Wishes::default()
        };
        assert_eq!(own.execution_timeout(&vendor), Duration::from_secs(3600));
    }
}
