//! Delivers what is due, many at a time, few at a time to each receiver, so that a slow one holds nobody up.

use std::{collections::BTreeSet, time::Duration};

use darkroom_store::{Topic, access::Lanes};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::service::Service;

const KIND: &str = "webhook";
/// Deliveries on their way at a time. A receiver that does not answer holds one for `[fetch] timeout`.
const TOGETHER: usize = 64;
/// And to one receiver of one tenant.
const PER_RECEIVER: usize = 4;
/// The store is asked at least this often.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(30);
/// After a failure of the store.
const AGAIN: Duration = Duration::from_secs(2);
/// What is on its way at a stop gets this long; what is cut off then is told again by the next server.
const GRACE: Duration = Duration::from_secs(3);

impl Service {
    /// Delivers webhooks until `shutdown`.
    pub async fn send_webhooks(&self, shutdown: CancellationToken) {
        let mut sending = Sending::default();
        let mut woken = self.store.subscribe(Topic::Outbox);
        loop {
            let wait = match self.begin_due(&mut sending).await {
                Ok(wait) => wait,
                Err(error) => {
                    tracing::warn!(error = ?error, "webhooks that wait cannot be read");
                    AGAIN
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = sending.tasks.join_next_with_id() => sending.ended(ended),
                // With no room left, only an end makes a difference.
                () = woken.woken(), if sending.tasks.len() < TOGETHER => {}
                () = tokio::time::sleep(wait), if sending.tasks.len() < TOGETHER => {}
            }
        }
        let rest = async { while sending.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(GRACE, rest).await;
    }

    /// Begins what is due and has room; says when to look again.
    async fn begin_due(&self, sending: &mut Sending) -> Result<Duration, darkroom_store::Error> {
        let lanes = Lanes {
            per_lane: PER_RECEIVER,
            limit: TOGETHER.saturating_sub(sending.tasks.len()),
            taken: sending.rows.values().copied().collect::<BTreeSet<i64>>(),
            after: sending.last_lane.clone(),
        };
        let due = self.store.outbox_lanes(KIND, lanes).await?;
        for row in due.rows {
            sending.last_lane.clone_from(&row.lane);
            let (service, id) = (self.clone(), row.id);
            let task = sending
                .tasks
                .spawn(async move { service.send_webhook(row).await });
            sending.rows.insert(task.id(), id);
        }
        let wait = due.next_at.map_or(LOOK_AT_LEAST_EVERY, |at| at.since(self.now()));
        Ok(wait.clamp(Duration::from_millis(10), LOOK_AT_LEAST_EVERY))
    }
}

/// What is on its way.
#[derive(Default)]
struct Sending {
    tasks: JoinSet<()>,
    rows: std::collections::HashMap<tokio::task::Id, i64>,
    last_lane: String,
}

impl Sending {
    fn ended(&mut self, ended: Result<(tokio::task::Id, ()), tokio::task::JoinError>) {
        // One that panicked was reported by the hook. It stays in our hands: the next server tries it, this one would only
        // panic again.
        if let Ok((id, ())) = ended {
            self.rows.remove(&id);
        }
    }
}
