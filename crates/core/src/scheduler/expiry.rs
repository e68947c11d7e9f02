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
    /// The clock was set back: all end this much earlier, else a dead instance would stay unnoticed for that long.
    Shorten(Duration),
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
        if really_passed <= tolerated && off <= tolerated {
            return LeaseCorrection::None;
        }
        // Either way every lease keeps the rest it had at the last tick.
        if wall >= last.wall {
            LeaseCorrection::Extend(wall.since(last.wall))
        } else {
            LeaseCorrection::Shorten(last.wall.since(wall))
        }
    }
}
