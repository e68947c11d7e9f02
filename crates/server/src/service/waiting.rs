//! Why a job waits, from the same counters that the planner decides on.

use std::sync::Arc;

use async_trait::async_trait;
use darkroom_core::{
    JobState,
    scheduler::{Counters, Policy, WaitReason, why_waiting},
};

use super::{Error, Service, jobs::JobRecord};

/// Where the service gets the planner's view from; the control loop gives it.
#[async_trait]
pub trait PlannerView: Send + Sync {
    /// Counters and policy as of now.
    async fn view(&self) -> anyhow::Result<(Counters, Policy)>;
    /// The last bytes of what an instance printed.
    async fn logs(&self, handle: &str, tail_bytes: u64) -> anyhow::Result<bytes::Bytes>;
}

/// Why a job waits, and how many stand before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Why.
    pub reason: WaitReason,
    /// Jobs of the endpoint before it, in plain order.
    pub position: u64,
}

impl Service {
    /// Gives the service the planner's eyes; once, at the start.
    pub fn set_planner(&self, planner: Arc<dyn PlannerView>) {
        // A second control loop in one process would be a defect; the first one stays.
        let _ = self.planner.set(planner);
    }

    /// Why a job waits; `None` when it does not.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn why_waiting(&self, job: &JobRecord) -> Result<Option<Waiting>, Error> {
        let waiting = self.why_each_waits(std::slice::from_ref(job)).await?;
        Ok(waiting.into_iter().next().flatten())
    }

    /// The same for each job of a page, all from one look of the planner.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn why_each_waits(&self, jobs: &[JobRecord]) -> Result<Vec<Option<Waiting>>, Error> {
        let queued = |job: &JobRecord| job.state == JobState::Queued;
        let Some(planner) = self.planner.get().filter(|_| jobs.iter().any(queued)) else {
            return Ok(jobs.iter().map(|_| None).collect());
        };
        let (counters, policy) = planner.view().await.map_err(Error::Internal)?;
        let now = self.clock.now();
        let mut all = Vec::with_capacity(jobs.len());
        for job in jobs {
            let position = match queued(job) {
                true => self.store.position(job.id).await?,
                false => None,
            };
            all.push(position.map(|position| Waiting {
                reason: why_waiting(&job.endpoint, position, &counters, &policy, now),
                position,
            }));
        }
        Ok(all)
    }

    /// The last bytes of what an instance printed.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it never got as far as printing, or its files are gone.
    pub async fn instance_logs(
        &self,
        id: darkroom_core::InstanceId,
        tail_bytes: u64,
    ) -> Result<bytes::Bytes, Error> {
        let record = self.instance(id).await?;
        let missing = || Error::not_found("log of instance", id);
        let (Some(planner), Some(handle)) = (self.planner.get(), record.handle.as_deref()) else {
            return Err(missing());
        };
        planner.logs(handle, tail_bytes).await.map_err(|error| {
            tracing::debug!(%error, "an instance's log cannot be read");
            missing()
        })
    }
}
