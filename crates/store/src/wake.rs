//! Wake-ups: "something about X changed, look again". They carry no data, are coalesced, and may be spurious. Only the end of
//! a job may bring what one would look for.

use std::sync::Arc;

use darkroom_core::{EndpointName, JobId};
use tokio::sync::mpsc;

use crate::{jobs::JobRecord, queues::QueueId};

/// What a subscriber waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Events, state, or the cancel flag of one job.
    Job(JobId),
    /// Claimable work of one endpoint (a job was queued).
    Queue(EndpointName),
    /// Counters of any endpoint changed (queued, running, instances): the planner's topic.
    Capacity,
    /// An outbox row is due.
    Outbox,
    /// Items, consumers or deliveries of one queue.
    Items(QueueId),
}

/// A pending interest in a topic. Register *before* reading the state it is about, then read, then wait.
pub struct Subscription(pub tokio::sync::watch::Receiver<u64>);

impl Subscription {
    /// Waits until the topic was woken since this was last called (or since the subscription began).
    pub async fn woken(&mut self) {
        // A closed channel means that the store is gone: never wake again, the caller's shutdown ends the wait.
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// A pending interest in the end of a job. Register *before* reading its state.
pub struct EndSubscription(pub mpsc::UnboundedReceiver<Option<Arc<JobRecord>>>);

impl EndSubscription {
    /// Waits until the job entered a final state since this was last called (or since the subscription began). Brings the
    /// job as it ended where the store had it at hand, else nothing: then look. It may have been queued again meanwhile.
    /// Cancel-safe.
    pub async fn ended(&mut self) -> Option<Arc<JobRecord>> {
        match self.0.recv().await {
            Some(record) => record,
            // As above.
            None => std::future::pending().await,
        }
    }
}

/// The wake-up part of a store.
pub trait Wakeups: Send + Sync {
    /// Subscribes to a topic.
    fn subscribe(&self, topic: Topic) -> Subscription;

    /// Subscribes to a job's end.
    fn subscribe_end(&self, job: JobId) -> EndSubscription;
}
