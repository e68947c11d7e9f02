//! The verbs of [`Jobs`] on SQLite: each is one operation on the writer, or one read.

mod claim;
pub(super) mod end;
mod events;
mod history;
mod lease;
mod life;
mod line;
mod list;
pub(super) mod read;
mod stream;
pub(super) mod submit;
mod sweep;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use darkroom_core::{
    EndpointName, JobId, JobState, NodeName, Payload, TenantId, Timestamp,
    attempt::{Lease, RunningOn, Stale},
    event::{Event, NewEvent},
    scheduler::Needs,
};

pub(super) use self::{end::SWEEP_ROWS, life::micros};
use super::{
    SqliteStore,
    queue::{Lane, Wait},
};
use crate::{
    Error, Jobs,
    jobs::{
        AttemptRecord, Cancelled, Claim, Claimed, Deleted, Finish, HistoryFilter, HistoryPage, JobFilter,
        JobRecord, Moved, NamedJob, NewJob, Page, Place, QueueCounters, Renewed, Submitted, Swept, Told,
        Unstreamed,
    },
};

/// About how much a small operation writes.
const SMALL: usize = 512;

#[async_trait]
impl Jobs for SqliteStore {
    async fn submit(&self, job: NewJob) -> Result<Submitted, Error> {
        let bytes = submit::bytes(&job);
        self.write(Lane::Submit, Wait::ForDisk, bytes, move |tx| {
            submit::submit(tx, &job)
        })
        .await
    }

    async fn claim(&self, claim: Claim) -> Result<Option<Claimed>, Error> {
        self.riding(2048, move |tx| claim::claim(tx, &claim)).await
    }

    async fn start(&self, lease: Lease, on: RunningOn) -> Result<Result<(), Stale>, Error> {
        self.riding(SMALL, move |tx| lease::start(tx, lease, &on)).await
    }

    async fn collecting(&self, lease: Lease) -> Result<Result<(), Stale>, Error> {
        self.riding(SMALL, move |tx| lease::collecting(tx, lease)).await
    }

    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<Result<Renewed, Stale>, Error> {
        self.riding(SMALL, move |tx| lease::renew(tx, lease, ttl)).await
    }

    async fn adopt(&self, lease: Lease, owner: NodeName, ttl: Duration) -> Result<Result<(), Stale>, Error> {
        self.durably(SMALL, move |tx| lease::adopt(tx, lease, &owner, ttl))
            .await
    }

    async fn append_events(&self, lease: Lease, events: Vec<NewEvent>) -> Result<Result<u64, Stale>, Error> {
        let bytes = events.iter().map(|event| event.data.len() + 64).sum();
        self.riding(bytes, move |tx| lease::append_events(tx, lease, &events))
            .await
    }

    async fn append_told(&self, lease: Lease, told: Told) -> Result<Result<u64, Stale>, Error> {
        let bytes = told.events.iter().map(|event| event.data.len() + 64).sum();
        self.riding(bytes, move |tx| lease::append_told(tx, lease, &told))
            .await
    }

    async fn append_chunks(&self, lease: Lease, chunks: Vec<Payload>) -> Result<Result<u64, Stale>, Error> {
        let bytes = lease::chunk_bytes(&chunks);
        self.durably(bytes, move |tx| lease::append_chunks(tx, lease, &chunks))
            .await
    }

    async fn finish(&self, lease: Lease, finish: Finish) -> Result<Result<JobState, Stale>, Error> {
        let bytes = lease::finish_bytes(&finish);
        self.durably(bytes, move |tx| lease::finish(tx, lease, &finish))
            .await
    }

    async fn cancel(&self, tenant: Option<&TenantId>, job: JobId) -> Result<Option<Cancelled>, Error> {
        let tenant = tenant.cloned();
        self.durably(SMALL, move |tx| end::cancel(tx, tenant.as_ref(), job))
            .await
    }

    async fn retry(&self, tenant: Option<&TenantId>, job: JobId) -> Result<Option<bool>, Error> {
        let tenant = tenant.cloned();
        self.durably(SMALL, move |tx| end::retry(tx, tenant.as_ref(), job))
            .await
    }

    async fn shorten_life(
        &self,
        tenant: Option<&TenantId>,
        job: JobId,
        rest: Duration,
    ) -> Result<Option<()>, Error> {
        let tenant = tenant.cloned();
        self.durably(SMALL, move |tx| end::shorten_life(tx, tenant.as_ref(), job, rest))
            .await
    }

