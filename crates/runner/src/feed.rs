//! What an attempt tells its followers, in ComfyUI's order, without ever making ComfyUI wait.
//!
//! Durable events are stored in batches (one per wake-up), ephemeral ones are shown between them where they stood. While
//! the link is slow, newer progress replaces older progress that nobody saw, so the backlog does not grow with the run.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use darkroom_core::{attempt::Lease, event::NewEvent};
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Backoff,
    link::{AttemptLink, Ephemeral, LinkError},
};

/// How far back a newer ephemeral looks for the one it replaces; bounds the work per message.
const LOOK_BACK: usize = 64;

/// Ephemerals that may wait; beyond this the oldest is dropped. Only what replaces nothing can get here.
const MAX_WAITING: usize = 512;

/// What an ephemeral is the latest value of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// The whole run (`progress_state`).
    Run,
    /// One node's `progress`.
    Node(String),
    /// The preview of a node, or of the run.
    Preview(Option<String>),
    /// Nothing: each one counts (a final image sent as a preview).
    Each,
}

/// The way from a session to the link; one per attempt.
pub struct Feed {
    shared: Arc<Shared>,
    task: JoinHandle<()>,
    stale: CancellationToken,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Default)]
struct Queue {
    items: VecDeque<Item>,
    closed: bool,
}

enum Item {
    Durable(NewEvent),
    Ephemeral(Subject, Ephemeral),
}

