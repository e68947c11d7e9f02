//! Looking at jobs and ending them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use darkroom_core::{EndpointName, JobId, JobState, TenantId, endpoint::Kind, event::Event};
pub use darkroom_runner::link::ComfyWork;
pub use darkroom_store::files::Usage;
pub use darkroom_store::jobs::{
    AttemptRecord, Cancelled, Deleted, ExternalId, JobFilter, JobMeta, JobRecord, OnDuplicate, Page,
};
use serde_json::Value;

use super::{Error, Service};
use crate::beside::beside;

impl Service {
    /// One job of a tenant; `tenant: None` is an operator.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for another tenant's, and for one whose time to be deleted has come.
    pub async fn job(&self, tenant: Option<&TenantId>, job: JobId) -> Result<JobRecord, Error> {
        let now = self.now();
        let found = self.store.job(tenant, job).await?;
        found
            .filter(|record| record.delete_at.is_none_or(|at| now < at))
            .ok_or_else(|| Error::not_found("job", job))
    }

    /// From now on a job's own time is over after `rest`, unless it is sooner: it waits and runs until then (a run on a
    /// ComfyUI that has begun is left to end), and is deleted.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn shorten_life(
        &self,
        tenant: Option<&TenantId>,
        job: JobId,
        rest: Duration,
    ) -> Result<(), Error> {
        let shortened = self.store.shorten_life(tenant, job, rest).await?;
        shortened.ok_or_else(|| Error::not_found("job", job))?;
        self.shorten_on_worker(job, rest);
        Ok(())
    }

    /// The job that a client named; `None` when it named none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn job_named(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        dialect: &str,
        id: &str,
    ) -> Result<Option<JobRecord>, Error> {
        match self
            .store
            .job_by_external_id(tenant, Some(endpoint), dialect, id)
            .await?
        {
            Some(job) => Ok(self.store.job(Some(tenant), job).await?),
            None => Ok(None),
        }
    }

    /// How many jobs stand before each of those that wait, in their lines; the others are left out.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn positions(&self, jobs: &[JobRecord]) -> Result<BTreeMap<JobId, u64>, Error> {
        let waiting = jobs.iter().filter(|job| job.state == JobState::Queued);
        let waiting: Vec<JobId> = waiting.map(|job| job.id).collect();
        match waiting.is_empty() {
            true => Ok(BTreeMap::new()),
            false => Ok(self.store.positions(&waiting).await?),
        }
    }

    /// A page of jobs.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn jobs(&self, filter: JobFilter, page: Page) -> Result<Vec<JobRecord>, Error> {
        Ok(self.store.jobs(filter, page).await?)
    }

    /// Durable events after number `after`, all that are kept.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn events(&self, job: JobId, after: u64) -> Result<Vec<Event>, Error> {
        Ok(self.store.events(job, after, u32::MAX).await?)
    }

    /// The last progress message of a running job, as ComfyUI sent it.
    pub fn last_progress(&self, job: JobId) -> Option<Arc<str>> {
        self.hub.last_progress(job)
    }

    /// The graph of a job, as it was accepted.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a worker's job, which has none; when its input cannot be read.
    pub async fn graph_of(&self, job: &JobRecord) -> Result<Value, Error> {
        if self
            .endpoint(&job.endpoint)
            .is_ok_and(|endpoint| endpoint.kind == Kind::Worker)
        {
            return Err(Error::not_found("graph of job", job.id));
        }
        let body = self
            .read_payload(&job.input)
            .await?
            .ok_or_else(|| Error::not_found("input of job", job.id))?;
        let body_bytes = body.len();
        let parse = move || serde_json::from_slice::<ComfyWork>(&body);
        match beside(body_bytes, parse).await {
            Ok(work) => Ok(work.graph),
            Err(error) => Err(Error::Internal(anyhow::Error::new(error))),
        }
    }

    /// An opaque id for one reader's session.
    pub fn new_session_id(&self) -> String {
        self.ids.uuid_v4().simple().to_string()
    }

    /// A job's attempts, oldest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn attempts(&self, job: JobId) -> Result<Vec<AttemptRecord>, Error> {
        Ok(self.store.attempts(job).await?)
    }

    /// Ends a job: at once while it waits, through its attempt while it runs.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn cancel(&self, tenant: Option<&TenantId>, job: JobId) -> Result<Cancelled, Error> {
        let cancelled = self
            .store
            .cancel(tenant, job)
            .await?
            .ok_or_else(|| Error::not_found("job", job))?;
        if cancelled == Cancelled::Requested {
            self.hub.wake_attempt(job);
            // A worker's job ends with the wish, whatever its worker does.
            if self.cancel_on_worker(job).await {
                return Ok(Cancelled::Now);
            }
            self.end_worker_attempt(job).await?;
        }
        Ok(cancelled)
    }

    /// Deletes a finished job with all its files: what it was sent, what it made, and what its worker kept here for it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] while it has not ended; [`Error::Unavailable`] while its end is being told.
    pub async fn delete_job(&self, tenant: Option<&TenantId>, job: JobId) -> Result<(), Error> {
        let record = self.job(tenant, job).await?;
        match self.store.delete_job(tenant, job).await? {
            None => Err(Error::not_found("job", job)),
            Some(Deleted::NotEnded) => Err(Error::Invalid(format!(
                "job {job} has not ended: cancel it first"
            ))),
            Some(Deleted::StillTold) => Err(Error::Unavailable {
                reason: format!("the end of job {job} is still being told: try again"),
                retry_after: std::time::Duration::from_secs(5),
            }),
            Some(Deleted::Now) => self.remove_objects_of(&record.endpoint, job).await,
        }
    }

    /// What files take, by tenant, endpoint and age.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn usage(&self) -> Result<Vec<Usage>, Error> {
        Ok(self.store.usage(self.clock.now()).await?)
    }

    /// Queues a finished job again, as a new attempt.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] while it has not ended, or when its credentials went with its end, or its own
    /// time is over.
    pub async fn retry(&self, tenant: Option<&TenantId>, job: JobId) -> Result<(), Error> {
        let record = self.job(tenant, job).await?;
        if record.state.is_final() && record.meta.has_credentials {
            return Err(Error::Invalid(format!(
                "the credentials that job {job} was sent with were wiped when it ended: submit it again"
            )));
        }
        if record.lives_until.is_some_and(|over| over <= self.now()) {
            return Err(Error::Invalid(format!("the time of job {job} to live is over")));
        }
        match self.store.retry(tenant, job).await? {
            None => Err(Error::not_found("job", job)),
            Some(false) => Err(Error::Invalid(format!("job {job} has not ended"))),
            Some(true) => {
                // What cancelled the run before this one does not cancel the next.
                self.pull.cancelled_early().retain(|&cancelled| cancelled != job);
                Ok(())
            }
        }
    }
}