    async fn job(&self, tenant: Option<&TenantId>, job: JobId) -> Result<Option<JobRecord>, Error> {
        let tenant = tenant.cloned();
        self.readers
            .run(move |conn| read::job(conn, tenant.as_ref(), job))
            .await
    }

    async fn sealed(&self, job: JobId) -> Result<Option<Vec<u8>>, Error> {
        self.readers.run(move |conn| read::sealed(conn, job)).await
    }

    async fn job_by_external_id(
        &self,
        tenant: &TenantId,
        endpoint: Option<&EndpointName>,
        dialect: &str,
        id: &str,
    ) -> Result<Option<JobId>, Error> {
        let (tenant, endpoint) = (tenant.clone(), endpoint.cloned());
        let (dialect, id) = (dialect.to_owned(), id.to_owned());
        self.readers
            .run(move |conn| read::by_external_id(conn, &tenant, endpoint.as_ref(), &dialect, &id))
            .await
    }

    async fn jobs(&self, filter: JobFilter, page: Page) -> Result<Vec<JobRecord>, Error> {
        self.readers
            .run(move |conn| list::jobs(conn, &filter, &page))
            .await
    }

    async fn waiting(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        limit: u32,
    ) -> Result<Vec<JobId>, Error> {
        let (tenant, endpoint) = (tenant.clone(), endpoint.clone());
        self.readers
            .run(move |conn| list::waiting(conn, &tenant, &endpoint, limit))
            .await
    }

    async fn records(&self, jobs: Vec<JobId>) -> Result<Vec<JobRecord>, Error> {
        self.readers.run(move |conn| list::records(conn, &jobs)).await
    }

    async fn history_names(&self, filter: HistoryFilter, page: HistoryPage) -> Result<Vec<NamedJob>, Error> {
        self.readers
            .run(move |conn| history::names(conn, &filter, page))
            .await
    }

    async fn history(&self, filter: HistoryFilter, page: HistoryPage) -> Result<Vec<JobRecord>, Error> {
        self.readers
            .run(move |conn| history::page(conn, &filter, page))
            .await
    }

    async fn history_len(&self, filter: HistoryFilter) -> Result<u64, Error> {
        self.readers.run(move |conn| history::length(conn, &filter)).await
    }

    async fn forget(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        jobs: Vec<JobId>,
    ) -> Result<u64, Error> {
        let (tenant, endpoint) = (tenant.clone(), endpoint.clone());
        self.durably(SMALL, move |tx| history::forget(tx, &tenant, &endpoint, &jobs))
            .await
    }

    async fn forget_all(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        ended_until: Timestamp,
    ) -> Result<Swept, Error> {
        let (tenant, endpoint) = (tenant.clone(), endpoint.clone());
        self.durably(SMALL, move |tx| {
            history::forget_all(tx, &tenant, &endpoint, ended_until)
        })
        .await
    }

    async fn is_remembered(&self, job: JobId) -> Result<bool, Error> {
        self.readers
            .run(move |conn| history::is_remembered(conn, job))
            .await
    }

    async fn cancel_waiting(&self, tenant: Option<&TenantId>, job: JobId) -> Result<bool, Error> {
        let tenant = tenant.cloned();
        self.durably(SMALL, move |tx| end::cancel_waiting(tx, tenant.as_ref(), job))
            .await
    }

    async fn positions(&self, jobs: &[JobId]) -> Result<BTreeMap<JobId, u64>, Error> {
        let jobs = jobs.to_vec();
        self.readers.run(move |conn| line::positions(conn, &jobs)).await
    }

    async fn pause(&self, endpoint: &EndpointName) -> Result<bool, Error> {
        let endpoint = endpoint.clone();
        self.durably(SMALL, move |tx| line::pause(tx, &endpoint)).await
    }

    async fn resume(&self, endpoint: &EndpointName) -> Result<bool, Error> {
        let endpoint = endpoint.clone();
        self.durably(SMALL, move |tx| line::resume(tx, &endpoint)).await
    }

    async fn move_job(
        &self,
        tenant: Option<&TenantId>,
        job: JobId,
        place: Place,
    ) -> Result<Option<Moved>, Error> {
        let tenant = tenant.cloned();
        self.durably(SMALL, move |tx| line::move_job(tx, tenant.as_ref(), job, place))
            .await
    }

    async fn clear(
        &self,
        endpoint: &EndpointName,
        tenant: Option<&TenantId>,
        accepted_before: Timestamp,
    ) -> Result<Swept, Error> {
        let (endpoint, tenant) = (endpoint.clone(), tenant.cloned());
        self.durably(SMALL, move |tx| {
            line::clear(tx, &endpoint, tenant.as_ref(), accepted_before)
        })
        .await
    }