impl Feed {
    /// Starts one for the attempt.
    pub fn start(link: Arc<dyn AttemptLink>, lease: Lease) -> Self {
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Notify::new(),
        });
        let stale = CancellationToken::new();
        let task = tokio::spawn(deliver(link, lease, Arc::clone(&shared), stale.clone()));
        Feed { shared, task, stale }
    }

    /// Appends a durable event.
    pub fn durable(&self, event: NewEvent) {
        self.shared.lock().items.push_back(Item::Durable(event));
        self.shared.wake.notify_one();
    }

    /// Shows something; replaces an undelivered one about the same subject.
    pub fn ephemeral(&self, subject: Subject, what: Ephemeral) {
        let mut queue = self.shared.lock();
        if subject != Subject::Each {
            let older = queue
                .items
                .iter()
                .rev()
                .take(LOOK_BACK)
                .position(|item| matches!(item, Item::Ephemeral(about, _) if *about == subject));
            if let Some(from_the_back) = older {
                let index = queue.items.len() - 1 - from_the_back;
                queue.items.remove(index);
            }
        }
        queue.items.push_back(Item::Ephemeral(subject, what));
        queue.drop_oldest_ephemeral();
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// Resolves when the link said that the lease is gone.
    pub fn stale(&self) -> CancellationToken {
        self.stale.clone()
    }

    /// Waits until all that was given so far is delivered; what is given later may not be. May be called again.
    pub async fn close(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        // A panic of the task is a defect that the panic hook reported; the attempt goes on without its events.
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Queue {
    fn drop_oldest_ephemeral(&mut self) {
        let is_ephemeral = |item: &Item| matches!(item, Item::Ephemeral(..));
        if self.items.len() > MAX_WAITING
            && self.items.iter().filter(|item| is_ephemeral(item)).count() > MAX_WAITING
            && let Some(oldest) = self.items.iter().position(is_ephemeral)
        {
            self.items.remove(oldest);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn deliver(link: Arc<dyn AttemptLink>, lease: Lease, shared: Arc<Shared>, stale: CancellationToken) {
    loop {
        let (items, closed) = {
            let mut queue = shared.lock();
            (std::mem::take(&mut queue.items), queue.closed)
        };
        if items.is_empty() {
            if closed {
                return;
            }
            shared.wake.notified().await;
            continue;
        }
        let mut batch = Vec::new();
        for item in items {
            match item {
                Item::Durable(event) => batch.push(event),
                Item::Ephemeral(_, what) => {
                    if store(&*link, lease, std::mem::take(&mut batch)).await.is_err() {
                        return stale.cancel();
                    }
                    link.progress(lease, what);
                }
            }
        }
        if store(&*link, lease, batch).await.is_err() {
            return stale.cancel();
        }
    }
}

struct Stale;

async fn store(link: &dyn AttemptLink, lease: Lease, batch: Vec<NewEvent>) -> Result<(), Stale> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        match link.event(lease, batch.clone()).await {
            Ok(()) => return Ok(()),
            Err(LinkError::Stale) => return Err(Stale),
            Err(LinkError::Unavailable(_)) => tokio::time::sleep(backoff.next()).await,
            Err(error @ (LinkError::Rejected(_) | LinkError::InputUnavailable(_))) => {
                // The run itself matters more than the account of it.
                tracing::warn!(job.id = %lease.job, %error, events = batch.len(), "events of a run were refused");
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use darkroom_core::event::EventKind;

    use super::*;
    use crate::testing::{MemoryLink, lease};

    fn event(n: u32) -> NewEvent {
        NewEvent {
            kind: EventKind::Executing,
            data: n.to_string(),
        }
    }

    fn message(text: &str) -> Ephemeral {
        Ephemeral::Message(text.into())
    }

    #[tokio::test]
    async fn order_is_kept_across_durable_and_ephemeral() {
        let link = MemoryLink::new();
        let mut feed = Feed::start(link.clone(), lease(1));
        feed.durable(event(1));
        feed.durable(event(2));
        feed.ephemeral(Subject::Run, message("a"));
        feed.durable(event(3));
        feed.ephemeral(Subject::Node("5".into()), message("b"));
        feed.close().await;
        assert_eq!(
            link.told(lease(1)),
            ["executing 1", "executing 2", "a", "executing 3", "b"]
        );
        assert_eq!(link.batches(lease(1)), [2, 1]);
    }

    #[tokio::test]
    async fn a_slow_link_sees_the_latest_progress_only_and_every_event() {
        let link = MemoryLink::new();
        link.fail_events(2);
        let mut feed = Feed::start(link.clone(), lease(1));
        for n in 0..100 {
            feed.ephemeral(Subject::Run, message(&n.to_string()));
            feed.ephemeral(Subject::Each, message("final"));
        }
        feed.durable(event(1));
        feed.close().await;
        let told = link.told(lease(1));
        assert_eq!(told.iter().filter(|t| *t == "final").count(), 100);
        assert_eq!(told.len(), 102, "{told:?}");
    }

    #[tokio::test]
    async fn events_that_are_refused_are_not_told_for_ever_and_what_comes_after_them_is() {
        let link = MemoryLink::new();
        link.refuse_events(1);
        let mut feed = Feed::start(link.clone(), lease(1));
        feed.durable(event(1));
        feed.ephemeral(Subject::Run, message("a"));
        feed.durable(event(2));
        feed.close().await;
        assert_eq!(link.told(lease(1)), ["a", "executing 2"]);
    }

    #[tokio::test]
    async fn a_link_that_is_away_does_not_make_the_backlog_grow() {
        let link = MemoryLink::new();
        link.fail_events(1);
        let mut feed = Feed::start(link.clone(), lease(1));
        feed.durable(event(0));
        // Lets the feed run into the failure, where it waits.
        link.until(|| (link.failing_events() == 0).then_some(())).await;
        for n in 0..2 * MAX_WAITING {
            feed.ephemeral(Subject::Each, message(&n.to_string()));
        }
        feed.close().await;
        let told = link.told(lease(1));
        assert_eq!(told.len(), MAX_WAITING + 1);
        assert_eq!(told.last().unwrap(), &(2 * MAX_WAITING - 1).to_string());
    }

    #[tokio::test]
    async fn a_stale_lease_is_noticed() {
        let link = MemoryLink::new();
        link.make_stale(lease(1));
        let mut feed = Feed::start(link.clone(), lease(1));
        feed.durable(event(1));
        feed.stale().cancelled().await;
        feed.close().await;
    }
}
