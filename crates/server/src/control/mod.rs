//! The control loop: observe, plan, act. It alone starts and stops instances; what to do is decided in
//! `core::scheduler::plan`, what runs where is decided by the slots that claim.
//!
//! One plan is in flight at a time, at least 5 ms apart, woken by events. Start with [`Control::run`]; an instance's
//! life is [`supervisor`], what a restart finds is [`adopt`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use darkroom_core::{
    Endpoint, EndpointName, InstanceId, Timestamp,
    scheduler::{
        Action, ClockGuard, Counters, Decision, LeaseCorrection, Policy, Signal, Verdict,
        autoscale::START_BACKOFF, plan,
    },
};
use darkroom_instances::InstanceBackend;
use darkroom_store::Topic;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    http::Readiness,
    service::{
        Service,
        attached::Trial,
        attempts::LEASE,
        models::ModelFile,
        resources::{Free, Resources},
        waiting::{PlannerView, StartTrouble},
    },
};

mod adopt;
mod execute;
mod gpus;
mod metadata;
mod observe;
mod remote;
mod strays;
mod supervisor;
pub mod sweep;
#[cfg(test)]
mod tests;
mod try_out;
mod unplaced;

use supervisor::{Ask, Supervised};

/// After SIGTERM, how long a leftover may take before it is killed.
const STOP_GRACE_AT_START: Duration = Duration::from_secs(2);
/// Least time between two plans: a burst of submits is one plan.
const PLAN_SPACING: Duration = Duration::from_millis(5);
/// The same where plans take long (many instances, a busy machine): so many times what the last one took, so that planning
/// never takes much of what the work itself needs.
const PLAN_PAUSE: u32 = 20;
/// And no more than this: what is worn out is drained before many more jobs went to it.
const PLAN_SPACING_AT_MOST: Duration = Duration::from_millis(20);
/// Longest time between two plans, whatever happens: leases and idle timeouts are found at the latest then.
const PLAN_AT_LEAST_EVERY: Duration = Duration::from_secs(5);

/// The control loop of one server; cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

/// What the control loop is made of.
pub struct Inner {
    service: Service,
    backend: Arc<dyn InstanceBackend>,
    spool_dir: std::path::PathBuf,
    /// At a graceful stop, how long running jobs may go on before they are given back.
    run_grace: Duration,
    supervised: Mutex<BTreeMap<InstanceId, Supervised>>,
    failures: Mutex<BTreeMap<EndpointName, StartFailures>>,
    /// Remote servers that were lost: how often in a row, and when last.
    lost_servers: Mutex<BTreeMap<remote::Server, remote::Losses>>,
    decided: Mutex<BTreeMap<(EndpointName, Option<InstanceId>), Decided>>,
    unplaced: Mutex<BTreeMap<EndpointName, unplaced::Counted>>,
    gpus: gpus::Gpus,
    metadata: Mutex<Remembered>,
    tasks: TaskTracker,
    changed: Notify,
    /// Set once the server stops: no starts any more.
    closing: CancellationToken,
}

/// What was decided last, as far as a repetition is told from a change.
type Decided = (Signal, std::mem::Discriminant<Verdict>);

/// What models said of themselves.
type Remembered = BTreeMap<(EndpointName, ModelFile), Value>;

/// Starts that failed in a row.
#[derive(Debug, Clone, Default)]
struct StartFailures {
    in_a_row: u32,
    last: Option<(Timestamp, String)>,
}

impl std::ops::Deref for Control {
    type Target = Inner;
    fn deref(&self) -> &Inner {
        &self.0
    }
}

/// The least time between a plan that took so long and the next.
fn spacing_after(took: Duration) -> Duration {
    (took * PLAN_PAUSE).clamp(PLAN_SPACING, PLAN_SPACING_AT_MOST)
}

