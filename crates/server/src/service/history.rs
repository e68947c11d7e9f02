//! What a tenant sees of an endpoint's jobs as a whole: those that have not ended, in the order in which they are served,
//! and its history of those that have.

use darkroom_core::{EndpointName, JobId, JobState, TenantId};
pub use darkroom_store::jobs::{HistoryFilter, HistoryOrder, HistoryPage, NamedJob};
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::{
    Error, Service,
    jobs::{JobFilter, JobRecord, Page},
};

/// Jobs that have not ended which are shown at most of either kind: running ones, and waiting ones that are served first.
const OPEN_SHOWN: u32 = 1000;
/// Records read at a time, each with up to 32 KiB of request and of result.
const READ_AT_ONCE: usize = 32;
/// Cancels on their way to the store at the same time.
const AT_ONCE: usize = 64;

/// Of one kind.
const OPEN_PAGE: Page = Page {
    limit: OPEN_SHOWN,
    after: None,
};

fn open_of(tenant: &TenantId, endpoint: &EndpointName) -> JobFilter {
    JobFilter {
        tenant: Some(tenant.clone()),
        endpoint: Some(endpoint.clone()),
        oldest_first: true,
        ..JobFilter::default()
    }
}

impl Service {
    /// The tenant's jobs of the endpoint that run, those that began first first; at most 1000.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn running_jobs(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
    ) -> Result<Vec<JobRecord>, Error> {
        let filter = JobFilter {
            states: vec![JobState::Running],
            ..open_of(tenant, endpoint)
        };
        let mut jobs = self.store.jobs(filter, OPEN_PAGE).await?;
        jobs.sort_by_key(|job| (job.started_at, job.id));
        Ok(jobs)
    }

    /// The tenant's jobs of the endpoint that wait, in the order in which they are served; at most 1000.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn waiting_jobs(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
    ) -> Result<Vec<JobId>, Error> {
        Ok(self.store.waiting(tenant, endpoint, OPEN_SHOWN).await?)
    }

    /// Both, as far as their states are among these, of which none is final.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open_jobs(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        states: &[JobState],
    ) -> Result<Vec<JobRecord>, Error> {
        let mut jobs = match states.contains(&JobState::Running) {
            true => self.running_jobs(tenant, endpoint).await?,
            false => Vec::new(),
        };
        if states.contains(&JobState::Queued) {
            let waiting = self.waiting_jobs(tenant, endpoint).await?;
            jobs.extend(self.store.records(waiting).await?);
        }
        Ok(jobs)
    }

    /// The tenant's jobs of the endpoint that have not ended and were submitted with this option of their dialect; at most
    /// 1000.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open_jobs_with(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        option: (&'static str, String),
    ) -> Result<Vec<JobRecord>, Error> {
        let filter = JobFilter {
            states: vec![JobState::Running, JobState::Queued],
            option: Some(option),
            ..open_of(tenant, endpoint)
        };
        Ok(self.store.jobs(filter, OPEN_PAGE).await?)
    }

    /// These jobs, read a few at a time as they are asked for; those that are gone are left out.
    pub fn records(&self, jobs: Vec<JobId>) -> impl Stream<Item = Result<JobRecord, Error>> + use<> {
        let store = self.store.clone();
        let pieces: Vec<Vec<JobId>> = jobs.chunks(READ_AT_ONCE).map(<[JobId]>::to_vec).collect();
        stream::iter(pieces)
            .then(move |piece| {
                let store = store.clone();
                async move { store.records(piece).await }
            })
            .map_ok(|records| stream::iter(records).map(Ok::<_, darkroom_store::Error>))
            .try_flatten()
            .map_err(Error::from)
    }

    /// Which jobs a piece of a tenant's history holds.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn history_names(
        &self,
        filter: HistoryFilter,
        page: HistoryPage,
    ) -> Result<Vec<NamedJob>, Error> {
        Ok(self.store.history_names(filter, page).await?)
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
            let waiting = self.waiting_jobs(tenant, endpoint).await?;
            let more = waiting.len() >= OPEN_SHOWN as usize;
            self.cancel_waiting(tenant, waiting).await?;
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
