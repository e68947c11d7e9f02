//! The way of jobs to a worker: a poll waits for one as any slot does, and what is handed over goes back if the poll's
//! connection is gone before the answer was written.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use darkroom_core::{
    AttemptOutcome, EndpointName, Failure, JobId, Timestamp, attempt::Lease, endpoint::Limits,
    failure::FailureCode, presence::Heard,
};
use darkroom_store::{
    Topic,
    jobs::{Claim, Claimed, JobRecord},
};
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::{Phase, Worker};
use crate::service::{Error, Service, attempts::LEASE, workers::wishes_of};

/// How long a poll is held: far below the 90 s after which the SDKs give up, and short enough that a worker which was told
/// to end hears it soon (it does between two polls).
pub const HOLD: Duration = Duration::from_secs(25);
/// How long a poll of a worker that is told to end is held: an answer at once would be asked for 300 times a second.
const HOLD_LEAVING: Duration = Duration::from_millis(500);
/// Between two looks at the queue when nobody woke the poll.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// After a job went back because its input could not be had: twenty of these are a patience of 100 s.
const AWAY: Duration = Duration::from_secs(5);
/// How long a poll that may not have what waits leaves the line to others.
const ASIDE: Duration = Duration::from_secs(1);
/// Inputs in one answer, in bytes; the one that goes beyond is the last.
const MOST_BYTES: usize = 64 << 20;

/// What became of a claim.
enum Begun {
    Taken(Box<Taken>),
    /// Its job is over.
    Ended,
    /// Its job waits again: what it needs is not to be had just now.
    GivenBack,
}

/// A job for a worker. Dropped before [`Taken::handed_over`], it goes back to the queue.
pub struct Taken {
    /// Which.
    pub job: JobId,
    /// JSON text of its input.
    pub input: Bytes,
    /// The request's credentials for the worker, by their keys.
    pub credentials: Map<String, Value>,
    claim: Option<(Service, Arc<Worker>, Lease)>,
}

impl Taken {
    /// It was written to the worker's connection: from now on the worker has to account for it.
    pub fn handed_over(&mut self) {
        self.claim = None;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some((service, worker, lease)) = self.claim.take() {
            let reason = "its worker went away before it was handed over".to_owned();
            tokio::spawn(async move {
                service
                    .take_back(&worker, lease, AttemptOutcome::Released { reason })
                    .await;
            });
        }
    }
}

impl Service {
    /// Waits for jobs for a worker, at most `wanted`; empty when there is none for a while, the worker may have none, or
    /// the server stops. `busy`: it runs something.
    pub async fn take_for_worker(
        &self,
        worker: &Arc<Worker>,
        busy: bool,
        wanted: usize,
        stopping: &CancellationToken,
    ) -> Vec<Taken> {
        worker.hear(&Heard::Take { busy }, self.clock.now(), self.clock.monotonic());
        worker.asks_for(wanted);
        let _listening = worker.listen();
        let taken = tokio::select! {
            // First: a claim that is begun while the server stops only goes back, and jobs may go back so often and no more.
            biased;
            () = stopping.cancelled() => vec![],
            taken = self.wait_for_work(worker, wanted) => taken,
            () = tokio::time::sleep(HOLD) => vec![],
        };
        worker.hear(&Heard::Sign, self.clock.now(), self.clock.monotonic());
        taken
    }

    async fn wait_for_work(&self, worker: &Arc<Worker>, wanted: usize) -> Vec<Taken> {
        let mut phases = worker.phases();
        let mut woken = self.store.subscribe(Topic::Queue(worker.endpoint.clone()));
        let line = self.pull.line(&worker.endpoint);
        loop {
            let phase = *phases.borrow_and_update();
            match phase {
                Phase::Serving => {}
                Phase::Draining => {
                    // Nobody else changes it than whoever ends the worker.
                    if phases.changed().await.is_err() {
                        std::future::pending::<()>().await;
                    }
                    continue;
                }
                Phase::Leaving | Phase::Gone => {
                    tokio::time::sleep(HOLD_LEAVING).await;
                    return vec![];
                }
            }
            let turn = tokio::select! {
                turn = line.clone().acquire_owned() => turn,
                _ = phases.changed() => continue,
            };
            let mut turn = Some(turn);
            loop {
                // Beside the poll: a claim that was begun is finished, also when the poll's connection goes meanwhile, and
                // what it brought goes back then.
                let (service, of) = (self.clone(), worker.clone());
                let claimed = tokio::spawn(async move { service.claim_for(&of, wanted).await }).await;
                let taken = claimed.unwrap_or_default();
                if !taken.is_empty() {
                    drop(turn.take());
                    return match worker.phase() {
                        Phase::Serving => taken,
                        Phase::Draining | Phase::Leaving | Phase::Gone => vec![],
                    };
                }
                if !worker.has().is_empty() && self.waits_for_others(&worker.endpoint).await {
                    // What waits is nothing for this worker, but for who stands behind it.
                    drop(turn.take());
                    tokio::select! {
                        _ = phases.changed() => {}
                        () = tokio::time::sleep(ASIDE) => {}
                    }
                    break;
                }
                tokio::select! {
                    () = woken.woken() => {}
                    _ = phases.changed() => break,
                    () = tokio::time::sleep(LOOK_AGAIN) => {}
                }
            }
        }
    }

    /// Whether jobs wait that a claim did not bring.
    async fn waits_for_others(&self, endpoint: &EndpointName) -> bool {
        let counters = self.store.counters().await;
        counters.is_ok_and(|counters| counters.get(endpoint).is_some_and(|waiting| waiting.queued > 0))
    }

