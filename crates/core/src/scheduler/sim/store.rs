//! The store's verbs over plain vectors: what a database would do, with the real state machines and the real `pick`.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Plant;
use crate::{
    AttemptOutcome, AttemptState, EndpointName, InstanceId, InstanceState, JobId, JobState, TenantId,
    Timestamp, attempt, instance,
    job::{self, Life},
    retry,
    scheduler::{
        Candidate, Counters, EndpointCounters, Fairness, InstanceView, LeaseCorrection, PickReason, SlotView,
        fairness::JOB_COST, pick, pick::CANDIDATES_PER_LANE,
    },
};

#[derive(Debug)]
pub(super) struct Store {
    pub(super) plant: Plant,
    pub(super) endpoints: BTreeMap<EndpointName, EndpointRow>,
    pub(super) jobs: Vec<JobRow>,
    /// Position + 1 is the fence.
    pub(super) attempts: Vec<AttemptRow>,
    pub(super) instances: BTreeMap<InstanceId, InstanceRow>,
    next_order: i64,
}

#[derive(Debug)]
pub(super) struct EndpointRow {
    pub(super) limits: retry::Limits,
    pub(super) fairness: Fairness,
    pub(super) paused: bool,
    pub(super) start_failures: u32,
    pub(super) last_start_failure: Option<(Timestamp, String)>,
}

#[derive(Debug)]
pub(super) struct JobRow {
    pub(super) endpoint: EndpointName,
    pub(super) tenant: TenantId,
    pub(super) priority: i32,
    pub(super) models: Vec<String>,
    pub(super) expires_at: Option<Timestamp>,
    pub(super) order: i64,
    pub(super) queued_at: Timestamp,
    pub(super) skipped: u32,
    pub(super) life: Life,
    pub(super) lost_on: BTreeSet<InstanceId>,
    /// How often it was given a new life by an explicit retry.
    pub(super) retries: u32,
    /// Final records written in this life.
    pub(super) ended: u32,
    /// The attempt whose result is the job's, once it succeeded.
    pub(super) result_of: Option<usize>,
}

#[derive(Debug)]
pub(super) struct AttemptRow {
    pub(super) job: usize,
    /// Which life of the job it belongs to.
    pub(super) retries: u32,
    pub(super) instance: InstanceId,
    pub(super) slot: u32,
    pub(super) state: AttemptState,
    pub(super) lease_until: Timestamp,
}

impl AttemptRow {
    pub(super) fn holds_slot(&self) -> bool {
        matches!(self.state, AttemptState::Claimed | AttemptState::Running)
    }
}

#[derive(Debug)]
pub(super) struct InstanceRow {
    pub(super) endpoint: EndpointName,
    pub(super) state: InstanceState,
    pub(super) slots: u32,
    pub(super) since: Timestamp,
    pub(super) idle_since: Option<Timestamp>,
    pub(super) jobs_done: u32,
    pub(super) gpu: Option<String>,
    pub(super) loaded: BTreeSet<String>,
}

/// The attempt had ended already; the write is refused.
#[derive(Debug)]
pub(super) struct Stale;

/// A successful claim.
pub(super) struct Claimed {
    pub(super) attempt: usize,
    pub(super) job: usize,
    pub(super) reason: PickReason,
    /// Tenants that had a candidate of the same priority.
    pub(super) rivals: BTreeSet<TenantId>,
}

impl Store {
    pub(super) fn new(plant: Plant) -> Self {
        Store {
            plant,
            endpoints: BTreeMap::new(),
            jobs: Vec::new(),
            attempts: Vec::new(),
            instances: BTreeMap::new(),
            next_order: 0,
        }
    }

    pub(super) fn submit(&mut self, mut job: JobRow) -> usize {
        self.next_order += 1;
        job.order = self.next_order;
        self.jobs.push(job);
        self.jobs.len() - 1
    }

