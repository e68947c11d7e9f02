//! What a link needs beyond the port when its slot is on another machine: attempts come one at a time, and a slot that lost
//! its connection, or whose server restarted, goes on with what it has.

use std::time::Duration;

use darkroom_core::attempt::Lease;
use darkroom_runner::link::{Assignment, ComfyWork, InputSource, LinkError};
use darkroom_store::jobs::{JobRecord, Told};

use super::{SlotLink, store_away};
use crate::{beside::beside, service::Error};

impl SlotLink {
    /// The next attempt, if there is one now. To be awaited to its end: what was claimed is lost else, until its lease is.
    pub(in crate::service) async fn take_now(&self) -> Result<Option<Assignment>, Error> {
        if let Some(adopted) = self.next_adopted().await {
            return Ok(Some(adopted));
        }
        while !self.draining.is_cancelled() {
            let Some(claimed) = self.claim().await? else { break };
            if let Some(assignment) = self.assign(claimed).await {
                return Ok(Some(assignment));
            }
        }
        Ok(None)
    }

    /// Whether the slot works on this attempt.
    pub(in crate::service) fn has(&self, lease: Lease) -> bool {
        self.held(lease).is_some()
    }

    /// The slot goes on with an attempt that it has already.
    ///
    /// # Errors
    /// When what must not be shown of it cannot be read.
    pub(in crate::service) async fn keep(
        &self,
        lease: Lease,
        job: &JobRecord,
        prompt_id: Option<String>,
    ) -> Result<(), Error> {
        let credentials = self.service.credentials_of(job).await?;
        self.hold(lease, job, prompt_id).hide(&credentials);
        Ok(())
    }

    /// Lets go of everything: who still calls is told that the attempts are not its own any more.
    pub(in crate::service) fn let_go_of_all(&self) {
        let left = std::mem::take(&mut *self.lock_held());
        for (lease, held) in left {
            self.ended(lease, &held);
        }
    }

    /// Attempts that run longer than their slot may let them.
    pub(in crate::service) fn overdue(&self, now: Duration) -> Vec<Lease> {
        let held = self.lock_held();
        let overdue = held.iter().filter(|(_, held)| held.is_overdue(now));
        overdue.map(|(lease, _)| *lease).collect()
    }

    /// Whether a file is among those that the attempt's request names.
    ///
    /// # Errors
    /// When the request cannot be read.
    pub(in crate::service) async fn names(&self, lease: Lease, source: &InputSource) -> Result<bool, Error> {
        let Some(held) = self.held(lease) else {
            return Ok(false);
        };
        let named = held.named_files(async || self.read_named(lease).await).await?;
        Ok(named.contains(source))
    }

    async fn read_named(&self, lease: Lease) -> Result<Vec<InputSource>, Error> {
        let Some(job) = self.service.store.job(None, lease.job).await? else {
            return Ok(vec![]);
        };
        let Some(body) = self.service.read_payload(&job.input).await? else {
            return Ok(vec![]);
        };
        let work: serde_json::Result<ComfyWork> =
            beside(body.len(), move || serde_json::from_slice(&body)).await;
        let files = work.map_or_else(|_| vec![], |work| work.files);
        Ok(files.into_iter().map(|file| file.source).collect())
    }

    /// Stores what a slot tells from afar, once each.
    ///
    /// # Errors
    /// [`LinkError`].
    pub(in crate::service) async fn told(&self, lease: Lease, mut told: Told) -> Result<(), LinkError> {
        let Some(held) = self.held(lease) else {
            return Err(LinkError::Stale);
        };
        for event in &mut told.events {
            event.data = held.as_job(&event.data);
        }
        let kinds: Vec<_> = told.events.iter().map(|event| event.kind).collect();
        let stored = self
            .service
            .store
            .append_told(lease, told)
            .await
            .map_err(store_away)?;
        let last = stored.map_err(|_| LinkError::Stale)?;
        if last > held.last_event() {
            kinds
                .into_iter()
                .for_each(|kind| self.service.metrics.event(kind));
        }
        held.stored_event(last);
        Ok(())
    }
}
