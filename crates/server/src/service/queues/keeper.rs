//! The keeper: what nobody's request waits for. Results go to their sinks, connections that ended are tidied up, groups that
//! do not come back are forgotten, and queues are counted.

use std::time::Duration;

use darkroom_core::backoff::Backoff;
use darkroom_store::{Topic, access::OutboxRow, queues::Session};
use futures::{StreamExt, future::join_all, stream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use super::{Chore, results::OUTBOX_KIND};
use crate::service::{Error, Service};

/// How often queues are counted.
const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Every so many counts, what nobody comes back for is forgotten: each minute.
const SWEEP_EVERY: u32 = 12;
/// Results put at the same time; they share commits.
const TOGETHER: usize = 32;
/// How long nobody looks at results after a failure that is no result's.
const AGAIN: Duration = Duration::from_secs(2);
/// When a result that could not be put is tried again: for ever, while a store is away.
const PUT_AGAIN: Backoff = Backoff {
    first: Duration::from_secs(2),
    longest: Duration::from_secs(300),
};
/// A result that fails so often for another reason (about a minute) never will be put: its client is told so instead.
const TRIES: u32 = 5;

impl Service {
    /// A server starts: what an earlier one was sending is to be sent again.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn recover_queues(&self) -> Result<(), Error> {
        Ok(self.store.recover_queues(&self.node).await?)
    }

    /// Keeps the queues until `shutdown`, then finishes what connections left to do. Once per service.
    pub async fn keep_queues(&self, shutdown: CancellationToken) {
        let Some(mut chores) = self.chores.take() else {
            return;
        };
        let until_shutdown = async {
            tokio::select! {
                () = self.send_results() => {}
                () = self.look_after() => {}
                () = shutdown.cancelled() => {}
            }
        };
        tokio::join!(until_shutdown, self.tidy_up(&mut chores, &shutdown));
    }

    async fn send_results(&self) {
        let mut woken = self.store.subscribe(Topic::Outbox);
        loop {
            match self.store.outbox_due(OUTBOX_KIND, 256).await {
                Ok(due) if due.is_empty() => {
                    // A row that failed is due again without a wake-up.
                    let _ = tokio::time::timeout(AGAIN, woken.woken()).await;
                }
                Ok(due) => {
                    stream::iter(due)
                        .for_each_concurrent(TOGETHER, |row| self.send_result(row))
                        .await;
                }
                Err(error) => {
                    tracing::warn!(error = ?error, "results that wait for their sinks cannot be read");
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    pub(super) async fn send_result(&self, row: OutboxRow) {
        if let Err(error) = self.put_result(&row).await {
            self.metrics.result_not_put();
            let tries = row.tries + 1;
            tracing::warn!(job.id = %row.job, tries, error = ?error, "a result could not be put on its sink");
            let is_hopeless = !matches!(error, Error::Unavailable { .. }) && tries >= TRIES;
            if is_hopeless && self.put_regret(&row).await.is_ok() {
                return;
            }
            let again = self.now().plus(PUT_AGAIN.after(tries));
            if let Err(error) = self.store.outbox_retry(row.id, again).await {
                tracing::warn!(error = ?error, "and could not be put off");
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// A chore that was begun is always done: only waiting for the next one ends with the shutdown.
    async fn tidy_up(&self, chores: &mut UnboundedReceiver<Chore>, shutdown: &CancellationToken) {
        let mut some = Vec::new();
        loop {
            tokio::select! {
                _ = chores.recv_many(&mut some, 256) => {}
                () = shutdown.cancelled() => break,
            }
            join_all(some.drain(..).map(|chore| self.do_chore(chore))).await;
        }
        while let Ok(chore) = chores.try_recv() {
            self.do_chore(chore).await;
        }
    }

    async fn do_chore(&self, chore: Chore) {
        let done = match chore {
            Chore::Leave(session, sent) => self.leave(session, sent).await,
            Chore::Delete(queue, indexes) => self.store.delete(&queue, indexes).await.map(|_| ()),
            Chore::GiveBack(queue, indexes) => self.store.give_back(&queue, indexes).await,
        };
        if let Err(error) = done {
            // A hold ends by itself, and a consumer that is gone is found out at the next start.
            tracing::warn!(error = ?error, "an ended connection of a queue could not be tidied up");
        }
    }

    async fn leave(&self, session: Session, sent: Vec<u64>) -> Result<(), darkroom_store::Error> {
        if !sent.is_empty() {
            self.store.commit_sent(session, sent).await?;
        }
        self.store.leave(session).await
    }

    async fn look_after(&self) {
        let mut round = 0;
        loop {
            if let Err(error) = self.count_queues(round % SWEEP_EVERY == SWEEP_EVERY - 1).await {
                tracing::warn!(error = ?error, "queues could not be counted or swept");
            }
            round += 1;
            tokio::time::sleep(COUNT_EVERY).await;
        }
    }

    async fn count_queues(&self, sweep: bool) -> Result<(), Error> {
        let views = self.store.queues(None).await?;
        self.metrics.set_queues(&views, self.now());
        for view in views.iter().filter(|_| sweep) {
            let endpoint = self.endpoint(&view.id.endpoint);
            let limits = endpoint.map(|e| e.queue.clone()).unwrap_or_default();
            while self.store.sweep_queue(&view.id, limits.group_idle).await?.more {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }
}