    pub(super) fn claim(&mut self, instance: InstanceId, now: Timestamp, lease: Duration) -> Option<Claimed> {
        let row = &self.instances[&instance];
        let endpoint = row.endpoint.clone();
        let slot = self.free_slots(instance).next()?;
        if row.state != InstanceState::Ready || self.endpoints[&endpoint].paused {
            return None;
        }
        let (jobs, candidates) = self.candidates(&endpoint, instance);
        let view = SlotView {
            instance: Some(instance),
            loaded: row.loaded.clone(),
            offers: None,
        };
        let fairness = &mut self.endpoints.get_mut(&endpoint)?.fairness;
        let choice = pick(&candidates, &view, fairness)?;
        let chosen = &candidates[choice.index];
        fairness.claimed(candidates.iter().map(|c| &c.tenant), &chosen.tenant, JOB_COST);
        for &other in &choice.overtaken {
            self.jobs[jobs[other]].skipped += 1;
        }
        let rivals = candidates.iter().filter(|c| c.priority == chosen.priority);
        let rivals = rivals.map(|c| c.tenant.clone()).collect();
        let job = jobs[choice.index];
        self.change_job(job, job::Event::Claimed, now)
            .expect("a candidate is queued");
        self.attempts.push(AttemptRow {
            job,
            retries: self.jobs[job].retries,
            instance,
            slot,
            state: AttemptState::Claimed,
            lease_until: now.plus(lease),
        });
        let row = self.instances.get_mut(&instance)?;
        row.idle_since = None;
        row.loaded = self.jobs[job].models.iter().cloned().collect();
        Some(Claimed {
            attempt: self.attempts.len() - 1,
            job,
            reason: choice.reason,
            rivals,
        })
    }

    pub(super) fn free_slots(&self, instance: InstanceId) -> impl Iterator<Item = u32> {
        let taken: BTreeSet<u32> = self.on(instance).map(|a| a.slot).collect();
        (0..self.instances[&instance].slots).filter(move |slot| !taken.contains(slot))
    }

    /// Attempts that hold a slot of an instance.
    pub(super) fn on(&self, instance: InstanceId) -> impl Iterator<Item = &AttemptRow> {
        let on = move |a: &&AttemptRow| a.instance == instance && a.holds_slot();
        self.attempts.iter().filter(on)
    }

    fn candidates(&self, endpoint: &EndpointName, instance: InstanceId) -> (Vec<usize>, Vec<Candidate>) {
        let mut queued: Vec<usize> = (0..self.jobs.len())
            .filter(|&j| self.jobs[j].life.state == JobState::Queued && self.jobs[j].endpoint == *endpoint)
            .collect();
        queued.sort_by_key(|&j| self.jobs[j].order);
        let mut lanes: BTreeMap<(&TenantId, i32), usize> = BTreeMap::new();
        queued.retain(|&j| {
            let seen = lanes
                .entry((&self.jobs[j].tenant, self.jobs[j].priority))
                .or_default();
            *seen += 1;
            *seen <= CANDIDATES_PER_LANE
        });
        let candidate = |&j: &usize| Candidate {
            job: JobId::from_uuid(uuid::Uuid::from_u128(j as u128)),
            tenant: self.jobs[j].tenant.clone(),
            priority: self.jobs[j].priority,
            order: self.jobs[j].order,
            skipped: self.jobs[j].skipped,
            models: self.jobs[j].models.clone(),
            needs: Default::default(),
            avoid: self.jobs[j].lost_on.contains(&instance),
        };
        let candidates = queued.iter().map(candidate).collect();
        (queued, candidates)
    }

    /// A write under a lease, refused when the attempt has ended.
    pub(super) fn advance(
        &mut self,
        attempt: usize,
        event: &attempt::Event,
        now: Timestamp,
    ) -> Result<(), Stale> {
        let row = &mut self.attempts[attempt];
        let held = row.holds_slot();
        row.state = attempt::apply(row.state, event).map_err(|_| Stale)?;
        if held && !row.holds_slot() {
            let instance = row.instance;
            self.slot_freed(instance, now);
        }
        Ok(())
    }

