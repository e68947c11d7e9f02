//! The end of an attempt: its outputs into the blob store, its events delivered, its record written.
//!
//! Done on the spot when all goes well; else carried on without the slot, for as long as `collect_timeout`.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use darkroom_core::{AttemptOutcome, attempt::Lease, event::NewEvent};

use crate::{
    backoff::Backoff,
    collect::{
        collection::{Collection, StoreError},
        memory::OutputMemory,
    },
    feed::Feed,
    link::{AttemptLink, Completion, LinkError, StopCause},
};

/// What is left of an attempt whose prompt succeeded.
pub struct Tail {
    /// Where it all goes.
    pub link: Arc<dyn AttemptLink>,
    /// Whose it is.
    pub lease: Lease,
    /// Its outputs.
    pub collection: Collection,
    /// Its events.
    pub feed: Feed,
    /// The result JSON.
    pub result: Vec<u8>,
    /// Last durable events.
    pub events: Vec<NewEvent>,
    /// Where stored outputs are remembered for cached reruns.
    pub memory: Arc<Mutex<OutputMemory>>,
}

impl Tail {
    /// Delivers the events and stores the outputs once. May be dropped and called again.
    ///
    /// # Errors
    /// As [`Collection::store`].
    pub async fn store(&mut self) -> Result<(), StoreError> {
        let (stored, ()) = tokio::join!(self.collection.store(&*self.link), self.feed.close());
        stored?;
        if self.feed.stale().is_cancelled() {
            return Err(StoreError::Stale);
        }
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        self.collection.remember_in(&mut memory);
        Ok(())
    }

    /// Ends the attempt after a `store` that worked or failed for good.
    pub async fn finish(self, stored: Result<(), StoreError>, patience: Duration) {
        let outcome = match stored {
            Ok(()) => AttemptOutcome::Done,
            Err(StoreError::Stale) => return self.link.abandoned(self.lease),
            Err(StoreError::Failed(failure)) => AttemptOutcome::Failed(*failure),
            Err(StoreError::Away(why)) => AttemptOutcome::Released {
                reason: format!("outputs could not be stored: {why}"),
            },
        };
        // What was stored of an attempt that is not done belongs to nobody.
        let outputs = match outcome {
            AttemptOutcome::Done => self.collection.into_outputs(),
            _ => Vec::new(),
        };
        let completion = Completion {
            outcome,
            outputs,
            result: Some(self.result),
            events: self.events,
        };
        finish(&*self.link, self.lease, completion, patience).await;
    }

    /// Goes on storing without the slot until it works, fails for good, is cancelled, or takes too long.
    pub async fn carry_on(mut self, patience: Duration) {
        let link = Arc::clone(&self.link);
        let lease = self.lease;
        let stop = link.cancelled(lease);
        let ended = tokio::select! {
            ended = self.keep_storing(patience) => Ok(ended),
            cause = stop => Err(cause),
        };
        match ended {
            Ok(stored) => self.finish(stored, patience).await,
            Err(StopCause::Stale) => self.link.abandoned(lease),
            Err(StopCause::Cancelled) => {
                let completion = Completion {
                    outcome: AttemptOutcome::Cancelled,
                    outputs: Vec::new(),
                    result: Some(self.result),
                    events: self.events,
                };
                finish(&*self.link, lease, completion, patience).await;
            }
        }
    }

    async fn keep_storing(&mut self, patience: Duration) -> Result<(), StoreError> {
        let mut last = String::from("the blob store did not answer");
        let storing = async {
            let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
            loop {
                match self.store().await {
                    Err(StoreError::Away(why)) => last = why,
                    ended => return ended,
                }
                tokio::time::sleep(backoff.next()).await;
            }
        };
        match tokio::time::timeout(patience, storing).await {
            Ok(ended) => ended,
            Err(_) => Err(StoreError::Away(last)),
        }
    }
}

/// Writes the end of an attempt; waits for a link that is away, at most for `patience`.
pub async fn finish(link: &dyn AttemptLink, lease: Lease, completion: Completion, patience: Duration) {
    let outcome = completion.outcome.state().as_str();
    let trying = async {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            match link.finish(lease, completion.clone()).await {
                Ok(_) => return,
                Err(LinkError::Stale) => {
                    tracing::info!(job.id = %lease.job, fence = %lease.fence, outcome, "an attempt lost its job before its end was written");
                    return link.abandoned(lease);
                }
                Err(LinkError::Unavailable(_)) => tokio::time::sleep(backoff.next()).await,
                Err(error @ (LinkError::Rejected(_) | LinkError::InputUnavailable(_))) => {
                    tracing::error!(job.id = %lease.job, fence = %lease.fence, outcome, %error, "the end of an attempt was refused");
                    return link.abandoned(lease);
                }
            }
        }
    };
    if tokio::time::timeout(patience, trying).await.is_err() {
        tracing::error!(job.id = %lease.job, fence = %lease.fence, outcome, "the end of an attempt could not be written; its lease will expire");
        link.abandoned(lease);
    }
}
