//! What must hold after every step, and at the end.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    scenario::{JobSpec, Nature},
    store::{Claimed, Store},
};
use crate::{
    AttemptState, EndpointName, JobState, TenantId, retry,
    scheduler::{Policy, pick::MAX_SKIPS},
};

pub(super) struct Invariants {
    /// Whether jobs differ in priority; then a tenant may be passed by any number of others.
    priorities: bool,
    /// Acknowledged jobs, as an outside checker would remember them: the final state it saw, if any.
    accepted: BTreeMap<usize, Option<JobState>>,
    /// How many claims of others a waiting tenant has seen since its own last one.
    passed: BTreeMap<(EndpointName, TenantId), usize>,
}

impl Invariants {
    pub(super) fn new(priorities: bool) -> Self {
        Invariants {
            priorities,
            accepted: BTreeMap::new(),
            passed: BTreeMap::new(),
        }
    }

    pub(super) fn accepted(&mut self, job: usize) {
        self.accepted.insert(job, None);
    }

    pub(super) fn retried(&mut self, job: usize) {
        self.accepted.insert(job, None);
    }

    /// Every tenant progresses: with equal weights, two claims of another for each of one's own is the worst that
    /// start-time fair queueing allows.
    pub(super) fn claimed(&mut self, store: &Store, claimed: &Claimed) -> Result<(), String> {
        let job = &store.jobs[claimed.job];
        if job.life.cancel_requested {
            return Err(format!("job {} was claimed after a cancel", claimed.job));
        }
        self.passed.insert((job.endpoint.clone(), job.tenant.clone()), 0);
        for rival in claimed.rivals.iter().filter(|rival| **rival != job.tenant) {
            let passed = self
                .passed
                .entry((job.endpoint.clone(), rival.clone()))
                .or_default();
            *passed += 1;
            if !self.priorities && *passed > 2 * claimed.rivals.len() + 2 {
                return Err(format!("tenant {rival} was passed {passed} times in a row"));
            }
        }
        // Those with nothing waiting were not passed.
        let (endpoint, rivals) = (&job.endpoint, &claimed.rivals);
        self.passed
            .retain(|(at, tenant), _| at != endpoint || rivals.contains(tenant));
        Ok(())
    }

    pub(super) fn check(&mut self, store: &Store, policy: &Policy) -> Result<(), String> {
        self.jobs(store)?;
        slots(store)?;
        capacity(store, policy)
    }

    fn jobs(&mut self, store: &Store) -> Result<(), String> {
        let mut tally = vec![Tally::default(); store.jobs.len()];
        for attempt in &store.attempts {
            let of = &mut tally[attempt.job];
            let this_life = attempt.retries == store.jobs[attempt.job].retries;
            match attempt.state {
                AttemptState::Claimed | AttemptState::Running | AttemptState::Collecting => of.live += 1,
                AttemptState::Lost if this_life => of.lost += 1,
                AttemptState::Released if this_life => of.released += 1,
                AttemptState::Done if this_life => of.done += 1,
                AttemptState::Lost
                | AttemptState::Released
                | AttemptState::Done
                | AttemptState::Failed
                | AttemptState::Cancelled => {}
            }
        }
        for (&id, seen) in &mut self.accepted {
            let Some(job) = store.jobs.get(id) else {
                return Err(format!("job {id} was accepted and is gone"));
            };
            let (state, tally) = (job.life.state, &tally[id]);
            if let Some(seen) = *seen
                && seen != state
            {
                return Err(format!("job {id} was {seen:?} and is {state:?} now"));
            }
            *seen = state.is_final().then_some(state);
            let max_attempts = store.endpoints[&job.endpoint].limits.max_attempts;
            let wrong = if tally.live != u32::from(state == JobState::Running) {
                Some(format!("has {} live attempts", tally.live))
            } else if job.ended != u32::from(state.is_final()) || tally.done > 1 {
                Some(format!(
                    "ended {} times, {} attempts did it",
                    job.ended, tally.done
                ))
            } else if tally.lost > max_attempts {
                Some(format!("lost {} attempts of {max_attempts}", tally.lost))
            } else if job.skipped > MAX_SKIPS {
                Some(format!("was overtaken {} times", job.skipped))
            } else if tally.released > retry::MAX_RELEASED {
                Some(format!("was given back {} times", tally.released))
            } else if state == JobState::Succeeded
                && job.result_of.map(|a| store.attempts[a].state) != Some(AttemptState::Done)
            {
                Some("has a result of an attempt that did not do it".to_owned())
            } else {
                None
            };
            if let Some(wrong) = wrong {
                return Err(format!("job {id}, {state:?}, {wrong}"));
            }
        }
        Ok(())
    }

    pub(super) fn check_end(&self, store: &Store, policy: &Policy, specs: &[JobSpec]) -> Result<(), String> {
        for (id, seen) in &self.accepted {
            match (seen, specs[*id].nature) {
                (None, _) => return Err(format!("job {id} never ended")),
                (Some(JobState::Succeeded), Nature::Fails | Nature::Kills) => {
                    return Err(format!("job {id} succeeded and could not"));
                }
                (Some(_), _) => {}
            }
        }
        for (name, of) in policy.endpoints.iter().filter(|(_, of)| of.managed) {
            let live = store.live_instances(name).count();
            let kept = of.most_instances().min(of.scaling.min_instances as usize);
            if live != kept {
                return Err(format!(
                    "endpoint {name} came to rest with {live} instances, not {kept}"
                ));
            }
        }
        Ok(())
    }
}

#[derive(Debug, Clone, Default)]
struct Tally {
    live: u32,
    lost: u32,
    released: u32,
    done: u32,
}

fn slots(store: &Store) -> Result<(), String> {
    let mut taken = BTreeSet::new();
    for attempt in store.attempts.iter().filter(|a| a.holds_slot()) {
        let (instance, slot) = (attempt.instance, attempt.slot);
        if !taken.insert((instance, slot)) || slot >= store.instances[&instance].slots {
            return Err(format!("slot {slot} of instance {instance} holds two jobs"));
        }
    }
    Ok(())
}

fn capacity(store: &Store, policy: &Policy) -> Result<(), String> {
    let mut on_gpu: BTreeMap<&str, usize> = BTreeMap::new();
    for (name, of) in policy.endpoints.iter().filter(|(_, of)| of.managed) {
        let live = store.live_instances(name).count();
        if live > of.most_instances() {
            return Err(format!("endpoint {name} has {live} instances"));
        }
        for gpu in store.live_instances(name).filter_map(|i| i.gpu.as_deref()) {
            *on_gpu.entry(gpu).or_default() += 1;
        }
    }
    match on_gpu.into_iter().find(|(_, n)| *n > 1) {
        Some((gpu, n)) => Err(format!("gpu {gpu} has {n} instances")),
        None => Ok(()),
    }
}
