//! What a link needs beyond the port when its slot is on another machine: attempts come one at a time, and a slot that lost
//! its connection, or whose server restarted, goes on with what it has.

use darkroom_core::{attempt::Lease, event::NewEvent};
use darkroom_runner::link::{Assignment, ComfyWork, InputSource};
use darkroom_store::jobs::JobRecord;

use super::SlotLink;
use crate::{beside::beside, service::Error};

/// Events that are read at a time.
const PAGE: u32 = 500;

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

    /// Whether a file is among those that the attempt's request names.
    ///
    /// # Errors
    /// When the request cannot be read.
    pub(in crate::service) async fn names(&self, lease: Lease, source: &InputSource) -> Result<bool, Error> {
        let Some(job) = self.service.store.job(None, lease.job).await? else {
            return Ok(false);
        };
        let Some(body) = self.service.read_payload(&job.input).await? else {
            return Ok(false);
        };
        let work: serde_json::Result<ComfyWork> =
            beside(body.len(), move || serde_json::from_slice(&body)).await;
        Ok(work.is_ok_and(|work| work.files.iter().any(|file| file.source == *source)))
    }

    /// How many of these events, from the first on, are the last ones that are stored of the job: the answer to them was lost
    /// with the server that stored them.
    ///
    /// # Errors
    /// When the store fails.
    pub(in crate::service) async fn stored_already(
        &self,
        lease: Lease,
        events: &[NewEvent],
    ) -> Result<usize, Error> {
        let Some(held) = self.held(lease) else {
            return Ok(0);
        };
        let mut stored = Vec::new();
        let mut after = 0;
        loop {
            let page = self.service.store.events(lease.job, after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = last.seq;
            stored.extend(page.into_iter().map(|event| (event.kind, event.data)));
            let surplus = stored.len().saturating_sub(events.len());
            stored.drain(..surplus);
        }
        let told: Vec<_> = events.iter().map(|e| (e.kind, held.as_job(&e.data))).collect();
        let longest = told.len().min(stored.len());
        let overlap = (1..=longest)
            .rev()
            .find(|&n| stored[stored.len() - n..] == told[..n]);
        Ok(overlap.unwrap_or(0))
    }
}