impl Control {
    /// A control loop over a backend; nothing happens before [`Control::run`].
    pub fn new(
        service: Service,
        backend: Arc<dyn InstanceBackend>,
        spool_dir: std::path::PathBuf,
        run_grace: Duration,
    ) -> Self {
        Control(Arc::new(Inner {
            service,
            backend,
            spool_dir,
            run_grace,
            supervised: Mutex::default(),
            failures: Mutex::default(),
            lost_servers: Mutex::default(),
            decided: Mutex::default(),
            unplaced: Mutex::default(),
            gpus: gpus::Gpus::default(),
            metadata: Mutex::default(),
            tasks: TaskTracker::new(),
            changed: Notify::new(),
            closing: CancellationToken::new(),
        }))
    }

    /// Adopts what an earlier server left, says that it is ready, then plans until `shutdown`.
    ///
    /// # Errors
    /// When the store cannot be read at the start; later failures are logged and tried again.
    pub async fn run(&self, readiness: Readiness, shutdown: CancellationToken) -> anyhow::Result<()> {
        // What an earlier process copied there, its attempts collect again from the instance.
        if let Err(error) = darkroom_runner::clear_spool(&self.spool_dir) {
            tracing::warn!(%error, "the spool could not be emptied");
        }
        self.adopt().await?;
        readiness.set(true);
        let mut woken = self.service.store.subscribe(Topic::Capacity);
        let mut guard = ClockGuard::new(LEASE);
        loop {
            self.correct_leases(&mut guard).await;
            let began = self.service.clock.monotonic();
            let wake_in = match self.tick(&mut guard).await {
                Ok(wake_in) => wake_in.min(PLAN_AT_LEAST_EVERY),
                Err(error) => {
                    tracing::error!(error = ?error, "planning failed; trying again");
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(spacing_after(self.service.clock.monotonic().saturating_sub(began))) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = woken.woken() => {}
                () = self.changed.notified() => {}
                () = tokio::time::sleep(wake_in) => {}
            }
        }
    }

    /// After a jump of the wall clock, or a pause of this process, no lease may run out that could not be renewed.
    async fn correct_leases(&self, guard: &mut ClockGuard) {
        match guard.tick(self.service.clock.now(), self.service.clock.monotonic()) {
            // A clock that went back leaves leases too long; the next renewal of each makes it right.
            LeaseCorrection::None | LeaseCorrection::Cap(_) => {}
            LeaseCorrection::Extend(gap) => {
                let gap_ms = u64::try_from(gap.as_millis()).unwrap_or(u64::MAX);
                tracing::warn!(
                    gap_ms,
                    "the clock jumped or this process was paused: leases are extended"
                );
                if let Err(error) = self.service.store.extend_leases(gap).await {
                    tracing::error!(error = ?error, "leases could not be extended");
                }
            }
        }
    }

    /// Observes, plans, acts once. Returns when to look again at the latest.
    async fn tick(&self, guard: &mut ClockGuard) -> anyhow::Result<Duration> {
        let remote_wake = self.keep_servers().await?;
        let (counters, policy) = observe::counters_and_policy(self).await?;
        let now = self.service.clock.now();
        let plan = plan(&counters, &policy, now);
        for decision in &plan.reasons {
            self.record(decision).await;
        }
        for action in plan.actions {
            if matches!(action, Action::Expire { .. }) {
                // Time may have passed since the plan was made.
                self.correct_leases(guard).await;
            }
            // One that fails does not keep the others from being done; the next plan says again what is left.
            if let Err(error) = self.execute(action, &plan.reasons).await {
                tracing::error!(error = ?error, "an action of the plan failed");
            }
        }
        Ok(plan
            .next_wake
            .map_or(PLAN_AT_LEAST_EVERY, |at| at.since(now).max(PLAN_SPACING))
            .min(remote_wake.unwrap_or(PLAN_AT_LEAST_EVERY)))
    }

    /// Ends the control loop's instances as `on_exit` says, within `grace`; [`Control::run`] must have returned.
    pub async fn close(&self, grace: Duration) {
        self.closing.cancel();
        for supervised in self.lock_supervised().values() {
            supervised.close();
        }
        self.tasks.close();
        if tokio::time::timeout(grace, self.tasks.wait()).await.is_err() {
            tracing::warn!("some instances did not end in time; the next server will find them");
        }
    }

    /// The last bytes of what the instance of a stored handle printed.
    async fn read_logs(&self, handle: &str, tail_bytes: u64) -> anyhow::Result<bytes::Bytes> {
        let handle = serde_json::from_str(handle)?;
        Ok(self.backend.logs(&handle, tail_bytes).await?)
    }

    /// Wakes the planner.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    fn lock_supervised(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Supervised>> {
        self.supervised.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_failed(&self, endpoint: &EndpointName, reason: &str) {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = failures.entry(endpoint.clone()).or_default();
        entry.in_a_row = entry.in_a_row.saturating_add(1);
        entry.last = Some((self.service.clock.now(), reason.to_owned()));
    }

    fn start_succeeded(&self, endpoint: &EndpointName) {
        self.failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(endpoint);
    }

    fn failures_of(&self, endpoint: &EndpointName) -> StartFailures {
        let failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.get(endpoint).cloned().unwrap_or_default()
    }

    /// Nothing more is decided about an instance that nobody supervises.
    fn forget_decisions(&self, endpoint: &EndpointName, instance: InstanceId) {
        let mut decided = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
        decided.remove(&(endpoint.clone(), Some(instance)));
    }

    /// Decisions are data for the operator; one that says the same as the last one about its subject is not repeated.
    async fn record(&self, decision: &Decision) {
        let subject = (decision.endpoint.clone(), decision.instance);
        let gist = (decision.signal, std::mem::discriminant(&decision.verdict));
        {
            let mut last = self.decided.lock().unwrap_or_else(PoisonError::into_inner);
            if last.insert(subject, gist) == Some(gist) && !changes_something(&decision.verdict) {
                return;
            }
        }
        tracing::info!(endpoint.name = %decision.endpoint, "{decision}");
        match serde_json::to_string(decision) {
            Ok(json) => {
                if let Err(error) = self.service.store.add_decision(&decision.endpoint, json).await {
                    tracing::warn!(error = ?error, "a decision could not be kept");
                }
            }
            Err(error) => tracing::warn!(%error, "a decision could not be written"),
        }
    }
}

#[async_trait::async_trait]
impl PlannerView for Control {
    async fn view(&self) -> anyhow::Result<(Counters, Policy)> {
        observe::counters_and_policy(self).await
    }

