//! Which job a free slot takes: one rule for local runners, agents and pull workers.
//!
//! The order is priority, then the tenant that has had the least, then loaded models, then age. Loaded models may let a
//! job overtake older ones, but no job is overtaken that way more than [`MAX_SKIPS`] times.

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{
    fairness::Fairness,
    needs::{Needs, Offers},
};
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
    /// What its graph needs of a box; shared by all jobs that need the same.
    pub needs: Arc<Needs>,
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
    /// What its box offers; `None`: all boxes of the endpoint are equal, and it takes any job.
    pub offers: Option<Arc<Offers>>,
}

impl SlotView {
    /// Whether a job can run here at all.
    pub fn takes(&self, needs: &Needs) -> bool {
        self.offers.as_ref().is_none_or(|offers| offers.meets(needs))
    }
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
    /// Nothing else was waiting that can run here.
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

/// Chooses among the candidates that can run here; `None` only when there are none.
///
/// A job that another box must run stands in nobody's way here: it is not overtaken, it does not count. The order in which candidates are handed in does not matter, as long as their `order` numbers differ.
pub fn pick(candidates: &[Candidate], slot: &SlotView, fairness: &Fairness) -> Option<Choice> {
    let possible: Vec<usize> = (0..candidates.len())
        .filter(|&i| slot.takes(&candidates[i].needs))
        .collect();
    let top = possible.iter().map(|&i| candidates[i].priority).max()?;
    let by_priority: Vec<usize> = possible
        .iter()
        .copied()
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
    let reason = if possible.len() == 1 {
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::scheduler::fairness::JOB_COST;

    fn candidate(order: i64, tenant: &str) -> Candidate {
        Candidate {
            job: JobId::from_uuid(uuid::Uuid::from_u128(order as u128)),
            tenant: tenant.parse().unwrap(),
            priority: 0,
            order,
            skipped: 0,
            models: vec![],
            needs: Arc::default(),
            avoid: false,
        }
    }

    fn with_models(order: i64, models: &[&str]) -> Candidate {
        Candidate {
            models: models.iter().map(|m| (*m).to_owned()).collect(),
            ..candidate(order, "a")
        }
    }

    fn slot(loaded: &[&str]) -> SlotView {
        SlotView {
            instance: None,
            loaded: loaded.iter().map(|m| (*m).to_owned()).collect(),
            offers: None,
        }
    }

    /// A box with these node classes.
    fn on_box(classes: &[&str]) -> SlotView {
        let mut offers = Offers::default();
        classes.iter().for_each(|class| offers.add_class(class));
        SlotView {
            offers: Some(Arc::new(offers)),
            ..SlotView::default()
        }
    }

    fn needing(candidate: Candidate, classes: &[&str]) -> Candidate {
        let need = |class: &&str| crate::scheduler::Need::Class((*class).to_owned());
        Candidate {
            needs: Arc::new(Needs(classes.iter().map(need).collect())),
            ..candidate
        }
    }

    fn choose(candidates: &[Candidate], slot: &SlotView) -> (usize, PickReason) {
        let choice = pick(candidates, slot, &Fairness::default()).unwrap();
        (choice.index, choice.reason)
    }

    #[test]
    fn nothing_waiting_is_no_choice() {
        assert_eq!(pick(&[], &slot(&[]), &Fairness::default()), None);
    }

    #[test]
    fn priority_beats_fairness_beats_models_beats_age() {
        let mut fairness = Fairness::default();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        fairness.claimed([&a, &b], &a, JOB_COST);
        let choose = |candidates: &[Candidate]| {
            let choice = pick(candidates, &slot(&["sdxl"]), &fairness).unwrap();
            (choice.index, choice.reason)
        };

        let mut all = vec![with_models(1, &[]), candidate(2, "b"), candidate(3, "b")];
        assert_eq!(choose(&all), (1, PickReason::TenantTurn));
        all[2].models = vec!["sdxl".to_owned()];
        assert_eq!(choose(&all), (2, PickReason::ModelsLoaded { overtook: 1 }));
        all.push(Candidate {
            priority: 1,
            ..candidate(9, "a")
        });
        assert_eq!(choose(&all), (3, PickReason::Priority { priority: 1 }));
    }

    #[test]
    fn the_oldest_goes_first_however_they_are_handed_in() {
        let all = [candidate(7, "a"), candidate(3, "a"), candidate(5, "a")];
        assert_eq!(choose(&all, &slot(&[])), (1, PickReason::Order));
        assert_eq!(choose(&all[..1], &slot(&[])), (0, PickReason::OnlyCandidate));
    }

    #[test]
    fn all_models_must_be_loaded_for_a_fit() {
        let all = [with_models(1, &[]), with_models(2, &["sdxl", "vae"])];
        assert_eq!(choose(&all, &slot(&["sdxl"])), (0, PickReason::Order));
        assert_eq!(
            choose(&all, &slot(&["sdxl", "vae"])),
            (1, PickReason::ModelsLoaded { overtook: 1 })
        );
    }

    #[test]
    fn a_job_lost_on_this_instance_lets_others_go_first_but_not_for_ever() {
        let mut all = [candidate(1, "a"), candidate(2, "a")];
        all[0].avoid = true;
        assert_eq!(
            choose(&all, &slot(&[])),
            (1, PickReason::OthersAvoidInstance { overtook: 1 })
        );
        assert_eq!(choose(&all[..1], &slot(&[])), (0, PickReason::OnlyCandidate));
        all[0].skipped = MAX_SKIPS;
        assert_eq!(choose(&all, &slot(&[])), (0, PickReason::SkipBound));
    }

    #[test]
    fn the_choice_names_whom_it_overtook() {
        let all = [
            with_models(4, &["x"]),
            with_models(1, &[]),
            candidate(0, "other"),
            with_models(2, &[]),
        ];
        let mut fairness = Fairness::default();
        let other = "other".parse().unwrap();
        fairness.claimed([&other], &other, JOB_COST);
        let choice = pick(&all, &slot(&["x"]), &fairness).unwrap();
        assert_eq!((choice.index, choice.overtaken), (0, vec![1, 3]));
    }

    #[test]
    fn a_job_that_another_box_must_run_is_neither_taken_nor_overtaken() {
        let urgent = Candidate {
            priority: 5,
            ..needing(candidate(1, "a"), &["Flux"])
        };
        let all = [urgent, needing(candidate(2, "a"), &["Sdxl"]), candidate(3, "a")];
        let here = on_box(&["Sdxl"]);
        let choice = pick(&all, &here, &Fairness::default()).unwrap();
        assert_eq!((choice.index, choice.reason), (1, PickReason::Order));
        assert!(choice.overtaken.is_empty());
        assert_eq!(choose(&all[..2], &here), (1, PickReason::OnlyCandidate));
        assert_eq!(pick(&all[..1], &here, &Fairness::default()), None);
        // Where all boxes are equal nobody asks.
        assert_eq!(choose(&all, &slot(&[])).0, 0);
    }

    proptest! {
        /// The choice among all is the choice among those that can run here, as if the others were not there.
        #[test]
        fn jobs_of_other_boxes_change_nothing(
            kinds in proptest::collection::vec((0usize..3, -1i32..2, 0u32..6, any::<bool>(), 0u8..4), 0..12),
            has in proptest::sample::subsequence(vec!["A", "B"], 0..=2),
        ) {
            let all: Vec<Candidate> = kinds.iter().enumerate().map(|(i, &(t, priority, skipped, avoid, needs))| {
                let needs: Vec<&str> = [("A", 1), ("B", 2)].iter().filter(|(_, bit)| needs & bit != 0).map(|(n, _)| *n).collect();
                let plain = candidate(i as i64, ["a", "b", "c"][t]);
                needing(Candidate { priority, skipped, avoid, ..plain }, &needs)
            }).collect();
            let here = on_box(&has);
            let possible: Vec<Candidate> = all.iter().filter(|c| here.takes(&c.needs)).cloned().collect();
            let told = |list: &[Candidate]| {
                let choice = pick(list, &here, &Fairness::default())?;
                let jobs: Vec<JobId> = choice.overtaken.iter().map(|&i| list[i].job).collect();
                Some((list[choice.index].job, choice.reason, jobs))
            };
            prop_assert_eq!(told(&all), told(&possible));
            if let Some(choice) = pick(&all, &here, &Fairness::default()) {
                prop_assert!(here.takes(&all[choice.index].needs));
            }
        }

        /// One old job of each tenant, then a flood of newer ones, all of them with loaded models, for ever.
        #[test]
        fn nobody_starves(tenants in 1usize..6, weights in proptest::collection::vec(1u32..4, 6)) {
            let name = |t: usize| format!("t{t}").parse::<TenantId>().unwrap();
            let mut fairness = Fairness::default();
            for (t, weight) in weights.iter().enumerate().take(tenants) {
                let share = crate::scheduler::Share { weight: *weight, ..Default::default() };
                fairness.tenants.insert(name(t), share);
            }
            let mut waiting: Vec<Candidate> = (0..tenants)
                .map(|t| candidate(t as i64, name(t).as_str()))
                .collect();
            let mut next = 1000;
            let mut claims = 0;
            // A tenant of weight 1 gets at least 1/total of the claims; each old job is put off at most MAX_SKIPS times.
            let total: u32 = weights.iter().take(tenants).sum();
            while waiting.iter().any(|c| c.order < 1000) {
                claims += 1;
                prop_assert!(claims <= (MAX_SKIPS + 2) * (total + 1), "{waiting:?}");
                for t in 0..tenants {
                    let fresh = Candidate { tenant: name(t), ..with_models(next, &["x"]) };
                    waiting.push(fresh);
                    next += 1;
                }
                let choice = pick(&waiting, &slot(&["x"]), &fairness).unwrap();
                for &i in &choice.overtaken {
                    waiting[i].skipped += 1;
                    prop_assert!(waiting[i].skipped <= MAX_SKIPS);
                }
                let active: Vec<TenantId> = waiting.iter().map(|c| c.tenant.clone()).collect();
                fairness.claimed(&active, &waiting[choice.index].tenant, JOB_COST);
                waiting.remove(choice.index);
            }
        }

        #[test]
        fn the_choice_does_not_depend_on_the_order_of_arguments(
            kinds in proptest::collection::vec((0usize..3, -1i32..2, 0u32..6, any::<bool>(), any::<bool>()), 1..12),
            rotate in 0usize..12,
        ) {
            let all: Vec<Candidate> = kinds.iter().enumerate().map(|(i, &(t, priority, skipped, fits, avoid))| Candidate {
                priority,
                skipped,
                avoid,
                models: if fits { vec!["x".to_owned()] } else { vec![] },
                ..candidate(i as i64, ["a", "b", "c"][t])
            }).collect();
            let mut rotated = all.clone();
            rotated.rotate_left(rotate % all.len());
            let job = |list: &[Candidate]| {
                let choice = pick(list, &slot(&["x"]), &Fairness::default()).unwrap();
                (list[choice.index].job, choice.reason)
            };
            prop_assert_eq!(job(&all), job(&rotated));
        }
    }
}
