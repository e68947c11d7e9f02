//! Time that runs out: leases and waiting jobs, and the rule that a gap in *our* time is nobody's fault.

use std::time::Duration;

use super::{
    decision::{Decision, Signal, Verdict},
    plan::{Action, Draft, Expiring},
};
use crate::Timestamp;

/// Asks the store to expire what is due, and to be woken for what will be.
pub(super) fn expire(draft: &mut Draft) {
    let now = draft.now;
    let mut due = Vec::new();
    let mut later = Vec::new();
    for (name, counters) in &draft.counters.endpoints {
        for (what, at) in [
            (Expiring::Leases, counters.next_lease_expiry),
            (Expiring::QueuedJobs, counters.next_queue_ttl),
        ] {
            match at {
                Some(at) if at <= now => due.push((name.clone(), what, at)),
                Some(at) => later.push(at),
                None => {}
            }
        }
    }
    for (endpoint, what, at) in due {
        let reason = Decision {
            endpoint: endpoint.clone(),
            instance: None,
            signal: Signal::OverdueMs,
            value: u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX),
            threshold: 0,
            verdict: Verdict::Expire,
        };
        let action = Action::Expire {
            endpoint,
            what,
            due: at,
        };
        draft.act(action, reason);
    }
    for at in later {
        draft.wake_at(at);
    }
}

/// Watches the clocks between ticks. A server that slept, was stopped, or whose wall clock was set could not renew
/// anything meanwhile; without this, its first tick would declare every running attempt lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClockGuard {
    lease: Duration,
    last: Option<Reading>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reading {
    wall: Timestamp,
    monotonic: Duration,
}

/// What must happen to all leases before anything expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseCorrection {
    /// Nothing.
    None,
    /// We were away, or the clock jumped forward: all end this much later.
    Extend(Duration),
    /// The clock was set back: none may end later than this from now, else a dead instance would stay unnoticed until
    /// the clock has caught up. A renewal does the same for its own lease.
    Cap(Duration),
}

impl ClockGuard {
    /// A guard for leases of this length. Ticks must come more often than half of it.
    pub const fn new(lease: Duration) -> Self {
        ClockGuard { lease, last: None }
    }

    /// Reports a tick; both clocks read at the same moment. The first tick corrects nothing: after a restart leases
    /// are taken up by adoption, not by this.
    pub fn tick(&mut self, wall: Timestamp, monotonic: Duration) -> LeaseCorrection {
        let Some(last) = self.last.replace(Reading { wall, monotonic }) else {
            return LeaseCorrection::None;
        };
        let tolerated = self.lease / 2;
        let really_passed = monotonic.saturating_sub(last.monotonic);
        let should_be = last.wall.plus(really_passed);
        let off = should_be.since(wall).max(wall.since(should_be));
        // A stopped process sees both clocks go on; a suspended machine, or a clock that was set, only one of them.
        if really_passed.max(off).max(wall.since(last.wall)) <= tolerated {
            return LeaseCorrection::None;
        }
        // Forward, every lease keeps the rest it had at the last tick. Back, the moment of the change is not known, and
        // a lease that was taken after it is right already: so all get a whole one at most.
        if wall >= last.wall {
            LeaseCorrection::Extend(wall.since(last.wall))
        } else {
            LeaseCorrection::Cap(self.lease)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(30);

    /// The correction of the last of these (wall, monotonic) readings, in seconds.
    fn last_of(readings: &[(i64, u64)]) -> LeaseCorrection {
        let mut guard = ClockGuard::new(LEASE);
        let mut last = LeaseCorrection::None;
        for &(wall, monotonic) in readings {
            last = guard.tick(
                Timestamp::from_millis(wall * 1000),
                Duration::from_secs(monotonic),
            );
        }
        last
    }

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn ordinary_ticks_correct_nothing() {
        assert_eq!(last_of(&[(1000, 5)]), LeaseCorrection::None);
        assert_eq!(
            last_of(&[(1000, 5), (1001, 6), (1016, 21)]),
            LeaseCorrection::None
        );
        assert_eq!(
            last_of(&[(1000, 5), (1003, 6)]),
            LeaseCorrection::None,
            "clocks drift"
        );
    }

    #[test]
    fn a_stopped_process_a_suspended_machine_and_a_set_clock_extend_leases() {
        assert_eq!(
            last_of(&[(1000, 5), (1100, 105)]),
            LeaseCorrection::Extend(seconds(100))
        );
        assert_eq!(
            last_of(&[(1000, 5), (1100, 6)]),
            LeaseCorrection::Extend(seconds(100))
        );
        assert_eq!(last_of(&[(1000, 5), (1100, 6), (1101, 7)]), LeaseCorrection::None);
    }

    #[test]
    fn a_clock_set_back_caps_them() {
        assert_eq!(last_of(&[(5000, 5), (1401, 6)]), LeaseCorrection::Cap(LEASE));
        assert_eq!(
            last_of(&[(5000, 5), (4990, 6)]),
            LeaseCorrection::None,
            "less than half a lease is tolerated"
        );
    }

    proptest! {
        /// What a lease has left never falls by more than half its length between two ticks, whatever the clocks do.
        #[test]
        fn no_lease_runs_out_in_a_gap(steps in proptest::collection::vec((-100_000i64..100_000, 0u64..100_000), 1..20)) {
            let mut guard = ClockGuard::new(LEASE);
            let (mut wall, mut monotonic) = (Timestamp::from_millis(10_000_000_000), Duration::ZERO);
            guard.tick(wall, monotonic);
            let mut expires = wall.plus(LEASE);
            for (wall_ms, mono_ms) in steps {
                let left = expires.since(wall);
                let next = Timestamp::from_millis(wall.as_millis() + wall_ms);
                monotonic += Duration::from_millis(mono_ms);
                expires = match guard.tick(next, monotonic) {
                    LeaseCorrection::None => expires,
                    LeaseCorrection::Extend(by) => expires.plus(by),
                    LeaseCorrection::Cap(rest) => expires.min(next.plus(rest)),
                };
                wall = next;
                prop_assert!(expires.since(wall) + LEASE / 2 >= left, "lost {:?} at once", left);
                prop_assert!(expires.since(wall) <= left + LEASE / 2);
                expires = wall.plus(LEASE); // renewed
            }
        }
    }
}