    /// What there is now, at most `wanted`.
    async fn claim_for(&self, worker: &Arc<Worker>, wanted: usize) -> Vec<Taken> {
        let max_running_per_tenant = self
            .endpoint(&worker.endpoint)
            .map_or(0, |endpoint| endpoint.limits.max_running_per_tenant);
        let mut taken: Vec<Taken> = Vec::new();
        while taken.len() < wanted && taken.iter().map(|one| one.input.len()).sum::<usize>() < MOST_BYTES {
            let claim = Claim {
                endpoint: worker.endpoint.clone(),
                instance: worker.instance,
                owner: self.node.clone(),
                loaded_models: vec![],
                offers: None,
                lease: LEASE,
                except: worker.has(),
                max_running_per_tenant,
            };
            match self.store.claim(claim).await {
                Ok(Some(claimed)) => {
                    self.reach("claim");
                    match self.begin(worker, claimed).await {
                        Begun::Taken(one) => taken.push(*one),
                        Begun::Ended => {}
                        Begun::GivenBack if taken.is_empty() => {
                            // What is away now is away for the next job too, and a job goes back only so often.
                            tokio::time::sleep(AWAY).await;
                            break;
                        }
                        Begun::GivenBack => break,
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(error = ?error, "claiming for a worker failed");
                    break;
                }
            }
        }
        taken
    }

    async fn begin(&self, worker: &Arc<Worker>, claimed: Claimed) -> Begun {
        let job = claimed.job;
        let lease = Lease {
            job: job.id,
            fence: claimed.fence,
        };
        self.hold_for_worker(worker, lease, &job, self.clock.now());
        let mut taken = Taken {
            job: job.id,
            input: Bytes::new(),
            credentials: Map::new(),
            claim: Some((self.clone(), worker.clone(), lease)),
        };
        let outcome = if self.was_cancelled_early(job.id) || job.cancel_requested {
            AttemptOutcome::Cancelled
        } else {
            match self.read_for_worker(&job).await {
                Ok((input, credentials)) => {
                    (taken.input, taken.credentials) = (input, credentials);
                    return Begun::Taken(Box::new(taken));
                }
                Err(outcome) => outcome,
            }
        };
        taken.handed_over();
        let begun = match outcome {
            AttemptOutcome::Released { .. } => Begun::GivenBack,
            _ => Begun::Ended,
        };
        self.take_back(worker, lease, outcome).await;
        begun
    }

    async fn read_for_worker(&self, job: &JobRecord) -> Result<(Bytes, Map<String, Value>), AttemptOutcome> {
        let unreadable =
            || AttemptOutcome::Failed(Failure::new(FailureCode::Internal, "its input cannot be read"));
        let read = tokio::try_join!(self.read_payload(&job.input), self.credentials_of(job));
        match read {
            Ok((Some(input), credentials)) => Ok((input, credentials)),
            Ok((None, _)) => {
                tracing::error!(job.id = %job.id, "the input blob of a job is gone");
                Err(unreadable())
            }
            Err(Error::Unavailable { reason, .. }) => Err(AttemptOutcome::Released { reason }),
            Err(error) => {
                tracing::error!(job.id = %job.id, error = ?error, "a job's input cannot be read");
                Err(unreadable())
            }
        }
    }

    /// A worker holds a job from now on, that was claimed at `claimed_at`.
    pub(super) fn hold_for_worker(
        &self,
        worker: &Arc<Worker>,
        lease: Lease,
        job: &JobRecord,
        claimed_at: Timestamp,
    ) {
        let (now, monotonic) = (self.clock.now(), self.clock.monotonic());
        let endpoint = self.endpoint(&worker.endpoint).ok();
        let unlimited = Limits::default();
        let limits = endpoint.as_ref().map_or(&unlimited, |endpoint| &endpoint.limits);
        let deadline = wishes_of(&job.meta).deadline(job.created_at, claimed_at, limits);
        let deadline = job.lives_until.map_or(deadline, |over| deadline.min(over));
        worker.hold(lease, monotonic + deadline.since(now), now, monotonic);
        self.hub.attempt_began(lease);
    }

    /// The worker never got it, or could not.
    async fn take_back(&self, worker: &Arc<Worker>, lease: Lease, outcome: AttemptOutcome) {
        if worker.lease_of(lease.job) == Some(lease) {
            self.record_end(lease, outcome).await;
            worker.gave_back(lease, self.clock.now());
        }
        self.hub.attempt_ended(lease);
    }

    fn was_cancelled_early(&self, job: JobId) -> bool {
        let mut early = self.pull.cancelled_early();
        let found = early.iter().position(|&cancelled| cancelled == job);
        found.is_some_and(|at| early.remove(at).is_some())
    }

    /// Waits for jobs that the worker should stop; empty when there is none for a while, or the server stops. They are told
    /// again until [`Worker::was_told_to_stop`].
    pub async fn jobs_to_stop(&self, worker: &Worker, stopping: &CancellationToken) -> Vec<JobId> {
        worker.hear(&Heard::Sign, self.clock.now(), self.clock.monotonic());
        let _listening = worker.listen();
        let mut stops = worker.stops();
        let mut phases = worker.phases();
        let leaving = async {
            let _ = phases.wait_for(|phase| *phase >= Phase::Leaving).await;
            tokio::time::sleep(HOLD_LEAVING).await;
        };
        let told = async {
            loop {
                stops.borrow_and_update();
                let jobs = worker.to_stop();
                if !jobs.is_empty() {
                    return jobs;
                }
                if stops.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        let stops_soon = async {
            stopping.cancelled().await;
            tokio::time::sleep(HOLD_LEAVING).await;
        };
        tokio::select! {
            jobs = told => jobs,
            () = leaving => vec![],
            () = stops_soon => vec![],
            () = tokio::time::sleep(HOLD) => vec![],
        }
    }
}