    pub(super) fn finish(
        &mut self,
        attempt: usize,
        outcome: AttemptOutcome,
        now: Timestamp,
    ) -> Result<JobState, Stale> {
        let job = self.attempts[attempt].job;
        match self.advance(attempt, &attempt::Event::Ended(outcome.clone()), now) {
            Ok(()) => {}
            // Planted: whoever comes with a result is believed, also under a lease that has ended.
            Err(Stale) if self.plant == Plant::NoFenceCheck => {}
            Err(Stale) => return Err(Stale),
        }
        if let AttemptOutcome::Lost { .. } = outcome {
            let instance = self.attempts[attempt].instance;
            self.jobs[job].lost_on.insert(instance);
        }
        let uncounted = self.plant == Plant::LostNotCounted && matches!(outcome, AttemptOutcome::Lost { .. });
        let done = outcome == AttemptOutcome::Done;
        let before = self.jobs[job].life.clone();
        self.change_job(job, job::Event::AttemptEnded(outcome), now)?;
        let row = &mut self.jobs[job];
        if uncounted && !before.cancel_requested {
            // Planted: a lost attempt is taken for one that was given back.
            row.life = Life {
                state: JobState::Queued,
                ..before
            };
            row.ended = 0;
        }
        if done {
            row.result_of = Some(attempt);
        }
        Ok(row.life.state)
    }

    /// Cancels; the attempt that must be told, if one holds the job.
    pub(super) fn cancel(&mut self, job: usize, now: Timestamp) -> Result<Option<usize>, Stale> {
        self.change_job(job, job::Event::CancelRequested, now)?;
        let live = |a: &AttemptRow| a.job == job && !a.state.is_final();
        Ok(self.attempts.iter().position(live))
    }

    pub(super) fn retry(&mut self, job: usize, now: Timestamp) -> Result<(), Stale> {
        self.change_job(job, job::Event::RetryRequested, now)?;
        self.next_order += 1;
        let row = &mut self.jobs[job];
        row.retries += 1;
        row.ended = 0;
        row.result_of = None;
        row.expires_at = None;
        row.order = self.next_order;
        Ok(())
    }

    pub(super) fn renew(&mut self, attempt: usize, now: Timestamp, lease: Duration) {
        if !self.attempts[attempt].state.is_final() {
            self.attempts[attempt].lease_until = now.plus(lease);
        }
    }

    pub(super) fn correct_leases(&mut self, correction: LeaseCorrection, now: Timestamp) {
        for attempt in self.attempts.iter_mut().filter(|a| !a.state.is_final()) {
            attempt.lease_until = match correction {
                LeaseCorrection::None => attempt.lease_until,
                LeaseCorrection::Extend(by) => attempt.lease_until.plus(by),
                LeaseCorrection::Cap(rest) => attempt.lease_until.min(now.plus(rest)),
            };
        }
    }

    /// Attempts whose lease has ended; the caller finishes them as lost.
    pub(super) fn due_leases(&self, now: Timestamp) -> Vec<usize> {
        let due = |&a: &usize| !self.attempts[a].state.is_final() && self.attempts[a].lease_until <= now;
        (0..self.attempts.len()).filter(due).collect()
    }

    pub(super) fn expire_queued(&mut self, endpoint: &EndpointName, now: Timestamp) {
        for job in 0..self.jobs.len() {
            let row = &self.jobs[job];
            let due = row.expires_at.is_some_and(|at| at <= now) && row.endpoint == *endpoint;
            if due && row.life.state == JobState::Queued {
                self.change_job(job, job::Event::TtlPassed, now)
                    .expect("a queued job can expire");
            }
        }
    }

    fn change_job(&mut self, job: usize, event: job::Event, now: Timestamp) -> Result<(), Stale> {
        let row = &mut self.jobs[job];
        let limits = self.endpoints[&row.endpoint].limits;
        let (life, effects) = job::apply(&row.life, event, limits).map_err(|_| Stale)?;
        row.life = life;
        for effect in effects {
            match effect {
                job::Effect::Ended { .. } => row.ended += 1,
                job::Effect::Requeued => {
                    row.queued_at = now;
                    row.skipped = 0;
                }
                job::Effect::TellAttemptToStop => {}
            }
        }
        Ok(())
    }

