//! What a slot needs whose instance answers HTTP: the next request, and a place for its answer.

use std::time::Duration;

use darkroom_core::{AttemptOutcome, BlobKey, attempt::Lease};
use darkroom_runner::link::LinkError;
use darkroom_store::jobs::{Claimed, Finish};

use super::{SlotLink, assign::unreadable, store_away};
use crate::service::replay::{Answer, Request};

/// A request for an instance, under a lease that is renewed until its end is written.
#[derive(Debug)]
pub struct Replay {
    /// Job and fence.
    pub lease: Lease,
    /// What to send.
    pub request: Request,
    /// An answer that takes longer is a failure.
    pub execution_timeout: Duration,
    /// Once nobody wants its answer any more, how long the instance may go on with it.
    pub cancel_grace: Duration,
    /// If this attempt is lost, there is no other.
    pub last_chance: bool,
}

impl SlotLink {
    /// Waits for the next request; `None` once the slot drains. Dropped, it may leave a claimed job behind, which goes back
    /// when its instance's attempts are ended, or its lease.
    pub async fn next_request(&self) -> Option<Replay> {
        loop {
            let claimed = self.next_claimed().await?;
            if let Some(replay) = self.begin_request(claimed).await {
                return Some(replay);
            }
        }
    }

    async fn begin_request(&self, claimed: Claimed) -> Option<Replay> {
        let job = claimed.job;
        let lease = Lease {
            job: job.id,
            fence: claimed.fence,
        };
        let held = self.hold(lease, &job, None);
        let read = async {
            let (stored, _) = self.read_input(&job).await?;
            Request::decode(&stored).ok_or_else(|| {
                tracing::error!(job.id = %job.id, "a job of a service that answers HTTP holds no request");
                unreadable()
            })
        };
        let request = self.begin_with(lease, &held, read).await?;
        let bounds = self.bounds(&job);
        Some(Replay {
            lease,
            request,
            execution_timeout: bounds.execution_timeout,
            cancel_grace: bounds.cancel_grace,
            last_chance: job.lost_attempts + 1 >= self.limits().max_attempts.max(1),
        })
    }

    /// Ends a request's attempt, with the answer where there is one: durable when this returns.
    ///
    /// # Errors
    /// [`LinkError::Stale`], then it was not this slot's to end; [`LinkError::Unavailable`], then it should be tried again.
    pub async fn finish_request(
        &self,
        lease: Lease,
        outcome: AttemptOutcome,
        answer: Option<&Answer>,
    ) -> Result<(), LinkError> {
        // What is lost or given back has no result.
        let kept = matches!(outcome, AttemptOutcome::Done | AttemptOutcome::Failed(_));
        let result = match answer.filter(|_| kept) {
            Some(answer) => {
                let key = BlobKey::job_part(lease.job, &format!("answer-{}", lease.fence));
                let placed = self.service.place(key, answer.encode()).await;
                Some(placed.map_err(|e| LinkError::Unavailable(e.to_string()))?)
            }
            None => None,
        };
        self.service.reach("before_record");
        let finish = Finish {
            outcome,
            outputs: vec![],
            result,
            events: vec![],
        };
        let finished = self
            .service
            .store
            .finish(lease, finish)
            .await
            .map_err(store_away)?;
        self.service.reach("recorded");
        self.let_go(lease);
        finished.map(|_| ()).map_err(|_| LinkError::Stale)
    }
}