    fn look_again(&self) {
        self.wake();
    }

    async fn logs(&self, handle: &str, tail_bytes: u64) -> anyhow::Result<bytes::Bytes> {
        self.read_logs(handle, tail_bytes).await
    }

    fn resources(&self, instance: InstanceId) -> Option<Resources> {
        let supervised = self.lock_supervised();
        supervised.get(&instance)?.resources()
    }

    fn free(&self, endpoint: &EndpointName, what: Free) {
        let supervised = self.lock_supervised();
        for way in supervised.values().filter_map(|one| one.asks(endpoint)) {
            // One that has as much to answer already will hear of it from the next.
            let _ = way.try_send(Ask::Free(what));
        }
    }

    async fn model_metadata(&self, endpoint: &EndpointName, file: &ModelFile) -> Option<Value> {
        self.metadata_of(endpoint, file).await
    }

    async fn try_out(&self, endpoint: &Endpoint) -> Result<Trial, String> {
        self.start_trial(endpoint).await
    }

    fn start_trouble(&self, endpoint: &EndpointName) -> Option<StartTrouble> {
        let failures = self.failures_of(endpoint);
        let (last_at, last_error) = failures.last?;
        Some(StartTrouble {
            in_a_row: failures.in_a_row,
            last_at,
            last_error,
            next_try_at: last_at.plus(START_BACKOFF.after(failures.in_a_row)),
        })
    }
}

/// Verdicts that are carried out happen once each; the others stand until something else is decided.
fn changes_something(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Start { .. } | Verdict::Drain | Verdict::Stop | Verdict::FailStart | Verdict::Expire => true,
        Verdict::MaxReached | Verdict::BackingOff { .. } | Verdict::GpuBusy { .. } => false,
    }
}
