//! Pull workers: processes that take jobs by long polls, anywhere, with the SDKs of RunPod and PPIO.
//!
//! A [`Worker`] is an instance whose slots are its polls: each claims as every slot does, under a lease and a fence. The
//! wire knows neither, so they are kept here, by worker and job. [`take`] is the way to the worker, [`result`] the way
//! back, [`keeper`] finds out what became of workers that say nothing (`protocols/async-endpoints.md` §5), [`environment`]
//! is what a worker is told at its start. How the worker's requests look is the protocol's business.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use darkroom_core::{
    AttemptOutcome, EndpointName, InstanceId, InstanceState, JobId, attempt::Lease, presence::Heard,
};
use darkroom_store::{
    catalog::{InstanceChange, InstanceRecord},
    jobs::{AttemptRecord, Finish},
};
use serde::{Deserialize, Serialize};
use tokio::sync::{Semaphore, watch};

use super::{Error, Service, attempts::SlotActivity};

pub mod environment;
mod keeper;
pub mod result;
mod stranger;
pub mod take;
#[cfg(test)]
mod tests;
mod token;
mod worker;

use token::WorkerTokens;
pub use worker::{Phase, Worker};

/// Polls of one endpoint that claim at the same time; the others stand in line behind them. One job that comes wakes so
/// many, not every worker there is.
const CLAIMING: usize = 4;
/// Workers of one endpoint that came by themselves.
const MOST_EXTERNAL: usize = 1000;
/// How long a worker's request waits for a server that has just started; below the SDKs' 90 s.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);
/// The longest name a worker may give itself, in characters.
const NAME_CHARS: usize = 128;
/// Cancels that are remembered until the job's take is known.
const EARLY_CANCELS: usize = 1024;

/// The workers of this server.
pub struct PullWorkers {
    /// Makes and knows the tokens of workers that we start.
    tokens: WorkerTokens,
    /// Where workers on this machine reach us, without a slash at the end.
    base_url: String,
    workers: Mutex<BTreeMap<(EndpointName, String), Arc<Worker>>>,
    lines: Mutex<BTreeMap<EndpointName, Arc<Semaphore>>>,
    cancelled_early: Mutex<VecDeque<JobId>>,
    /// One worker at a time becomes known, so that two first requests of one make one instance.
    arrivals: tokio::sync::Mutex<()>,
    /// Those of the server before this one are known again, with what they hold.
    settled: watch::Sender<bool>,
}

/// What is remembered of a worker that came by itself, in its instance's row.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct External {
    /// How it calls itself.
    worker: String,
    /// The key it first came with; no other may speak for it.
    key: Option<String>,
}

