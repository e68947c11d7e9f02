//! Looks after the workers: leases are renewed while their workers live, and what they do not say is found out.

use std::{sync::Arc, time::Duration};

use darkroom_core::{AttemptOutcome, Failure, attempt::Lease, failure::FailureCode, presence::Judgement};
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;

use super::{Worker, worker::Condemned};
use crate::service::{Service, attempts::LEASE};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A look that comes later than this was not the workers' fault.
const GAP: Duration = Duration::from_secs(5);
/// Renewals at a time; they share commits.
const TOGETHER: usize = 256;

impl Service {
    /// Looks after workers until `shutdown`. Once per service.
    pub async fn keep_workers(&self, shutdown: CancellationToken) {
        loop {
            // Over the sleep alone: a look that takes long is no time in which nobody could be heard.
            let before = self.clock.monotonic();
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let gap = self.clock.monotonic().saturating_sub(before);
            self.look_after_workers(if gap > GAP { gap } else { Duration::ZERO })
                .await;
        }
    }

    /// One look. `gap`: for so long nobody could be heard.
    pub(super) async fn look_after_workers(&self, gap: Duration) {
        let workers = self.pull.all();
        if !gap.is_zero() {
            workers.iter().for_each(|worker| worker.forgive(gap));
        }
        self.renew_leases(&workers).await;
        for worker in workers {
            let judgement = worker.judge(self.clock.monotonic());
            if judgement != Judgement::default() {
                self.act_on(&worker, judgement).await;
            }
        }
    }

    /// Of all workers together: most hold one job each.
    async fn renew_leases(&self, workers: &[Arc<Worker>]) {
        let now = self.clock.monotonic();
        let due = workers.iter().flat_map(|worker| {
            let held = worker.held().into_iter();
            held.filter(|held| now >= held.renewed_at + LEASE / 3)
                .map(move |held| (worker, held.lease))
        });
        stream::iter(due.collect::<Vec<_>>())
            .for_each_concurrent(TOGETHER, |(worker, lease)| self.renew_lease(worker, lease))
            .await;
    }

    async fn renew_lease(&self, worker: &Arc<Worker>, lease: Lease) {
        match self.store.renew(lease, LEASE).await {
            Ok(Ok(renewed)) => {
                let now = self.clock.monotonic();
                worker.change_held(lease, |held| held.renewed_at = now);
                if renewed.cancel_requested {
                    self.end_on(worker, lease.job, AttemptOutcome::Cancelled).await;
                }
            }
            // Another has it, or it ended: whatever this worker makes of it does not count.
            Ok(Err(_)) => {
                worker.goes_on_with(lease, self.clock.monotonic() + LEASE);
                self.hub.attempt_ended(lease);
            }
            Err(error) => tracing::warn!(job.id = %lease.job, error = ?error, "renewing a lease failed"),
        }
    }

    async fn act_on(&self, worker: &Arc<Worker>, judgement: Judgement) {
        let Judgement {
            silent_for,
            unaccounted,
            overdue,
            stuck,
        } = judgement;
        for job in unaccounted {
            tracing::warn!(job.id = %job, instance.id = %worker.instance, "a worker has lost a job");
            let reason = "its worker does not have it any more and posted no result (it could not be serialised, or was \
                          dropped on its way)";
            let lost = AttemptOutcome::Lost {
                reason: reason.to_owned(),
            };
            if let Some(lease) = worker.lease_of(job)
                && self.record_end(lease, lost).await
            {
                worker.is_done_with(lease, self.clock.now());
                self.hub.attempt_ended(lease);
            }
        }
        for job in overdue {
            let failure = Failure::new(
                FailureCode::ExecutionTimeout,
                "it ran longer than its execution timeout",
            );
            tracing::warn!(job.id = %job, instance.id = %worker.instance, "a worker's job ran too long");
            self.end_on(worker, job, AttemptOutcome::Failed(failure)).await;
        }
        for job in stuck {
            worker.leave_to_it(job);
            if worker.is_managed() {
                let reason = format!("it went on with job {job} after that was ended");
                worker.condemn(Condemned::Stuck(reason));
            } else {
                tracing::warn!(job.id = %job, instance.id = %worker.instance, "a worker goes on with a job that was ended, and cannot be stopped from here");
            }
        }
        // One that starts is its supervisor's, who knows how long that may take.
        if let Some(silent_for) = silent_for.filter(|_| worker.was_heard()) {
            let reason = format!("nothing was heard of it for {} s", silent_for.as_secs());
            if worker.is_managed() {
                worker.condemn(Condemned::Broken(reason));
            } else {
                let lost = AttemptOutcome::Lost {
                    reason: reason.clone(),
                };
                self.external_gone(worker, &lost, &reason).await;
            }
        }
    }
}
