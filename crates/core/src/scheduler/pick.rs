//! Which job a free slot takes: one rule for local runners, agents and pull workers.
//!
//! The order is priority, then the tenant that has had the least, then loaded models, then age. Loaded models may let a
//! job overtake older ones, but no job is overtaken that way more than [`MAX_SKIPS`] times.

use std::{collections::BTreeSet, fmt};

use serde::{Deserialize, Serialize};

use super::fairness::Fairness;
use crate::{InstanceId, JobId, TenantId};

/// How many candidates the store hands in per tenant and priority (the oldest ones).
pub const CANDIDATES_PER_LANE: usize = 32;

/// How many times a job may be overtaken because another one's models were loaded. Loading a checkpoint takes about
/// as long as a short job, so a few skips win most of what affinity can win, and the oldest job still waits at most
/// this many jobs longer.
pub const MAX_SKIPS: u32 = 4;

/// A queued job, as much of it as the choice depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Which job.
    pub job: JobId,
    /// Whose.
    pub tenant: TenantId,
    /// Higher goes first.
    pub priority: i32,
    /// Its enqueue number; lower is older.
    pub order: i64,
    /// How many times it was overtaken already (see [`Choice::overtaken`]).
    pub skipped: u32,
    /// Models its graph loads.
    pub models: Vec<String>,
    /// An earlier attempt was lost on this very instance: taken here only when its turn cannot be put off any more.
    pub avoid: bool,
}

/// The slot that asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotView {
    /// The instance it belongs to; a pull worker that has not registered has none.
    pub instance: Option<InstanceId>,
    /// Models that instance has in memory.
    pub loaded: BTreeSet<String>,
}

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Position in the candidates.
    pub index: usize,
    /// Why this one; stored with the attempt.
    pub reason: PickReason,
    /// Positions of those it overtook; the store adds one to their `skipped` in the same transaction.
    pub overtaken: Vec<usize>,
}

/// The criterion that decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum PickReason {
    /// Nothing else was waiting.
    OnlyCandidate,
    /// All others had a lower priority.
    Priority {
        /// The winning priority.
        priority: i32,
    },
    /// Its tenant had had the least service.
    TenantTurn,
    /// Its models were in memory already.
    ModelsLoaded {
        /// How many older jobs it went ahead of.
        overtook: u32,
    },
    /// Older jobs were put off because they were lost on this instance before.
    OthersAvoidInstance {
        /// How many.
        overtook: u32,
    },
    /// It had been overtaken as often as is allowed.
    SkipBound,
    /// It was the oldest.
    Order,
}

impl fmt::Display for PickReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PickReason::OnlyCandidate => f.write_str("the only job waiting"),
            PickReason::Priority { priority } => write!(f, "highest priority ({priority})"),
            PickReason::TenantTurn => f.write_str("its tenant's turn"),
            PickReason::ModelsLoaded { overtook: 0 } => f.write_str("models loaded"),
            PickReason::ModelsLoaded { overtook } => {
                write!(f, "models loaded (ahead of {overtook} older)")
            }
            PickReason::OthersAvoidInstance { overtook } => {
                write!(
                    f,
                    "{overtook} older lost an attempt on this instance and wait for another"
                )
            }
            PickReason::SkipBound => write!(f, "overtaken {MAX_SKIPS} times, so first now"),
            PickReason::Order => f.write_str("the oldest waiting"),
        }
    }
}

/// Chooses among the candidates; `None` only when there are none.
///
/// The order in which candidates are handed in does not matter, as long as their `order` numbers differ.
pub fn pick(candidates: &[Candidate], slot: &SlotView, fairness: &Fairness) -> Option<Choice> {
    let top = candidates.iter().map(|c| c.priority).max()?;
    let by_priority: Vec<usize> = (0..candidates.len())
        .filter(|&i| candidates[i].priority == top)
        .collect();
    let lowest = by_priority
        .iter()
        .map(|&i| fairness.effective(&candidates[i].tenant))
        .min()?;
    let mut turn: Vec<usize> = by_priority
        .iter()
        .copied()
        .filter(|&i| fairness.effective(&candidates[i].tenant) == lowest)
        .collect();
    turn.sort_by_key(|&i| (candidates[i].order, candidates[i].job));

    // Nobody goes ahead of a job that was overtaken as often as is allowed.
    let reach = turn
        .iter()
        .position(|&i| candidates[i].skipped >= MAX_SKIPS)
        .map_or(turn.len(), |saturated| saturated + 1);
    let fit = |place: usize| Fit::of(&candidates[turn[place]], slot);
    let place = (0..reach).min_by_key(|&place| (fit(place), place))?;
    let unbounded = (0..turn.len()).min_by_key(|&place| (fit(place), place))?;

    let overtook = u32::try_from(place).unwrap_or(u32::MAX);
    let reason = if candidates.len() == 1 {
        PickReason::OnlyCandidate
    } else if by_priority.len() == 1 {
        PickReason::Priority { priority: top }
    } else if place != unbounded {
        PickReason::SkipBound
    } else if place > 0 && fit(place) == Fit::Loaded {
        PickReason::ModelsLoaded { overtook }
    } else if place > 0 {
        PickReason::OthersAvoidInstance { overtook }
    } else if turn.len() < by_priority.len() {
        PickReason::TenantTurn
    } else if fit(place) == Fit::Loaded {
        PickReason::ModelsLoaded { overtook: 0 }
    } else {
        PickReason::Order
    };
    Some(Choice {
        index: turn[place],
        reason,
        overtaken: turn[..place].to_vec(),
    })
}

/// How well a candidate fits the slot; best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Loaded,
    Plain,
    Avoids,
}

impl Fit {
    fn of(candidate: &Candidate, slot: &SlotView) -> Fit {
        if candidate.avoid {
            Fit::Avoids
        } else if !candidate.models.is_empty() && candidate.models.iter().all(|m| slot.loaded.contains(m)) {
            Fit::Loaded
        } else {
            Fit::Plain
        }
    }
}