/// Why a worker was not served.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Its name is none, or is another's.
    #[error("{0}")]
    Name(&'static str),
    /// No such worker, or too many.
    #[error("{0}")]
    Unknown(&'static str),
    /// The service cannot.
    #[error(transparent)]
    Failed(#[from] Error),
}

impl PullWorkers {
    /// None yet. `base_url`: where workers on this machine reach the server.
    pub fn new(server_key: &[u8; 32], base_url: String) -> Self {
        PullWorkers {
            tokens: WorkerTokens::new(server_key),
            base_url,
            workers: Mutex::default(),
            lines: Mutex::default(),
            cancelled_early: Mutex::default(),
            arrivals: tokio::sync::Mutex::default(),
            settled: watch::Sender::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(EndpointName, String), Arc<Worker>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, endpoint: &EndpointName, name: &str) -> Option<Arc<Worker>> {
        self.lock().get(&(endpoint.clone(), name.to_owned())).cloned()
    }

    fn all(&self) -> Vec<Arc<Worker>> {
        self.lock().values().cloned().collect()
    }

    fn add(&self, worker: Arc<Worker>) {
        let key = (worker.endpoint.clone(), worker.name.clone());
        self.lock().insert(key, worker);
    }

    /// Forgets a worker, unless another of its name came meanwhile.
    fn remove(&self, worker: &Worker) {
        let key = (worker.endpoint.clone(), worker.name.clone());
        let mut workers = self.lock();
        if workers.get(&key).is_some_and(|w| w.instance == worker.instance) {
            workers.remove(&key);
        }
    }

    fn line(&self, endpoint: &EndpointName) -> Arc<Semaphore> {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .entry(endpoint.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(CLAIMING)))
            .clone()
    }

    /// The worker that holds a job.
    fn holder(&self, job: JobId) -> Option<Arc<Worker>> {
        self.lock()
            .values()
            .find(|worker| worker.lease_of(job).is_some())
            .cloned()
    }

    pub(in crate::service) fn cancelled_early(&self) -> MutexGuard<'_, VecDeque<JobId>> {
        self.cancelled_early
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The worker on an instance, as the planner sees it.
    pub fn on_instance(&self, instance: InstanceId) -> Option<Arc<Worker>> {
        self.lock()
            .values()
            .find(|worker| worker.instance == instance)
            .cloned()
    }
}

impl Service {
    /// The worker of that name, if it is known. Requests of others are nobody's.
    pub fn worker(&self, endpoint: &EndpointName, name: &str) -> Option<Arc<Worker>> {
        self.pull.known(endpoint, name)
    }

    /// Workers of the server before this one are known again: from now on a worker that is not is a new one.
    pub(crate) fn workers_are_known(&self) {
        self.pull.settled.send_replace(true);
    }

    /// Waits until the workers of the server before this one are known, so that none of their results is taken for a
    /// stranger's; `false` when that takes too long.
    pub async fn workers_known(&self) -> bool {
        let mut settled = self.pull.settled.subscribe();
        let known = tokio::time::timeout(SETTLED_WITHIN, settled.wait_for(|it_is| *it_is)).await;
        known.is_ok()
    }

    /// Where workers on this machine reach the server.
    pub fn worker_base_url(&self) -> &str {
        &self.pull.base_url
    }

    /// How busy the worker on an instance is.
    pub(crate) fn worker_activity(&self, instance: InstanceId) -> Option<Arc<SlotActivity>> {
        self.pull.on_instance(instance).map(|worker| worker.activity())
    }

    /// The token of a worker that we start.
    pub(crate) fn worker_token(&self, endpoint: &EndpointName, name: &str) -> String {
        self.pull.tokens.of(endpoint, name)
    }

    /// Whether a credential is that worker's token; `None` when it is no token at all, but perhaps a key.
    pub fn check_worker_token(&self, presented: &str, endpoint: &EndpointName, name: &str) -> Option<bool> {
        self.pull.tokens.check(presented, endpoint, name)
    }

    /// A worker said something.
    pub fn worker_heard(&self, worker: &Worker, heard: &Heard) {
        worker.hear(heard, self.clock.now(), self.clock.monotonic());
    }

    /// A worker that we start. It is known until [`Service::worker_gone`].
    pub(crate) fn worker_started(&self, worker: Worker) -> Arc<Worker> {
        let worker = Arc::new(worker);
        self.pull.add(worker.clone());
        worker
    }

    /// A worker that comes by itself and asks for work: the one that is known, or a new instance of its endpoint. `key`
    /// names the credential it comes with.
    ///
    /// # Errors
    /// [`Refused`]; another key's worker has that name, or the endpoint takes none.
    pub async fn worker_arrives(
        &self,
        endpoint: &EndpointName,
        name: &str,
        key: Option<&str>,
    ) -> Result<Arc<Worker>, Refused> {
        if name.is_empty() || name.chars().count() > NAME_CHARS || name.chars().any(char::is_control) {
            return Err(Refused::Name("a worker's id has 1 to 128 characters"));
        }
        let configured = self.endpoint(endpoint)?;
        if !configured.has_pull_workers() {
            return Err(Refused::Unknown(
                "the endpoint has no workers that take jobs by polls",
            ));
        }
        let _alone = self.pull.arrivals.lock().await;
        if let Some(worker) = self.pull.known(endpoint, name) {
            return match worker.may_speak(key) {
                true => Ok(worker),
                false => Err(Refused::Name("a worker with another credential has that id")),
            };
        }
        let here = self.pull.lock().keys().filter(|(of, _)| of == endpoint).count();
        if here >= MOST_EXTERNAL {
            return Err(Refused::Unknown("too many workers came already"));
        }
        let external = External {
            worker: name.to_owned(),
            key: key.map(str::to_owned),
        };
        let now = self.clock.now();
        let record = InstanceRecord {
            id: InstanceId::new(&*self.ids),
            endpoint: endpoint.clone(),
            home: self.node.clone(),
            state: InstanceState::Ready,
            state_since: now,
            created_at: now,
            gpu: None,
            box_name: name.to_owned(),
            handle: serde_json::to_string(&external).ok(),
            start_reason: "a worker came by itself".to_owned(),
            state_reason: String::new(),
            jobs_done: 0,
            phases: vec![],
        };
        let instance = record.id;
        self.store.add_instance(record).await.map_err(Error::from)?;
        tracing::info!(instance.id = %instance, endpoint.name = %endpoint, "a worker came");
        let worker = Worker::external(endpoint.clone(), instance, external, self.clock.monotonic());
        let worker = Arc::new(worker);
        self.pull.add(worker.clone());
        Ok(worker)
    }

    /// A worker that came by itself before a restart of the server, with what it holds; `false` when the row is none of
    /// such a worker.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn worker_returns(
        &self,
        record: &InstanceRecord,
        attempts: &[AttemptRecord],
    ) -> Result<bool, Error> {
        let external: Option<External> = record
            .handle
            .as_deref()
            .and_then(|handle| serde_json::from_str(handle).ok());
        let is_worker = self
            .endpoint(&record.endpoint)
            .is_ok_and(|e| e.has_pull_workers());
        let Some(external) = external.filter(|_| is_worker) else {
            return Ok(false);
        };
        let now = self.clock.monotonic();
        let worker = Worker::external(record.endpoint.clone(), record.id, external, now);
        if record.state != InstanceState::Ready {
            worker.enter(Phase::Draining);
        }
        let worker = Arc::new(worker);
        self.pull.add(worker.clone());
        self.take_up(&worker, attempts).await?;
        Ok(true)
    }

    /// The jobs that a worker took before a restart of the server are its own again, under their fences.
    ///
    /// # Errors
    /// When the store fails.
    pub(crate) async fn take_up(
        &self,
        worker: &Arc<Worker>,
        attempts: &[AttemptRecord],
    ) -> Result<(), Error> {
        for attempt in attempts {
            let lease = Lease {
                job: attempt.job,
                fence: attempt.fence,
            };
            let ours = self
                .store
                .adopt(lease, self.node.clone(), super::attempts::LEASE)
                .await?;
            if ours.is_ok()
                && let Some(job) = self.store.job(None, attempt.job).await?
            {
                tracing::info!(job.id = %job.id, instance.id = %worker.instance, "a worker goes on with a job");
                self.hold_for_worker(worker, lease, &job, attempt.claimed_at);
                if job.cancel_requested {
                    self.end_on(worker, job.id, AttemptOutcome::Cancelled).await;
                }
            }
        }
        Ok(())
    }

    /// The worker is no more: its jobs end so, its polls are released, and its name is free again.
    pub(crate) async fn worker_gone(&self, worker: &Arc<Worker>, outcome: &AttemptOutcome) {
        worker.enter(Phase::Gone);
        self.pull.remove(worker);
        for lease in worker.let_go_of_all(self.clock.now()) {
            self.record_end(lease, outcome.clone()).await;
        }
    }

    /// Its handler asked that it be replaced: it gets no more jobs. One that came by itself is dismissed by the planner once
    /// it holds none, and is a new one if it comes again.
    async fn replace_worker(&self, worker: &Worker) -> Result<(), Error> {
        worker.wears_out();
        match worker.is_managed() {
            true => Ok(()),
            false => self.drains(worker, "its handler asked that it be replaced").await,
        }
    }

    /// How the worker on an instance calls itself; the instance's id where nobody remembers.
    pub(in crate::service) async fn worker_name(&self, instance: InstanceId) -> Result<String, Error> {
        if let Some(worker) = self.pull.on_instance(instance) {
            return Ok(worker.name.clone());
        }
        let record = self.store.instance(instance).await?;
        let external = record
            .and_then(|record| record.handle)
            .and_then(|handle| serde_json::from_str::<External>(&handle).ok());
        Ok(external.map_or_else(|| instance.to_string(), |external| external.worker))
    }

    /// The planner, or an operator, wants a worker gone that came by itself: it is handed nothing more, and its row ends. It
    /// cannot be ended from here; should it go on asking, it is a new one.
    pub(crate) async fn worker_dismissed(&self, instance: InstanceId) {
        if let Some(worker) = self
            .pull
            .on_instance(instance)
            .filter(|worker| !worker.is_managed())
        {
            self.dismiss_workers([worker], "it was stopped").await;
        }
    }

    /// Workers that came by themselves and whose key may not do what it did: `may` is asked for a key's name and an endpoint.
    pub(crate) fn workers_without(&self, may: impl Fn(&str, &EndpointName) -> bool) -> Vec<Arc<Worker>> {
        let of_no_key = |worker: &Arc<Worker>| worker.key().is_some_and(|key| !may(key, &worker.endpoint));
        self.pull.all().into_iter().filter(of_no_key).collect()
    }

    /// These workers are served no more; their jobs run elsewhere, at no cost to them.
    pub(crate) async fn dismiss_workers(&self, workers: impl IntoIterator<Item = Arc<Worker>>, reason: &str) {
        for worker in workers {
            let released = AttemptOutcome::Released {
                reason: reason.to_owned(),
            };
            self.external_gone(&worker, &released, reason).await;
        }
    }

    /// A worker that came by itself says that it cannot work: it gets no more jobs.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn worker_is_unhealthy(&self, worker: &Worker, reason: String) -> Result<(), Error> {
        if !worker.is_managed() {
            worker.enter(Phase::Draining);
            self.drains(worker, &reason).await?;
        }
        worker.is_unhealthy(reason);
        Ok(())
    }

    async fn drains(&self, worker: &Worker, reason: &str) -> Result<(), Error> {
        let change = InstanceChange {
            state: Some(InstanceState::Draining),
            reason: Some(reason.to_owned()),
            ..InstanceChange::default()
        };
        self.store
            .change_instance(worker.instance, InstanceState::Ready, change)
            .await?;
        Ok(())
    }

    /// A worker that came by itself is gone, and its row says why.
    async fn external_gone(&self, worker: &Arc<Worker>, outcome: &AttemptOutcome, reason: &str) {
        tracing::info!(instance.id = %worker.instance, endpoint.name = %worker.endpoint, reason, "a worker is gone");
        self.worker_gone(worker, outcome).await;
        // From whatever state it is in: it was never ours to fail.
        for _ in 0..3 {
            let state = match self.store.instance(worker.instance).await {
                Ok(Some(record)) if !record.state.is_final() => record.state,
                Ok(_) => return,
                Err(error) => {
                    return tracing::error!(error = ?error, "a worker's end could not be recorded");
                }
            };
            let to = match state {
                InstanceState::Stopping => InstanceState::Stopped,
                _ => InstanceState::Stopping,
            };
            let change = InstanceChange {
                state: Some(to),
                reason: Some(reason.to_owned()),
                ..InstanceChange::default()
            };
            if let Err(error) = self.store.change_instance(worker.instance, state, change).await {
                return tracing::error!(error = ?error, "a worker's end could not be recorded");
            }
        }
    }

    /// Ends a running job that a worker has, as its caller wishes: at once, whatever the worker does. `false` when no
    /// worker of this server has it.
    pub(super) async fn cancel_on_worker(&self, job: JobId) -> bool {
        match self.pull.holder(job) {
            Some(worker) => self.end_on(&worker, job, AttemptOutcome::Cancelled).await,
            None => {
                let mut early = self.pull.cancelled_early();
                early.push_back(job);
                if early.len() > EARLY_CANCELS {
                    early.pop_front();
                }
                false
            }
        }
    }

    /// A running job may take no longer than this from now on.
    pub(super) fn shorten_on_worker(&self, job: JobId, rest: Duration) {
        if let Some(worker) = self.pull.holder(job) {
            worker.must_end(job, self.clock.monotonic() + rest);
        }
    }

    /// Ends a worker's attempt from our side. The worker may not know: it is told, where its SDK listens, and it is not
    /// given the job again before it is seen to be done with it.
    async fn end_on(&self, worker: &Arc<Worker>, job: JobId, outcome: AttemptOutcome) -> bool {
        let grace = self
            .endpoint(&worker.endpoint)
            .map_or(Duration::from_secs(10), |e| e.limits.cancel_grace);
        let stuck_at = self.clock.monotonic() + grace;
        let Some(lease) = worker.lease_of(job) else {
            return false;
        };
        if !self.record_end(lease, outcome).await {
            return false;
        }
        worker.goes_on_with(lease, stuck_at);
        self.hub.attempt_ended(lease);
        true
    }

    /// Writes an attempt's end that brings no result; `false` when the store could not.
    async fn record_end(&self, lease: Lease, outcome: AttemptOutcome) -> bool {
        let finish = Finish {
            outcome,
            outputs: vec![],
            result: None,
            events: vec![],
        };
        // A stale lease means that it has ended already.
        match self.store.finish(lease, finish).await {
            Ok(_) => true,
            Err(error) => {
                tracing::error!(job.id = %lease.job, error = ?error, "an attempt ends when its lease does");
                false
            }
        }
    }
}
