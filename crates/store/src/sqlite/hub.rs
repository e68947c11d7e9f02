//! In-process wake-ups: one watch channel per topic that somebody listens to.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::wake::{Subscription, Topic};

/// The topics somebody listens to.
#[derive(Default)]
pub(super) struct Hub {
    topics: Mutex<Topics>,
}

#[derive(Default)]
struct Topics {
    senders: HashMap<Topic, watch::Sender<u64>>,
    /// Look for abandoned topics when there are this many.
    collect_at: usize,
}

impl Hub {
    /// A subscription that sees every wake-up from now on.
    pub(super) fn subscribe(&self, topic: Topic) -> Subscription {
        let mut topics = self.lock();
        if topics.senders.len() >= topics.collect_at.max(64) {
            topics.senders.retain(|_, sender| sender.receiver_count() > 0);
            topics.collect_at = topics.senders.len() * 2;
        }
        let sender = topics
            .senders
            .entry(topic)
            .or_insert_with(|| watch::Sender::new(0));
        Subscription(sender.subscribe())
    }

    /// Wakes everybody who listens to one of the topics; forgets topics that nobody listens to.
    pub(super) fn wake(&self, woken: impl IntoIterator<Item = Topic>) {
        let mut topics = self.lock();
        for topic in woken {
            let Some(sender) = topics.senders.get(&topic) else {
                continue;
            };
            if sender.receiver_count() == 0 {
                topics.senders.remove(&topic);
            } else {
                sender.send_modify(|n| *n = n.wrapping_add(1));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Topics> {
        // The map is consistent after any panic: each step is one call.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use darkroom_core::JobId;

    use super::*;

    fn job(n: u128) -> Topic {
        Topic::Job(JobId::from_uuid(uuid::Uuid::from_u128(n)))
    }

    #[tokio::test]
    async fn wakes_between_two_waits_are_one() {
        let hub = Hub::default();
        let mut listener = hub.subscribe(Topic::Capacity);
        hub.wake([Topic::Capacity, Topic::Capacity]);
        hub.wake([Topic::Capacity]);
        listener.woken().await;
        assert!(!listener.0.has_changed().unwrap());
        hub.wake([Topic::Outbox]);
        assert!(!listener.0.has_changed().unwrap(), "another topic is not ours");
    }

    #[test]
    fn topics_without_listeners_are_forgotten() {
        let hub = Hub::default();
        for n in 0..10_000 {
            drop(hub.subscribe(job(n)));
        }
        assert!(hub.lock().senders.len() <= 64);
        let kept: Vec<_> = (0..200).map(|n| hub.subscribe(job(n))).collect();
        hub.wake((0..200).map(job));
        assert!(kept.iter().all(|s| s.0.has_changed().unwrap()));
        drop(kept);
        hub.wake((0..10_000).map(job));
        assert_eq!(hub.lock().senders.len(), 0);
    }
}
