//! The server's side: it carries plans out, drives attempts, renews leases, and comes back after a crash.

use std::time::Duration;

use super::{
    Plant,
    processes::{CANCEL_GRACE, INTERRUPT},
    store::{InstanceRow, JobRow, Stale},
    world::{Happening, LEASE, Presence, World},
};
use crate::{
    AttemptOutcome, AttemptState, EndpointName, InstanceId, InstanceState, JobState, attempt, instance,
    job::Life,
    scheduler::{Action, ClockGuard, plan, plan::Expiring},
};

const HEARTBEAT: Duration = LEASE.checked_div(3).expect("three is not zero");
const BETWEEN_PLANS: Duration = Duration::from_millis(5);

impl World {
    pub(super) fn serve(&mut self, happening: Happening) -> Result<(), String> {
        match happening {
            Happening::Submit(spec) => self.submit(spec),
            Happening::CancelSomething => self.cancel_something(),
            Happening::RetrySomething => self.retry_something(),
            Happening::Plan => self.plan(),
            Happening::Execute { action, last } => {
                self.executing &= !last;
                return self.execute(action);
            }
            Happening::Heartbeat => self.heartbeat(),
            Happening::Booted(instance) => self.booted(instance),
            Happening::Exited(instance) => self.exited(instance),
            Happening::Result {
                attempt,
                instance,
                outcome,
                late,
            } => self.result(attempt, instance, outcome, late),
            Happening::Collected(attempt) => self.finish(attempt, AttemptOutcome::Done),
            Happening::Interrupt(attempt) => self.interrupt(attempt),
            Happening::GraceOver(attempt) => self.grace_over(attempt),
            Happening::WorkerComes(endpoint) => self.worker_comes(endpoint),
            Happening::OperatorDrains => {
                let ready = self.store.instances.iter();
                let ready = ready.filter(|(_, row)| row.state == InstanceState::Ready);
                let ready: Vec<InstanceId> = ready.map(|(id, _)| *id).collect();
                if !ready.is_empty() {
                    let id = *self.random.of(&ready);
                    self.change(id, None, instance::Event::DrainRequested);
                }
            }
            Happening::Paused(endpoint, paused) => {
                let row = self.store.endpoints.get_mut(&endpoint);
                row.expect("a known endpoint").paused = paused;
            }
            Happening::Dies(_)
            | Happening::SomethingDies
            | Happening::ServerStops(_)
            | Happening::ServerCrashes { .. }
            | Happening::ServerReturns { .. }
            | Happening::WallJumps(_) => unreachable!("these happen without a server"),
        }
        Ok(())
    }

    /// Every free slot asks for work.
    pub(super) fn dispatch(&mut self) -> Result<(), String> {
        if self.presence != Presence::Here {
            return Ok(());
        }
        for id in self.store.instances.keys().copied().collect::<Vec<_>>() {
            while self.store.instances[&id].state == InstanceState::Ready && self.can_take(id) {
                self.watch_clocks();
                let Some(claimed) = self.store.claim(id, self.wall(), LEASE) else {
                    break;
                };
                let (attempt, job) = (claimed.attempt, claimed.job);
                self.note(|| {
                    format!(
                        "  claim: job {job}, attempt {attempt}, on {id}: {}",
                        claimed.reason
                    )
                });
                self.invariants.claimed(&self.store, &claimed)?;
                let nature = self.specs[job].nature;
                if self.random.percent(80) {
                    let _ = self.store.advance(attempt, &attempt::Event::Started, self.wall());
                }
                self.begin_prompt(id, attempt, nature)?;
                if !self.heartbeats {
                    self.heartbeats = true;
                    self.after(HEARTBEAT, Happening::Heartbeat);
                }
            }
        }
        Ok(())
    }

    pub(super) fn plan_soon(&mut self) {
        self.plan_at(self.now + BETWEEN_PLANS);
    }

    fn plan_at(&mut self, at: Duration) {
        if self.next_plan.is_none_or(|next| at < next) {
            self.next_plan = Some(at);
            self.at(at, Happening::Plan);
        }
    }

