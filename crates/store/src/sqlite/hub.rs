//! In-process wake-ups: one watch channel per topic that somebody listens to, one channel for each who waits for a job's end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use darkroom_core::JobId;
use tokio::sync::{mpsc, watch};

use crate::{
    jobs::JobRecord,
    wake::{EndSubscription, Subscription, Topic},
};

/// A job that ended, and how, where somebody waited for it and it could be read.
pub(super) type End = (JobId, Option<Arc<JobRecord>>);

/// The topics somebody listens to.
#[derive(Default)]
pub(super) struct Hub {
    topics: Mutex<Topics>,
    ends: Mutex<Ends>,
}

#[derive(Default)]
struct Ends {
    waiting: HashMap<JobId, Vec<mpsc::UnboundedSender<Option<Arc<JobRecord>>>>>,
    /// As for topics.
    collect_at: usize,
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

    /// A subscription that hears of every end from now on.
    pub(super) fn subscribe_end(&self, job: JobId) -> EndSubscription {
        let (sender, receiver) = mpsc::unbounded_channel();
        let mut ends = self.lock_ends();
        if ends.waiting.len() >= ends.collect_at.max(64) {
            ends.waiting
                .retain(|_, waiting| waiting.iter().any(|one| !one.is_closed()));
            ends.collect_at = ends.waiting.len() * 2;
        }
        let waiting = ends.waiting.entry(job).or_default();
        // Before it grows: who gave up (a poll of a long job, a hundred times an hour) is not kept until its end.
        if waiting.len() == waiting.capacity() {
            waiting.retain(|one| !one.is_closed());
        }
        waiting.push(sender);
        EndSubscription(receiver)
    }

    /// Whether somebody waits for a job's end.
    pub(super) fn is_awaited(&self, job: JobId) -> bool {
        let ends = self.lock_ends();
        let waiting = ends.waiting.get(&job);
        waiting.is_some_and(|waiting| waiting.iter().any(|one| !one.is_closed()))
    }

    /// Tells everybody who waits for them.
    pub(super) fn ended(&self, these: Vec<End>) {
        let mut ends = self.lock_ends();
        for (job, record) in these {
            let Some(waiting) = ends.waiting.get_mut(&job) else {
                continue;
            };
            waiting.retain(|one| one.send(record.clone()).is_ok());
            if waiting.is_empty() {
                ends.waiting.remove(&job);
            }
        }
    }

    fn lock_ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[tokio::test]
    async fn everybody_who_waits_for_an_end_hears_of_it_and_nobody_else_is_kept() {
        let hub = Hub::default();
        let id = |n| JobId::from_uuid(uuid::Uuid::from_u128(n));
        for n in 0..10_000 {
            drop(hub.subscribe_end(id(n)));
        }
        assert!(hub.lock_ends().waiting.len() <= 64);
        let patient = hub.subscribe_end(id(3));
        for _ in 0..10_000 {
            drop(hub.subscribe_end(id(3)));
        }
        assert!(hub.lock_ends().waiting[&id(3)].len() <= 64);
        assert!(hub.is_awaited(id(3)));
        drop(patient);
        let (mut one, mut other) = (hub.subscribe_end(id(1)), hub.subscribe_end(id(1)));
        assert!(hub.is_awaited(id(1)) && !hub.is_awaited(id(2)));
        hub.ended(vec![(id(1), None), (id(2), None)]);
        assert!(one.ended().await.is_none() && other.ended().await.is_none());
        // It was queued again and ended again.
        drop(other);
        hub.ended(vec![(id(1), None)]);
        assert!(one.ended().await.is_none());
        drop(one);
        assert!(!hub.is_awaited(id(1)));
    }
}
