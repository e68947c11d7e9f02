//! Fairness between tenants: start-time fair queueing over the claims of one endpoint.
//!
//! Each tenant has a virtual time that grows by what its jobs cost, divided by its weight; the lowest goes first. A
//! virtual clock follows the lowest of those that want service, and whoever is behind it is lifted to it: a tenant that
//! was idle for an hour gets its turn at once, but no credit for the hour.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::TenantId;

/// What one claim costs at weight 1. Large, so that dividing by a weight keeps its precision in integers.
pub const JOB_COST: u64 = 1_000_000;

/// Service received, in units of [`JOB_COST`] per job at weight 1. Never wraps: at a million jobs a second it lasts
/// six months of uninterrupted claims per unit of weight before it saturates, after which order alone decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct VirtualTime(pub u64);

/// One tenant's account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Service it has received.
    pub vtime: VirtualTime,
    /// How much more than weight 1 it may get; 0 counts as 1.
    pub weight: u32,
}

impl Default for Share {
    fn default() -> Self {
        Share {
            vtime: VirtualTime(0),
            weight: 1,
        }
    }
}

/// The accounts of one endpoint. The store keeps `clock` in the endpoint's row and a [`Share`] per (endpoint, tenant).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fairness {
    /// The lowest virtual time that any tenant wanting service had at the last claim. Only grows.
    pub clock: VirtualTime,
    /// Those who have ever claimed; a tenant that is missing has `Share::default()`.
    pub tenants: BTreeMap<TenantId, Share>,
}

impl Fairness {
    /// A tenant's virtual time for a comparison: its own, or the clock if it is behind that.
    pub fn effective(&self, tenant: &TenantId) -> VirtualTime {
        self.share(tenant).vtime.max(self.clock)
    }

    /// Books a claim: `active` are all tenants that had a candidate (the chosen one among them).
    pub fn claimed<'a>(
        &mut self,
        active: impl IntoIterator<Item = &'a TenantId>,
        chosen: &TenantId,
        cost: u64,
    ) {
        let lowest = active.into_iter().map(|tenant| self.effective(tenant)).min();
        self.clock = self.clock.max(lowest.unwrap_or(self.clock));
        let share = self.share(chosen);
        let vtime = charge(share.vtime.max(self.clock), cost, share.weight);
        self.tenants.insert(chosen.clone(), Share { vtime, ..share });
    }

    fn share(&self, tenant: &TenantId) -> Share {
        self.tenants.get(tenant).copied().unwrap_or_default()
    }
}

/// A tenant's virtual time after work of this cost. Always later than `vtime` (until it saturates), also for a cost that
/// the weight would round to nothing: work is never free.
pub fn charge(vtime: VirtualTime, cost: u64, weight: u32) -> VirtualTime {
    let step = (cost / u64::from(weight.max(1))).max(1);
    VirtualTime(vtime.0.saturating_add(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants() -> [TenantId; 2] {
        ["a", "b"].map(|name| name.parse().unwrap())
    }

    /// Who of two that always have work gets the next `n` claims.
    fn serve(fairness: &mut Fairness, n: usize) -> [usize; 2] {
        let both = tenants();
        let mut got = [0, 0];
        for _ in 0..n {
            let next = usize::from(fairness.effective(&both[1]) < fairness.effective(&both[0]));
            fairness.claimed(&both, &both[next], JOB_COST);
            got[next] += 1;
        }
        got
    }

    #[test]
    fn equal_weights_share_equally() {
        assert_eq!(serve(&mut Fairness::default(), 100), [50, 50]);
    }

    #[test]
    fn a_weight_is_a_proportion() {
        let mut fairness = Fairness::default();
        let [a, _] = tenants();
        let share = Share {
            weight: 3,
            ..Share::default()
        };
        fairness.tenants.insert(a, share);
        assert_eq!(serve(&mut fairness, 100), [75, 25]);
    }

    #[test]
    fn idling_gives_no_credit_and_no_debt() {
        let mut fairness = Fairness::default();
        let [a, b] = tenants();
        for _ in 0..1000 {
            fairness.claimed([&a], &a, JOB_COST);
        }
        let [to_a, to_b] = serve(&mut fairness, 10);
        assert!(to_b <= 6, "b was idle and must not get the next 1000 claims");
        assert!(to_a >= 4, "a worked alone and must not be punished for it");
        assert!(fairness.effective(&b) >= fairness.clock);
    }

    #[test]
    fn another_priority_class_does_not_lift_those_that_wait() {
        let mut fairness = Fairness::default();
        let [a, b] = tenants();
        let urgent: TenantId = "urgent".parse().unwrap();
        fairness.claimed([&a, &b, &urgent], &a, JOB_COST);
        for _ in 0..50 {
            fairness.claimed([&a, &b, &urgent], &urgent, JOB_COST);
        }
        assert!(
            fairness.effective(&b) < fairness.effective(&a),
            "b's turn is still next"
        );
    }

    #[test]
    fn work_is_never_free_and_never_wraps() {
        let t = VirtualTime(5);
        assert!(charge(t, 0, 1) > t);
        assert!(charge(t, 1, u32::MAX) > t);
        assert_eq!(charge(t, 10, 0), VirtualTime(15));
        assert_eq!(
            charge(VirtualTime(u64::MAX - 1), JOB_COST, 1),
            VirtualTime(u64::MAX)
        );
    }
}