    fn plan(&mut self) {
        // Left over from before an earlier one was asked for; or the last one is not carried out yet, and its end asks again.
        if self.next_plan.is_none_or(|next| next > self.now) {
            return;
        }
        self.next_plan = None;
        if self.executing {
            return;
        }
        self.watch_clocks();
        let plan = plan(&self.store.counters(), &self.scenario.policy, self.wall());
        for reason in &plan.reasons {
            self.note(|| format!("  plan: {reason}"));
        }
        let mut delay = Duration::ZERO;
        let last = plan.actions.len().saturating_sub(1);
        for (at, action) in plan.actions.into_iter().enumerate() {
            self.executing = true;
            delay += self.random.millis(0, 30);
            let last = at == last;
            self.after(delay, Happening::Execute { action, last });
        }
        if let Some(wake) = plan.next_wake {
            self.plan_at(self.now + wake.since(self.wall()));
        }
    }

    fn watch_clocks(&mut self) {
        let (wall, monotonic) = (self.wall(), self.now);
        let correction = self.guard.tick(wall, monotonic);
        self.store.correct_leases(correction, wall);
    }

    fn execute(&mut self, action: Action) -> Result<(), String> {
        let done = match action {
            Action::Start {
                endpoint,
                gpu,
                seen_live,
            } => self.start(&endpoint, gpu, seen_live),
            Action::Drain { instance, seen, .. } if self.store.plant == Plant::StopBusyInstance => {
                self.stop(instance, seen.state)?
            }
            Action::Drain { instance, seen, .. } => {
                self.change(instance, Some(seen.state), instance::Event::DrainRequested)
            }
            Action::Stop { instance, seen, .. } => self.stop(instance, seen.state)?,
            Action::FailStart { instance, seen, .. } => {
                let done = self.change(instance, Some(seen.state), instance::Event::StartFailed);
                if done {
                    self.summary.failed_starts += 1;
                    self.process_dies(instance, true);
                }
                done
            }
            Action::Expire { endpoint, what, .. } => {
                match what {
                    Expiring::Leases => self.expire_leases(&endpoint)?,
                    Expiring::QueuedJobs => self.store.expire_queued(&endpoint, self.wall()),
                }
                true
            }
        };
        self.summary.dropped_actions += u64::from(!done);
        Ok(())
    }

    fn start(&mut self, endpoint: &EndpointName, gpu: Option<String>, seen_live: u32) -> bool {
        if self.store.live_instances(endpoint).count() != seen_live as usize {
            return false;
        }
        let id = self.add_instance(endpoint, gpu);
        self.spawn(id);
        true
    }

    fn add_instance(&mut self, endpoint: &EndpointName, gpu: Option<String>) -> InstanceId {
        self.summary.starts += 1;
        let id = InstanceId::from_uuid(uuid::Uuid::from_u128(self.summary.starts.into()));
        let row = InstanceRow {
            endpoint: endpoint.clone(),
            state: InstanceState::Starting,
            slots: self.scenario.policy.endpoints[endpoint].slots_per_instance,
            since: self.wall(),
            idle_since: None,
            jobs_done: 0,
            gpu,
            loaded: std::collections::BTreeSet::new(),
        };
        self.store.instances.insert(id, row);
        id
    }

    fn stop(&mut self, id: InstanceId, seen: InstanceState) -> Result<bool, String> {
        let busy = self.store.on(id).count();
        let done = self.change(id, Some(seen), instance::Event::StopRequested);
        if done && busy > 0 {
            return Err(format!("instance {id} was stopped while it ran {busy} jobs"));
        }
        if done {
            let takes = self.random.millis(0, 2_000);
            self.after(takes, Happening::Dies(id));
        }
        Ok(done)
    }

    /// Ends an instance that cannot be used any more, whatever it runs.
    fn kill(&mut self, id: InstanceId, reason: &str) {
        for other in self.held_by(id) {
            let reason = reason.to_owned();
            self.finish(other, AttemptOutcome::Released { reason });
        }
        self.change(id, None, instance::Event::StopRequested);
        self.process_dies(id, true);
    }