    async fn at_quota(
        &self,
        endpoint: &EndpointName,
        per_tenant: u32,
    ) -> Result<BTreeMap<TenantId, u64>, Error> {
        let endpoint = endpoint.clone();
        self.readers
            .run(move |conn| line::at_quota(conn, &endpoint, per_tenant))
            .await
    }

    async fn over_quota(&self, endpoint: &EndpointName, per_tenant: u32) -> Result<u64, Error> {
        let endpoint = endpoint.clone();
        self.readers
            .run(move |conn| line::over_quota(conn, &endpoint, per_tenant))
            .await
    }

    async fn waiting_needs(&self, endpoint: &EndpointName) -> Result<Vec<(Needs, u64)>, Error> {
        let endpoint = endpoint.clone();
        self.readers
            .run(move |conn| line::waiting_needs(conn, &endpoint))
            .await
    }

    async fn recent_runs(&self, endpoint: &EndpointName, limit: u32) -> Result<Vec<Duration>, Error> {
        let endpoint = endpoint.clone();
        let micros = self
            .readers
            .run(move |conn| line::recent_runs(conn, &endpoint, limit))
            .await?;
        Ok(micros.into_iter().map(Duration::from_micros).collect())
    }

    async fn needs(&self, job: JobId) -> Result<Needs, Error> {
        self.readers.run(move |conn| read::needs_of(conn, job)).await
    }

    async fn events(&self, job: JobId, after: u64, limit: u32) -> Result<Vec<Event>, Error> {
        self.readers
            .run(move |conn| read::events(conn, job, after, limit))
            .await
    }

    async fn unstreamed(&self, job: JobId, limit: u32) -> Result<Unstreamed, Error> {
        self.readers
            .run(move |conn| stream::unstreamed(conn, job, limit))
            .await
    }

    async fn mark_streamed(&self, job: JobId, after: u64, upto: u64) -> Result<bool, Error> {
        self.riding(SMALL, move |tx| stream::mark(tx, job, after, upto))
            .await
    }

    async fn attempts(&self, job: JobId) -> Result<Vec<AttemptRecord>, Error> {
        self.readers.run(move |conn| read::attempts(conn, job)).await
    }

    async fn open_attempts(&self, owner: Option<&NodeName>) -> Result<Vec<AttemptRecord>, Error> {
        let owner = owner.cloned();
        self.readers
            .run(move |conn| read::open_attempts(conn, owner.as_ref()))
            .await
    }

    async fn queued(&self, endpoint: &EndpointName) -> Result<u64, Error> {
        let endpoint = endpoint.clone();
        self.readers.run(move |conn| read::queued(conn, &endpoint)).await
    }

    async fn counters(&self) -> Result<BTreeMap<EndpointName, QueueCounters>, Error> {
        self.readers.run(read::counters).await
    }

    /// Looks before it writes: it is asked for at every plan, mostly in vain, and whatever shared its batch would wait
    /// for the disk.
    async fn expire(&self) -> Result<Swept, Error> {
        let now = self.clock.now();
        if !self
            .readers
            .run(move |conn| read::is_anything_due(conn, now))
            .await?
        {
            return Ok(Swept::default());
        }
        self.write(Lane::Sweep, Wait::ForDisk, SMALL, end::expire).await
    }

    async fn extend_leases(&self, gap: Duration) -> Result<(), Error> {
        self.riding(SMALL, move |tx| end::move_leases(tx, gap, true))
            .await
    }

    async fn shorten_leases(&self, gap: Duration) -> Result<(), Error> {
        self.riding(SMALL, move |tx| end::move_leases(tx, gap, false))
            .await
    }

    async fn sweep_finished(&self, endpoint: &EndpointName, retention: Duration) -> Result<Swept, Error> {
        let endpoint = endpoint.clone();
        self.write(Lane::Sweep, Wait::ForDisk, SMALL, move |tx| {
            sweep::sweep_finished(tx, &endpoint, retention)
        })
        .await
    }

    async fn delete_job(&self, tenant: Option<&TenantId>, job: JobId) -> Result<Option<Deleted>, Error> {
        let tenant = tenant.cloned();
        self.durably(SMALL, move |tx| sweep::delete_job(tx, tenant.as_ref(), job))
            .await
    }

    async fn sweep_expired(&self) -> Result<Swept, Error> {
        self.write(Lane::Sweep, Wait::ForDisk, SMALL, sweep::sweep_expired)
            .await
    }
}
