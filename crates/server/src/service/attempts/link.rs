//! The port that the runner talks to.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::{
    AttemptOutcome, BlobKey, JobState,
    attempt::{Lease, RunningOn},
    event::NewEvent,
    output::Output,
};
use darkroom_runner::link::{
    Assignment, AttemptLink, Completion, Ephemeral, InputSource, LinkError, ProducedFile, StopCause,
};
use darkroom_store::{
    Topic,
    jobs::{Claim, Claimed, Finish},
};

use super::{LEASE, SlotLink, blobs_away, store_away};
use crate::service::{Error, hub::Live, intake::Refused};

/// Between two looks at the queue when nobody woke the slot.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// After a claim that failed.
const CLAIM_AGAIN: Duration = Duration::from_millis(500);

impl SlotLink {
    /// Waits for the next job of the endpoint for this slot; `None` once it drains.
    pub(super) async fn next_claimed(&self) -> Option<Claimed> {
        let mut woken = self.service.store.subscribe(Topic::Queue(self.endpoint.clone()));
        loop {
            if self.draining.is_cancelled() {
                return None;
            }
            match self.claim().await {
                Ok(Some(claimed)) => return Some(claimed),
                Ok(None) => {
                    // A wake-up may be missed by a paused endpoint's resume or another node's crash: look again anyway.
                    tokio::select! {
                        () = woken.woken() => {}
                        () = self.draining.cancelled() => return None,
                        () = tokio::time::sleep(LOOK_AGAIN) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(error = ?error, "claiming failed; trying again");
                    tokio::time::sleep(CLAIM_AGAIN).await;
                }
            }
        }
    }

    /// The next job of the endpoint for this slot.
    pub(super) async fn claim(&self) -> Result<Option<Claimed>, Error> {
        let offers = self.service.offers(&self.endpoint, &self.box_name).await?;
        let claim = Claim {
            endpoint: self.endpoint.clone(),
            instance: self.instance,
            owner: self.service.node.clone(),
            loaded_models: self.activity.loaded(),
            offers: Some(offers),
            lease: LEASE,
            except: vec![],
            max_running_per_tenant: self.limits().max_running_per_tenant,
        };
        let claimed = self.service.store.claim(claim).await?;
        if claimed.is_some() {
            self.service.reach("claim");
        }
        Ok(claimed)
    }
}

#[async_trait]
impl AttemptLink for SlotLink {
    async fn next(&self) -> Option<Assignment> {
        if let Some(adopted) = self.next_adopted().await {
            return Some(adopted);
        }
        loop {
            let claimed = self.next_claimed().await?;
            if let Some(assignment) = self.assign(claimed).await {
                return Some(assignment);
            }
        }
    }

    async fn started(&self, lease: Lease, on: RunningOn) -> Result<(), LinkError> {
        if let Some(held) = self.held(lease) {
            held.runs_as(on.prompt_id.clone());
        }
        self.service
            .store
            .start(lease, on)
            .await
            .map_err(store_away)?
            .map_err(|_| LinkError::Stale)
    }

    async fn input(&self, lease: Lease, source: &InputSource) -> Result<Bytes, LinkError> {
        match source {
            InputSource::Blob(key) => {
                let limit = self.service.fetcher.max_bytes().max(1 << 30);
                let read = self
                    .service
                    .blobs
                    .read(key, limit)
                    .await
                    .map_err(|e| blobs_away(&e))?;
                read.ok_or_else(|| LinkError::InputUnavailable("an input file was removed meanwhile".into()))
            }
            InputSource::Url(address) => {
                let held = self.held(lease).ok_or(LinkError::Stale)?;
                held.fetch(&self.service, address)
                    .await
                    .map_err(|refused| match refused {
                        Refused::Because(why) => LinkError::InputUnavailable(why),
                        // A shortage of ours is no fault of the job's.
                        Refused::Exhausted(exhausted) => LinkError::Unavailable(exhausted.to_string()),
                    })
            }
        }
    }

    async fn event(&self, lease: Lease, mut events: Vec<NewEvent>) -> Result<(), LinkError> {
        let Some(held) = self.held(lease) else {
            return Err(LinkError::Stale);
        };
        for event in &mut events {
            event.data = held.as_job(&event.data);
        }
        for event in &events {
            self.service.metrics.event(event.kind);
        }
        let last = self
            .service
            .store
            .append_events(lease, events)
            .await
            .map_err(store_away)?;
        held.stored_event(last.map_err(|_| LinkError::Stale)?);
        Ok(())
    }

    fn progress(&self, lease: Lease, what: Ephemeral) {
        let Some(held) = self.held(lease) else { return };
        self.service.metrics.ephemeral_events(1);
        let what = match what {
            Ephemeral::Message(text) => Ephemeral::Message(held.as_job(&text).into()),
            preview @ Ephemeral::Preview { .. } => preview,
        };
        self.service.hub.publish(
            lease.job,
            Live {
                after: held.last_event(),
                what,
            },
        );
    }

    async fn collecting(&self, lease: Lease) -> Result<(), LinkError> {
        if let Some(held) = self.held(lease)
            && held.collects()
        {
            self.activity.collects(self.service.clock.now());
        }
        self.service
            .store
            .collecting(lease)
            .await
            .map_err(store_away)?
            .map_err(|_| LinkError::Stale)
    }

    async fn put_output(&self, lease: Lease, file: ProducedFile) -> Result<Output, LinkError> {
        let longest = self.limits().max_output_bytes;
        self.service.store_output(lease, file, longest).await
    }

    async fn finish(&self, lease: Lease, completion: Completion) -> Result<JobState, LinkError> {
        let held = self.held(lease);
        let as_job = |text: &str| held.as_ref().map_or_else(|| text.to_owned(), |h| h.as_job(text));
        let result = match completion.result {
            Some(json) => {
                let json = as_job(&String::from_utf8_lossy(&json)).into_bytes();
                let key = BlobKey::job_part(lease.job, &format!("result-{}.json", lease.fence));
                let placed = self.service.place(key, json.into()).await;
                Some(placed.map_err(|e| LinkError::Unavailable(e.to_string()))?)
            }
            None => None,
        };
        let mut outcome = completion.outcome;
        if let AttemptOutcome::Failed(failure) = &mut outcome {
            failure.message = as_job(&failure.message);
            if let Some(detail) = &failure.detail
                && let Ok(mapped) = serde_json::from_str(&as_job(&detail.to_string()))
            {
                failure.detail = Some(mapped);
            }
        }
        let mut events = completion.events;
        for event in &mut events {
            event.data = as_job(&event.data);
        }
        let done = matches!(outcome, AttemptOutcome::Done);
        self.service.reach("before_record");
        let finish = Finish {
            outcome,
            outputs: completion.outputs,
            result,
            events,
        };
        let finished = self
            .service
            .store
            .finish(lease, finish)
            .await
            .map_err(store_away)?;
        self.service.reach("recorded");
        if let Some(held) = held.filter(|_| done && finished.is_ok()) {
            self.activity.ran_with(held.models());
        }
        self.let_go(lease);
        finished.map_err(|_| LinkError::Stale)
    }

    async fn reuse_output(&self, _lease: Lease, output: Output) -> Result<Option<Output>, LinkError> {
        self.service.store_again(output).await
    }

    fn abandoned(&self, lease: Lease) {
        self.let_go(lease);
    }

    async fn cancelled(&self, lease: Lease) -> StopCause {
        let Some(held) = self.held(lease) else {
            return StopCause::Stale;
        };
        held.stopped().await
    }
}