    fn held_by(&self, id: InstanceId) -> Vec<usize> {
        let all = self.store.attempts.iter().enumerate();
        all.filter(|(_, a)| a.instance == id && a.holds_slot())
            .map(|(at, _)| at)
            .collect()
    }

    fn expire_leases(&mut self, endpoint: &EndpointName) -> Result<(), String> {
        self.watch_clocks();
        for attempt in self.store.due_leases(self.wall()) {
            let row = &self.store.attempts[attempt];
            let (id, is_over) = (row.instance, row.state.is_final());
            if is_over || self.store.instances[&id].endpoint != *endpoint {
                continue;
            }
            if !row.holds_slot() || self.is_heard(id, attempt) {
                return Err(format!("attempt {attempt} is well, but its lease ran out"));
            }
            let reason = "its lease ran out".to_owned();
            self.finish(attempt, AttemptOutcome::Lost { reason });
            if self.is_managed(id) {
                self.kill(id, "its instance stalled with another job");
            }
        }
        Ok(())
    }

    fn heartbeat(&mut self) {
        self.watch_clocks();
        let mut any = false;
        for attempt in 0..self.store.attempts.len() {
            let row = &self.store.attempts[attempt];
            if row.state.is_final() {
                continue;
            }
            any = true;
            if !row.holds_slot() || self.is_heard(row.instance, attempt) {
                self.store.renew(attempt, self.wall(), LEASE);
            }
        }
        self.heartbeats = any;
        if any {
            self.after(HEARTBEAT, Happening::Heartbeat);
        }
    }

    /// A crash: nothing that was only in memory is left.
    pub(super) fn forget(&mut self) {
        self.executing = false;
        self.next_plan = None;
        self.heartbeats = false;
    }

    /// After a crash: running attempts are taken up under their fences, and get a lease in which to be heard of.
    pub(super) fn adopt(&mut self) {
        self.guard = ClockGuard::new(LEASE);
        self.watch_clocks();
        for attempt in 0..self.store.attempts.len() {
            let row = &self.store.attempts[attempt];
            if row.state.is_final() {
                continue;
            }
            let collecting = row.state == AttemptState::Collecting;
            if self.store.jobs[row.job].life.cancel_requested {
                self.after(INTERRUPT, Happening::Interrupt(attempt));
            }
            if collecting {
                let _ = self
                    .store
                    .advance(attempt, &attempt::Event::CollectingBegan, self.wall());
            }
            self.store.renew(attempt, self.wall(), LEASE);
        }
        self.heartbeats = true;
        self.after(HEARTBEAT, Happening::Heartbeat);
        self.plan_soon();
    }

    fn submit(&mut self, spec: super::scenario::JobSpec) {
        let now = self.wall();
        let row = JobRow {
            endpoint: spec.endpoint.clone(),
            tenant: spec.tenant.clone(),
            priority: spec.priority,
            models: spec.models.clone(),
            expires_at: spec.ttl.map(|ttl| now.plus(ttl)),
            order: 0,
            queued_at: now,
            skipped: 0,
            life: Life::queued(),
            lost_on: std::collections::BTreeSet::new(),
            retries: 0,
            ended: 0,
            result_of: None,
        };
        let job = self.store.submit(row);
        self.specs.push(spec);
        self.invariants.accepted(job);
    }

    fn cancel_something(&mut self) {
        let open = |j: &usize| !self.store.jobs[*j].life.state.is_final();
        let open: Vec<usize> = (0..self.store.jobs.len()).filter(open).collect();
        if open.is_empty() {
            return;
        }
        let job = *self.random.of(&open);
        if let Ok(Some(attempt)) = self.store.cancel(job, self.wall()) {
            self.after(INTERRUPT, Happening::Interrupt(attempt));
        }
    }

    fn retry_something(&mut self) {
        let over = |j: &usize| self.store.jobs[*j].life.state.is_final();
        let over: Vec<usize> = (0..self.store.jobs.len()).filter(over).collect();
        if !over.is_empty() {
            let job = *self.random.of(&over);
            self.store
                .retry(job, self.wall())
                .expect("a final job can be retried");
            self.invariants.retried(job);
        }
    }

