//! What callers of these protocols ask beside a job itself: who works on it, how an endpoint is, and the end of all that
//! wait.

use std::{collections::BTreeSet, time::Duration};

use darkroom_core::{EndpointName, InstanceState, JobId, JobState, TenantId};
use darkroom_store::jobs::{Cancelled, Finish, JobFilter, JobRecord, Page};

use crate::service::{Error, Service};

/// How long a cancel waits for a run to end: the SDK's own patience is three seconds.
const CANCEL_PATIENCE: Duration = Duration::from_secs(2);
/// Jobs that are cancelled between two looks at the queue.
const PURGE_PAGE: u32 = 200;

/// How an endpoint is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    /// Its jobs.
    pub jobs: JobNumbers,
    /// Its instances.
    pub workers: WorkerNumbers,
}

/// Jobs of an endpoint by state; those that ended since there are numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobNumbers {
    /// Succeeded.
    pub completed: u64,
    /// Failed, or ran out of time.
    pub failed: u64,
    /// Held by an instance.
    pub in_progress: u64,
    /// Waiting.
    pub in_queue: u64,
    /// Queued again by an explicit wish.
    pub retried: u64,
}

/// Instances of an endpoint by what they do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerNumbers {
    /// Ready and without work.
    pub idle: u64,
    /// Coming up.
    pub initializing: u64,
    /// At work.
    pub running: u64,
    /// On their way out.
    pub throttled: u64,
    /// Not usable.
    pub unhealthy: u64,
}

impl Service {
    /// Who worked on a job last; `None` when nobody did.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn worker_of(&self, job: &JobRecord) -> Result<Option<String>, Error> {
        match job.last_instance {
            Some(instance) => self.worker_name(instance).await.map(Some),
            None => Ok(None),
        }
    }

    /// How an endpoint is.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn endpoint_health(&self, endpoint: &EndpointName) -> Result<Health, Error> {
        let counters = self.store.counters().await?.remove(endpoint).unwrap_or_default();
        let jobs = JobNumbers {
            completed: counters.completed,
            failed: counters.failed,
            in_progress: counters.running + counters.collecting,
            in_queue: counters.queued,
            retried: counters.retried,
        };
        Ok(Health {
            jobs,
            workers: self.worker_numbers(endpoint).await?,
        })
    }

    async fn worker_numbers(&self, endpoint: &EndpointName) -> Result<WorkerNumbers, Error> {
        let open = self.store.open_attempts(None).await?;
        let at_work: BTreeSet<_> = open
            .iter()
            .filter(|a| a.endpoint == *endpoint)
            .map(|a| a.instance)
            .collect();
        let mut numbers = WorkerNumbers::default();
        let mut known = BTreeSet::new();
        for instance in self
            .store
            .instances(false)
            .await?
            .iter()
            .filter(|i| i.endpoint == *endpoint)
        {
            known.insert(instance.id);
            match instance.state {
                InstanceState::Starting => numbers.initializing += 1,
                InstanceState::Ready if at_work.contains(&instance.id) => numbers.running += 1,
                InstanceState::Ready => numbers.idle += 1,
                InstanceState::Draining | InstanceState::Stopping => numbers.throttled += 1,
                InstanceState::Failed => numbers.unhealthy += 1,
                InstanceState::Stopped => {}
            }
        }
        numbers.running += at_work.difference(&known).count() as u64;
        Ok(numbers)
    }

    /// Ends a job, and waits a moment for its end where it runs; answers with the job as it is then.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn cancel_and_wait(&self, tenant: Option<&TenantId>, job: JobId) -> Result<JobRecord, Error> {
        match self.cancel(tenant, job).await? {
            Cancelled::Now | Cancelled::AlreadyFinal(_) => {}
            Cancelled::Requested => {
                if let Ok(ended) = tokio::time::timeout(CANCEL_PATIENCE, self.wait_final(job)).await {
                    return ended;
                }
            }
        }
        self.job(tenant, job).await
    }

    /// Ends the attempt of a worker's job at once: the handler cannot be asked to stop everywhere, and what it brings later
    /// is refused by the fence (`protocols/async-endpoints.md` §5.9).
    pub(in crate::service) async fn end_worker_attempt(&self, job: JobId) -> Result<(), Error> {
        let Some(record) = self.store.job(None, job).await? else {
            return Ok(());
        };
        if !self
            .endpoint(&record.endpoint)
            .is_ok_and(|endpoint| endpoint.has_pull_workers())
        {
            return Ok(());
        }
        let attempts = self.store.attempts(job).await?;
        for attempt in attempts.iter().filter(|attempt| !attempt.state.is_final()) {
            let lease = darkroom_core::attempt::Lease {
                job,
                fence: attempt.fence,
            };
            let cancelled = Finish::empty(darkroom_core::AttemptOutcome::Cancelled);
            // A stale lease means that it ended by itself meanwhile.
            let _ = self.store.finish(lease, cancelled).await?;
        }
        Ok(())
    }

    /// Cancels every waiting job of an endpoint, of one tenant or of all; says how many.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn purge_queue(
        &self,
        tenant: Option<&TenantId>,
        endpoint: &EndpointName,
    ) -> Result<u64, Error> {
        let mut removed = 0;
        let mut after = None;
        loop {
            let filter = JobFilter {
                tenant: tenant.cloned(),
                endpoint: Some(endpoint.clone()),
                states: vec![JobState::Queued],
                oldest_first: true,
                ..JobFilter::default()
            };
            let limit = PURGE_PAGE;
            let jobs = self.store.jobs(filter, Page { limit, after }).await?;
            let cancels = jobs.iter().map(|job| self.store.cancel_waiting(tenant, job.id));
            for cancelled in futures::future::join_all(cancels).await {
                removed += u64::from(cancelled?);
            }
            match jobs.last() {
                Some(last) if jobs.len() == limit as usize => after = Some(last.id),
                _ => return Ok(removed),
            }
        }
    }
}