    fn slot_freed(&mut self, instance: InstanceId, now: Timestamp) {
        let idle = self.on(instance).next().is_none();
        if let Some(row) = self.instances.get_mut(&instance) {
            row.jobs_done += 1;
            row.idle_since = idle.then_some(now);
        }
    }

    /// Changes an instance if it is still in the state that was seen.
    pub(super) fn change_instance(
        &mut self,
        id: InstanceId,
        seen: Option<InstanceState>,
        event: instance::Event,
        now: Timestamp,
    ) -> bool {
        let Some(row) = self.instances.get_mut(&id) else {
            return false;
        };
        if seen.is_some_and(|seen| seen != row.state) {
            return false;
        }
        let Ok(next) = instance::apply(row.state, event) else {
            return false;
        };
        let was = std::mem::replace(&mut row.state, next);
        row.since = now;
        let Some(endpoint) = self.endpoints.get_mut(&row.endpoint) else {
            return true;
        };
        if next == InstanceState::Ready {
            endpoint.start_failures = 0;
            row.idle_since = Some(now);
        } else if was == InstanceState::Starting && next == InstanceState::Failed {
            endpoint.start_failures += 1;
            endpoint.last_start_failure = Some((now, "it did not come up".to_owned()));
        }
        true
    }

    pub(super) fn live_instances(&self, endpoint: &EndpointName) -> impl Iterator<Item = &InstanceRow> {
        let live = |i: &&InstanceRow| i.endpoint == *endpoint && !i.state.is_final();
        self.instances.values().filter(live)
    }

    pub(super) fn counters(&self) -> Counters {
        let mut endpoints: BTreeMap<EndpointName, EndpointCounters> = self
            .endpoints
            .iter()
            .map(|(name, row)| {
                let counters = EndpointCounters {
                    paused: row.paused,
                    start_failures: row.start_failures,
                    last_start_failure: row.last_start_failure.clone(),
                    ..EndpointCounters::default()
                };
                (name.clone(), counters)
            })
            .collect();
        let earlier = |a: Option<Timestamp>, b: Timestamp| Some(a.map_or(b, |a| a.min(b)));
        for job in &self.jobs {
            let of = endpoints
                .get_mut(&job.endpoint)
                .expect("jobs belong to endpoints");
            match job.life.state {
                JobState::Queued => {
                    of.queued += 1;
                    of.oldest_queued_at = earlier(of.oldest_queued_at, job.queued_at);
                    if let Some(at) = job.expires_at {
                        of.next_queue_ttl = earlier(of.next_queue_ttl, at);
                    }
                }
                JobState::Running => of.running += 1,
                JobState::Succeeded | JobState::Failed | JobState::Cancelled | JobState::Expired => {}
            }
        }
        for attempt in self.attempts.iter().filter(|a| !a.state.is_final()) {
            let of = endpoints.get_mut(&self.jobs[attempt.job].endpoint);
            let of = of.expect("jobs belong to endpoints");
            of.next_lease_expiry = earlier(of.next_lease_expiry, attempt.lease_until);
        }
        for (id, row) in self.instances.iter().filter(|(_, row)| !row.state.is_final()) {
            let view = InstanceView {
                id: *id,
                state: row.state,
                slots: row.slots,
                busy: u32::try_from(self.on(*id).count()).expect("few slots"),
                state_since: row.since,
                idle_since: row.idle_since,
                jobs_done: row.jobs_done,
                rss_bytes: 0,
                gpu: row.gpu.clone(),
                phase: None,
            };
            let of = endpoints.get_mut(&row.endpoint);
            of.expect("instances belong to endpoints").instances.push(view);
        }
        Counters { endpoints }
    }
}
