//! How many jobs of each endpoint have not ended, for those who watch the number: one reader of the store for all of them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use darkroom_core::EndpointName;
use darkroom_store::Topic;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Service;

/// Shortest time between two readings; in a busy queue the number changes with every job.
const AT_MOST_EVERY: Duration = Duration::from_millis(100);

/// Jobs that have not ended, by endpoint.
pub type Lengths = Arc<BTreeMap<EndpointName, u64>>;

impl Service {
    /// The numbers, and their changes from now on.
    pub fn queue_lengths(&self) -> watch::Receiver<Lengths> {
        self.lengths.subscribe()
    }

    /// Keeps the numbers true until `shutdown`; one task of the server does.
    pub async fn keep_lengths(&self, shutdown: CancellationToken) {
        let mut woken = self.store.subscribe(Topic::Capacity);
        loop {
            match self.store.counters().await {
                Ok(counters) => {
                    let count = counters
                        .into_iter()
                        .map(|(name, of)| (name, of.queued + of.running + of.collecting));
                    let now: BTreeMap<EndpointName, u64> = count.collect();
                    self.lengths.send_if_modified(|lengths| {
                        let changed = **lengths != now;
                        *lengths = Arc::new(now);
                        changed
                    });
                }
                Err(error) => tracing::warn!(error = ?error, "the lengths of queues could not be read"),
            }
            let next = async {
                tokio::time::sleep(AT_MOST_EVERY).await;
                woken.woken().await;
            };
            tokio::select! {
                () = next => {}
                () = shutdown.cancelled() => return,
            }
        }
    }
}