    fn interrupt(&mut self, attempt: usize) {
        let row = &self.store.attempts[attempt];
        if !row.holds_slot() {
            return;
        }
        let instance = row.instance;
        let Some(process) = self.processes.get_mut(&instance).filter(|p| p.alive) else {
            return;
        };
        let obeys = process
            .prompts
            .get(&attempt)
            .is_some_and(|p| !p.deaf && !p.silent);
        if obeys {
            process.prompts.remove(&attempt);
            self.finish(attempt, AttemptOutcome::Cancelled);
        } else {
            self.after(CANCEL_GRACE, Happening::GraceOver(attempt));
        }
    }

    fn grace_over(&mut self, attempt: usize) {
        let row = &self.store.attempts[attempt];
        let instance = row.instance;
        if row.holds_slot() && self.is_managed(instance) {
            self.finish(attempt, AttemptOutcome::Cancelled);
            self.kill(instance, "its instance did not react to a cancel of another job");
        }
    }

    fn booted(&mut self, id: InstanceId) {
        let Some(process) = self.processes.get_mut(&id).filter(|p| p.alive) else {
            return;
        };
        process.ready = true;
        self.change(id, Some(InstanceState::Starting), instance::Event::BecameReady);
    }

    fn worker_comes(&mut self, endpoint: EndpointName) {
        let id = self.add_instance(&endpoint, None);
        let process = super::processes::Process {
            alive: true,
            ..Default::default()
        };
        self.processes.insert(id, process);
        self.booted(id);
        if self.faults_are_on() && self.random.percent(self.scenario.faults) {
            let leaves = self.random.millis(1_000, 100_000);
            self.after(leaves, Happening::Dies(id));
        }
    }

    fn exited(&mut self, id: InstanceId) {
        let our_doing = self.processes[&id].our_doing;
        let starting = self.store.instances[&id].state == InstanceState::Starting;
        if self.change(id, None, instance::Event::Exited) {
            self.summary.failed_starts += u64::from(starting);
        }
        for attempt in self.held_by(id) {
            let reason = "its instance is gone".to_owned();
            let outcome = if our_doing {
                AttemptOutcome::Released { reason }
            } else {
                AttemptOutcome::Lost { reason }
            };
            self.finish(attempt, outcome);
        }
        if !self.is_managed(id) {
            let endpoint = self.store.instances[&id].endpoint.clone();
            let back = self.random.millis(100, 20_000);
            self.after(back, Happening::WorkerComes(endpoint));
        }
    }

    fn result(&mut self, attempt: usize, id: InstanceId, outcome: AttemptOutcome, late: bool) {
        let process = self.processes.get_mut(&id).expect("results come from processes");
        let was_there = process.alive && process.prompts.remove(&attempt).is_some();
        if !was_there && !late {
            return; // It was interrupted, or died with its instance.
        }
        let collects = outcome == AttemptOutcome::Done && !late && self.random.percent(10);
        if collects {
            let event = attempt::Event::CollectingBegan;
            if self.store.advance(attempt, &event, self.wall()).is_ok() {
                let takes = self.random.millis(0, 30_000);
                self.after(takes, Happening::Collected(attempt));
            }
        } else {
            self.finish(attempt, outcome);
        }
    }

    fn finish(&mut self, attempt: usize, outcome: AttemptOutcome) {
        let (lost, released) = match &outcome {
            AttemptOutcome::Lost { .. } => (1, 0),
            AttemptOutcome::Released { .. } => (0, 1),
            AttemptOutcome::Done | AttemptOutcome::Failed(_) | AttemptOutcome::Cancelled => (0, 0),
        };
        match self.store.finish(attempt, outcome, self.wall()) {
            Ok(state) => {
                self.summary.lost += lost;
                self.summary.released += released;
                self.summary.succeeded += u64::from(state == JobState::Succeeded);
            }
            Err(Stale) => self.summary.stale += 1,
        }
    }

    fn change(&mut self, id: InstanceId, seen: Option<InstanceState>, event: instance::Event) -> bool {
        let now = self.wall();
        self.store.change_instance(id, seen, event, now)
    }
}
