//! What a tenant sees of an endpoint's jobs as a whole: those that have not ended, in the order in which they are served,
//! and its history of those that have.

use darkroom_core::{EndpointName, JobId, JobState, TenantId};
pub use darkroom_store::jobs::{HistoryFilter, HistoryOrder, HistoryPage};
use futures::{StreamExt, TryStreamExt, stream};

use super::{
    Error, Service,
    jobs::{JobFilter, JobRecord, Page},
};

/// Jobs that have not ended which are shown at most; of more, those accepted first.
const OPEN_SHOWN: u32 = 1000;
/// Cancels on their way to the store at the same time.
const AT_ONCE: usize = 64;

impl Service {
    /// The tenant's jobs of the endpoint in these states, of which none is final: running ones by when they began, waiting
    /// ones in the order in which they are served. At most 1000.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open_jobs(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        states: &[JobState],
    ) -> Result<Vec<JobRecord>, Error> {
        let filter = JobFilter {
            tenant: Some(tenant.clone()),
            endpoint: Some(endpoint.clone()),
            states: states.to_vec(),
            oldest_first: true,
            ..JobFilter::default()
        };
        let page = Page {
            limit: OPEN_SHOWN,
            after: None,
        };
        let mut jobs = self.store.jobs(filter, page).await?;
        jobs.sort_by_key(|job| match job.state {
            JobState::Running => (false, job.started_at, 0, 0, job.id),
            _ => (true, None, -i64::from(job.priority), job.place, job.id),
        });
        Ok(jobs)
    }

    /// A piece of a tenant's history.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn history(&self, filter: HistoryFilter, page: HistoryPage) -> Result<Vec<JobRecord>, Error> {
        Ok(self.store.history(filter, page).await?)
    }

    /// How long that history is in all.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn history_len(&self, filter: HistoryFilter) -> Result<u64, Error> {
        Ok(self.store.history_len(filter).await?)
    }

    /// Whether an ended job still stands in its tenant's history.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_remembered(&self, job: JobId) -> Result<bool, Error> {
        Ok(self.store.is_remembered(job).await?)
    }

    /// Takes ended jobs out of the tenant's history; others' and unknown ones are left alone.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        jobs: Vec<JobId>,
    ) -> Result<(), Error> {
        if !jobs.is_empty() {
            self.store.forget(tenant, endpoint, jobs).await?;
        }
        Ok(())
    }

    /// Takes all that ended until now out of the tenant's history.
    ///
    /// # Errors
    /// When the store fails; what was taken out until then stays so.
    pub async fn forget_all(&self, tenant: &TenantId, endpoint: &EndpointName) -> Result<(), Error> {
        let until = self.clock.now();
        while self.store.forget_all(tenant, endpoint, until).await?.more {}
        Ok(())
    }

    /// Cancels those of the jobs that wait; what runs goes on.
    ///
    /// # Errors
    /// When the store fails; what was cancelled until then stays so.
    pub async fn cancel_waiting(&self, tenant: &TenantId, jobs: Vec<JobId>) -> Result<(), Error> {
        let cancels = stream::iter(jobs).map(|job| self.store.cancel_waiting(Some(tenant), job));
        let _: Vec<bool> = cancels.buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(())
    }

    /// Cancels all jobs of the tenant that wait at the endpoint now.
    ///
    /// # Errors
    /// As [`Service::cancel_waiting`].
    pub async fn clear_waiting(&self, tenant: &TenantId, endpoint: &EndpointName) -> Result<(), Error> {
        loop {
            let waiting = self.open_jobs(tenant, endpoint, &[JobState::Queued]).await?;
            let more = waiting.len() >= OPEN_SHOWN as usize;
            self.cancel_waiting(tenant, waiting.iter().map(|job| job.id).collect())
                .await?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Asks for the end of those of the jobs that run; what waits goes on waiting.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn interrupt(&self, tenant: &TenantId, jobs: &[JobRecord]) -> Result<(), Error> {
        for job in jobs.iter().filter(|job| job.state == JobState::Running) {
            match self.cancel(Some(tenant), job.id).await {
                Ok(_) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
