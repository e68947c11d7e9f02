//! From a claimed job to what the slot runs: its request is read under the lease, patiently while the blob store is away.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use darkroom_core::{
    AttemptOutcome, Failure, attempt::Lease, endpoint::Limits, failure::FailureCode, retry::MAX_OUT_OF_MEMORY,
};
use darkroom_runner::link::{Assignment, Bounds, ComfyWork, StopCause};
use darkroom_store::jobs::{Claimed, Finish, JobRecord};
use serde_json::{Map, Value};

use super::{Adopted, SlotLink, held::Held};
use crate::{
    beside::beside,
    service::{Error, workers::wishes_of},
};

/// How long a claimed job waits for a blob store that is away before it is given back; the slot can do nothing else
/// meanwhile, but neither could another.
const READ_PATIENCE: Duration = Duration::from_secs(120);
/// Before and after its run, an attempt brings files and hears that it should end.
const OVERTIME: Duration = Duration::from_secs(600);
/// Between two tries.
const READ_AGAIN: Duration = Duration::from_millis(500);

impl SlotLink {
    /// The assignment of a job just claimed; `None` when it cannot even be begun, which is recorded.
    pub(super) async fn assign(&self, claimed: Claimed) -> Option<Assignment> {
        let lease = Lease {
            job: claimed.job.id,
            fence: claimed.fence,
        };
        let held = self.hold(lease, &claimed.job, None);
        let work = self.begin(lease, &claimed.job, &held).await?;
        Some(Assignment {
            lease,
            attempt: claimed.attempt,
            work,
            resume: None,
            bounds: self.bounds(&claimed.job),
            may_restart: may_restart(&claimed.job),
        })
    }

    /// The next attempt that runs on the instance already.
    pub(super) async fn next_adopted(&self) -> Option<Assignment> {
        loop {
            let Adopted {
                job,
                attempt,
                lease,
                on,
            } = self.pop_adopted()?;
            let Some(held) = self.held(lease) else { continue };
            if let Some(work) = self.begin(lease, &job, &held).await {
                return Some(Assignment {
                    lease,
                    attempt,
                    work,
                    resume: Some(on),
                    bounds: self.bounds(&job),
                    may_restart: may_restart(&job),
                });
            }
        }
    }

    /// The limits as configured now; those its instance was started under where the endpoint was removed meanwhile.
    pub(super) fn limits(&self) -> Limits {
        let configured = self.service.endpoint(&self.endpoint).map(|e| e.limits.clone());
        configured.unwrap_or_else(|_| self.limits.clone())
    }

    pub(super) fn bounds(&self, job: &JobRecord) -> Bounds {
        let limits = self.limits();
        let wished = wishes_of(&job.meta).execution_timeout_ms;
        let execution_timeout = wished.map_or(limits.execution_timeout, Duration::from_millis);
        let left = job.lives_until.map(|over| over.since(self.service.now()));
        Bounds {
            execution_timeout: left.map_or(execution_timeout, |left| execution_timeout.min(left)),
            stall_timeout: limits.stall_timeout,
            cancel_grace: limits.cancel_grace,
        }
    }

    /// How long an attempt may hold its slot, if nobody beside it ends it: its own bounds are the slot's to look after, which
    /// is another machine's where the slot is an agent's.
    pub(super) fn may_take(&self, job: &JobRecord) -> Duration {
        let bounds = self.bounds(job);
        let run = bounds.execution_timeout.saturating_add(bounds.cancel_grace);
        run.saturating_add(OVERTIME)
    }

    async fn begin(&self, lease: Lease, job: &JobRecord, held: &Arc<Held>) -> Option<ComfyWork> {
        let (mut work, credentials) = self.begin_with(lease, held, self.read_work(job)).await?;
        held.hide(&credentials);
        work.extra_data.extend(credentials);
        Some(work)
    }

    /// What is to be done, once it is read; `None` when it is over before, which is recorded.
    pub(super) async fn begin_with<T>(
        &self,
        lease: Lease,
        held: &Arc<Held>,
        read: impl Future<Output = Result<T, AttemptOutcome>>,
    ) -> Option<T> {
        let outcome = tokio::select! {
            read = read => match read {
                Ok(work) => return Some(work),
                Err(outcome) => outcome,
            },
            cause = held.stopped() => match cause {
                StopCause::Cancelled => AttemptOutcome::Cancelled,
                StopCause::Stale => {
                    self.let_go(lease);
                    return None;
                }
            },
            () = self.draining.cancelled() => released("its instance drains and its input could not be read yet"),
        };
        self.give_up(lease, outcome).await;
        None
    }

    /// What to run, and the credentials that it takes.
    async fn read_work(&self, job: &JobRecord) -> Result<(ComfyWork, Map<String, Value>), AttemptOutcome> {
        let (body, credentials) = self.read_input(job).await?;
        let parsed = beside(body.len(), move || serde_json::from_slice(&body)).await;
        let work = parsed.map_err(|error| {
            tracing::error!(job.id = %job.id, %error, "a job's stored input is not what was stored");
            unreadable()
        })?;
        Ok((work, credentials))
    }

    /// The input as it was stored, and the credentials beside it; patiently.
    pub(super) async fn read_input(
        &self,
        job: &JobRecord,
    ) -> Result<(Bytes, Map<String, Value>), AttemptOutcome> {
        let deadline = tokio::time::Instant::now() + READ_PATIENCE;
        loop {
            let read = tokio::try_join!(
                self.service.read_payload(&job.input),
                self.service.credentials_of(job)
            );
            let error = match read {
                Ok((Some(body), credentials)) => return Ok((body, credentials)),
                Ok((None, _)) => {
                    tracing::error!(job.id = %job.id, "the input blob of a job is gone");
                    return Err(unreadable());
                }
                Err(error) => error,
            };
            tracing::warn!(job.id = %job.id, error = ?error, "a claimed job's input cannot be read");
            match error {
                Error::Unavailable { .. } if tokio::time::Instant::now() < deadline => {
                    tokio::time::sleep(READ_AGAIN).await;
                }
                Error::Unavailable { reason, .. } => return Err(released(&reason)),
                _ => return Err(unreadable()),
            }
        }
    }

    /// A claimed job that cannot even be begun ends or goes back, and the slot goes on.
    async fn give_up(&self, lease: Lease, outcome: AttemptOutcome) {
        if let Err(error) = self.service.store.finish(lease, Finish::empty(outcome)).await {
            tracing::error!(job.id = %lease.job, error = ?error, "a job could not be given back; its lease will run out");
        }
        self.let_go(lease);
    }
}

/// Whether the job may run once more, on a fresh instance, if this attempt runs out of the device's memory.
fn may_restart(job: &JobRecord) -> bool {
    job.out_of_memory + 1 < MAX_OUT_OF_MEMORY
}

fn released(reason: &str) -> AttemptOutcome {
    AttemptOutcome::Released {
        reason: reason.to_owned(),
    }
}

pub(super) fn unreadable() -> AttemptOutcome {
    AttemptOutcome::Failed(Failure::new(FailureCode::Internal, "its input cannot be read"))
}
