//! Random lives of one queue, against a model that fits on a page; the process dies now and then in between.

mod model;

use std::{path::Path, sync::Arc, time::Duration};

use darkroom_core::{Clock, Payload};
use proptest::prelude::*;

use self::model::{Consumer, Delivery, GRACE, Item, MAX_DELIVERY, MAX_IDLE, Model, State};
use super::super::{Durability, Options, SqliteStore};
use crate::{
    Queues,
    conformance::{TestClock, endpoint, tenant},
    queues::{
        Committed, Deliver, Join, NewItem, Policy, Put, QueueId, Scan, Session, Side, Start, Tags, Take,
        Wanted,
    },
};

const HOLD: Duration = Duration::from_secs(10);
const MAX_LENGTH: u64 = 12;

#[derive(Debug, Clone)]
enum Verb {
    Put {
        priority: i32,
        tagged: bool,
        name: Option<u8>,
    },
    Join {
        group: u8,
        consumer: u8,
        window: u32,
        new: bool,
        auto: bool,
        tagged: bool,
    },
    Deliver {
        session: usize,
        at_most: u32,
    },
    Leave(usize),
    Commit(u8, u64),
    Refuse(u8, u64, bool),
    Delete(u64),
    Truncate(u64),
    Take {
        group: u8,
        at_least: u32,
        at_most: u32,
        from: u64,
    },
    GiveBack(u64),
    Advance(u64),
    /// kill -9 and a new start.
    Crash,
}

fn verbs() -> impl Strategy<Value = Vec<Verb>> {
    let verb = prop_oneof![
        6 => (0..2, any::<bool>(), proptest::option::of(0..4u8))
            .prop_map(|(priority, tagged, name)| Verb::Put { priority, tagged, name }),
        3 => (0..2u8, 0..3u8, 1..4u32, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(group, consumer, window, new, auto, tagged)| Verb::Join { group, consumer, window, new, auto, tagged }),
        8 => (0..4usize, 1..4u32).prop_map(|(session, at_most)| Verb::Deliver { session, at_most }),
        1 => (0..4usize).prop_map(Verb::Leave),
        4 => (0..2u8, 0..12u64).prop_map(|(g, back)| Verb::Commit(g, back)),
        1 => (0..2u8, 0..12u64, any::<bool>()).prop_map(|(g, back, counts)| Verb::Refuse(g, back, counts)),
        1 => (0..12u64).prop_map(Verb::Delete),
        1 => (0..12u64).prop_map(Verb::Truncate),
        1 => (0..2u8, 1..3u32, 1..4u32, 0..12u64)
            .prop_map(|(group, at_least, at_most, from)| Verb::Take { group, at_least, at_most, from }),
        1 => (0..12u64).prop_map(Verb::GiveBack),
        2 => (1..15u64).prop_map(Verb::Advance),
        1 => Just(Verb::Crash),
    ];
    proptest::collection::vec(verb, 1..80)
}

struct Run {
    store: SqliteStore,
    clock: Arc<TestClock>,
    model: Model,
    sessions: Vec<(Session, u8, u8, Scan, Vec<u64>)>,
    dir: tempfile::TempDir,
    generation: u32,
}

fn queue() -> QueueId {
    QueueId {
        tenant: tenant("t"),
        endpoint: endpoint(),
        side: Side::Input,
    }
}

fn tags(tagged: bool) -> Tags {
    if tagged {
        [("k".to_owned(), "v".to_owned())].into()
    } else {
        Tags::new()
    }
}

fn open(path: &Path, clock: &Arc<TestClock>) -> SqliteStore {
    let mut options = Options::new(clock.clone());
    // Speed; power cuts are tested elsewhere.
    options.durability = Durability::Never;
    SqliteStore::open(path, options).unwrap()
}

impl Run {
    fn new() -> Run {
        let dir = tempfile::tempdir().unwrap();
        let clock = TestClock::new();
        let store = open(&dir.path().join("db-0"), &clock);
        Run {
            store,
            clock,
            model: Model::default(),
            sessions: Vec::new(),
            dir,
            generation: 0,
        }
    }

    async fn step(&mut self, verb: Verb) {
        let now = self.clock.now();
        match verb {
            Verb::Put {
                priority,
                tagged,
                name,
            } => self.put(priority, tagged, name).await,
            Verb::Join {
                group,
                consumer,
                window,
                new,
                auto,
                tagged,
            } => {
                let join = Join {
                    group: group.to_string(),
                    consumer: consumer.to_string(),
                    start: if new { Start::New } else { Start::At(0) },
                    window,
                    auto_commit: auto,
                    tags: tags(tagged),
                    node: "a".parse().unwrap(),
                };
                let session = self.store.join(&queue(), join).await.unwrap();
                assert!(self.sessions.iter().all(|(older, ..)| *older < session));
                self.sessions
                    .push((session, group, consumer, Scan::default(), Vec::new()));
                let start = if new { self.model.last + 1 } else { 0 };
                self.model.groups.insert(group);
                for ((g, index), d) in &mut self.model.deliveries {
                    if *g == group && d.consumer == Some(consumer) && d.state != State::Committed {
                        d.state = State::Returned;
                        d.at = now;
                        d.consumer = d.consumer.filter(|_| *index >= start);
                    }
                }
                let joined = Consumer {
                    session,
                    left_at: None,
                    start,
                    window,
                    auto,
                    tagged,
                };
                self.model.consumers.insert((group, consumer), joined);
            }
            Verb::Deliver { session, at_most } => self.deliver(session, at_most).await,
            Verb::Leave(n) => {
                let Some((session, group, consumer, ..)) = self.sessions.iter().rev().nth(n) else {
                    return;
                };
                self.store.leave(*session).await.unwrap();
                let known = self.model.consumers.get_mut(&(*group, *consumer)).unwrap();
                if known.session == *session && known.left_at.is_none() {
                    known.left_at = Some(now);
                }
            }
            Verb::Commit(group, back) => {
                let index = self.model.last.saturating_sub(back);
                let told = self
                    .store
                    .commit(&queue(), &group.to_string(), vec![index])
                    .await
                    .unwrap();
                if self.expect(&told, group, index) {
                    self.model.commit(group, index);
                }
            }
            Verb::Refuse(group, back, counts) => {
                let index = self.model.last.saturating_sub(back);
                let told = self
                    .store
                    .refuse(&queue(), &group.to_string(), vec![index], counts)
                    .await
                    .unwrap();
                if self.expect(&told, group, index) {
                    let d = self.model.deliveries.get_mut(&(group, index)).unwrap();
                    if d.state == State::Pending {
                        let times = d.times.saturating_sub(u32::from(!counts));
                        *d = Delivery {
                            state: State::Returned,
                            consumer: None,
                            times,
                            at: now,
                        };
                    }
                }
            }
            Verb::Delete(back) => {
                let index = self.model.last.saturating_sub(back);
                let removed = self.store.delete(&queue(), vec![index]).await.unwrap();
                assert_eq!(removed, u64::from(self.model.remove(index)));
            }
            Verb::Truncate(back) => {
                let before = self.model.last.saturating_sub(back);
                let swept = self.store.truncate(&queue(), before).await.unwrap();
                let gone: Vec<u64> = self
                    .model
                    .items
                    .range(..before)
                    .map(|(index, _)| *index)
                    .collect();
                assert_eq!(swept.rows, gone.len() as u64);
                for index in gone {
                    self.model.remove(index);
                }
            }
            Verb::Take {
                group,
                at_least,
                at_most,
                from,
            } => self.take(group, at_least, at_most, from).await,
            Verb::GiveBack(back) => {
                let index = self.model.last.saturating_sub(back);
                self.store.give_back(&queue(), vec![index]).await.unwrap();
                if let Some(item) = self.model.items.get_mut(&index) {
                    item.taken_until = None;
                }
            }
            Verb::Advance(seconds) => self.clock.advance(Duration::from_secs(seconds)),
            Verb::Crash => self.crash().await,
        }
    }

    /// Whether the index can be committed or refused; else the store must have said why not.
    fn expect(&self, told: &Committed, group: u8, index: u64) -> bool {
        let mut expected = Committed::default();
        let delivered = self.model.deliveries.contains_key(&(group, index));
        if index == 0 || index > self.model.last {
            expected.never.push(index);
        } else if self.model.items.contains_key(&index) && !delivered {
            expected.not_delivered.push(index);
        }
        assert_eq!(*told, expected);
        delivered
    }

    async fn put(&mut self, priority: i32, tagged: bool, name: Option<u8>) {
        let item = NewItem {
            payload: Payload::Inline(b"x".to_vec()),
            tags: tags(tagged),
            priority,
            request_id: name.map_or_else(String::new, |name| name.to_string()),
            named: name.is_some(),
            max_length: MAX_LENGTH,
        };
        let told = self.store.put(&queue(), item).await.unwrap();
        let first = name.and_then(|name| self.model.names.get(&name).copied());
        let length = self.model.length();
        let expected = match first {
            Some(index) => Put::Existing(index),
            None if length >= MAX_LENGTH => Put::Full { length },
            None => Put::At(self.model.last + 1),
        };
        assert_eq!(told, expected);
        if let Put::At(index) = told {
            self.model.last = index;
            self.model.items.insert(
                index,
                Item {
                    priority,
                    tagged,
                    taken_until: None,
                },
            );
            self.model.names.extend(name.map(|name| (name, index)));
        }
    }

    async fn deliver(&mut self, n: usize, at_most: u32) {
        let now = self.clock.now();
        let Some((session, group, consumer, scan, unsettled)) = self.sessions.iter_mut().rev().nth(n) else {
            return;
        };
        let wanted = Deliver {
            session: *session,
            sent: unsettled.clone(),
            at_most,
            max_bytes: 1 << 20,
            bodies: true,
            scan: scan.clone(),
            policy: Policy {
                max_idle: Some(MAX_IDLE),
                leave_grace: GRACE,
                max_delivery: MAX_DELIVERY,
                to_rear: true,
            },
        };
        let told = self.store.deliver(wanted).await.unwrap();
        let known = &self.model.consumers[&(*group, *consumer)];
        if known.session != *session || known.left_at.is_some() {
            assert!(told.is_err());
            return;
        }
        let told = told.unwrap();
        *scan = told.scan;
        let auto = known.auto;
        for index in std::mem::take(unsettled) {
            if self.model.deliveries.contains_key(&(*group, index)) {
                self.model.commit(*group, index);
            }
        }
        let indexes: Vec<u64> = told.items.iter().map(|item| item.index).collect();
        if auto {
            unsettled.clone_from(&indexes);
        }
        assert_eq!(indexes, self.model.deliver(*group, *consumer, at_most, now));
        assert!(!told.more, "nothing was cut short");
        let waits = |((g, _), d): (&(u8, u64), &Delivery)| {
            if g != group || d.state == State::Committed {
                return None;
            }
            let holder = d.consumer?;
            let left = self.model.consumers[&(*g, holder)]
                .left_at
                .map(|at| at.plus(GRACE));
            let idle = (d.state == State::Pending).then(|| d.at.plus(MAX_IDLE));
            left.into_iter().chain(idle).min()
        };
        let held = self.model.deliveries.iter().filter_map(waits).min();
        let taken = self
            .model
            .items
            .values()
            .filter_map(|item| item.taken_until)
            .min();
        assert_eq!(told.next_due, held.into_iter().chain(taken).min());
    }

    async fn take(&mut self, group: u8, at_least: u32, at_most: u32, from: u64) {
        let now = self.clock.now();
        let take = Take {
            wanted: Wanted {
                from,
                ..Wanted::default()
            },
            past: 0,
            group: group.to_string(),
            at_least,
            at_most,
            hold: HOLD,
            node: "a".parse().unwrap(),
        };
        let there = self.store.there(&queue(), take.clone()).await.unwrap();
        let told = self.store.take(&queue(), take).await.unwrap();
        if at_least <= at_most {
            assert_eq!(there.enough, !told.is_empty());
        }
        self.model.return_taken(now);
        let held = |index: u64| {
            let delivery = self.model.deliveries.get(&(group, index));
            from == 0 && delivery.is_some_and(|d| d.state == State::Pending)
        };
        let free = self
            .model
            .items
            .iter()
            .filter(|(index, item)| **index >= from && item.taken_until.is_none() && !held(**index));
        let mut expected: Vec<u64> = free.map(|(index, _)| *index).take(at_most as usize).collect();
        if expected.len() < at_least as usize {
            expected.clear();
        }
        assert_eq!(told.iter().map(|item| item.index).collect::<Vec<_>>(), expected);
        for index in expected {
            self.model.items.get_mut(&index).unwrap().taken_until = Some(now.plus(HOLD));
        }
    }

    /// The files as kill -9 leaves them, opened by the next process.
    async fn crash(&mut self) {
        let old = self.dir.path().join(format!("db-{}", self.generation));
        self.generation += 1;
        let new = self.dir.path().join(format!("db-{}", self.generation));
        for suffix in ["", "-wal"] {
            let from = format!("{}{suffix}", old.display());
            if Path::new(&from).exists() {
                std::fs::copy(from, format!("{}{suffix}", new.display())).unwrap();
            }
        }
        self.store = open(&new, &self.clock);
        self.store.recover_queues(&"a".parse().unwrap()).await.unwrap();
        let now = self.clock.now();
        for ((group, _), d) in &mut self.model.deliveries {
            let holder = d.consumer.map(|c| &self.model.consumers[&(*group, c)]);
            if d.state == State::Pending && holder.is_some_and(|holder| holder.left_at.is_none()) {
                d.times = d.times.saturating_sub(1);
            }
        }
        for consumer in self.model.consumers.values_mut().filter(|c| c.left_at.is_none()) {
            consumer.left_at = Some(now);
        }
        for item in self.model.items.values_mut() {
            item.taken_until = None;
        }
    }

    async fn check(&self) {
        let view = self.store.queue(&queue()).await.unwrap();
        let Some(view) = view else {
            assert_eq!(self.model.last, 0);
            return;
        };
        assert_eq!((view.length, view.last), (self.model.length(), self.model.last));
        assert_eq!(view.first, self.model.items.keys().next().copied());
        let pending = |d: &&Delivery| d.state == State::Pending;
        assert_eq!(
            view.pending,
            self.model.deliveries.values().filter(pending).count() as u64
        );
        let stored = self.store.items(&queue(), Wanted::default(), 1000).await.unwrap();
        let free = self
            .model
            .items
            .iter()
            .filter(|(_, item)| item.taken_until.is_none());
        let known: Vec<u64> = free.map(|(index, _)| *index).collect();
        assert_eq!(stored.iter().map(|item| item.index).collect::<Vec<_>>(), known);
        let rear = QueueId {
            side: Side::InputRear,
            ..queue()
        };
        let rear = self
            .store
            .queue(&rear)
            .await
            .unwrap()
            .map_or(0, |rear| rear.length);
        assert_eq!(rear, self.model.rear);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]
    #[test]
    fn a_queue_lives_as_the_model_says(verbs in verbs()) {
        live(verbs);
    }
}

fn live(verbs: Vec<Verb>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(async {
        let mut run = Run::new();
        for verb in verbs {
            run.step(verb).await;
        }
        run.check().await;
        run.crash().await;
        run.check().await;
    });
}

// Lives that went wrong once.

const fn put(priority: i32) -> Verb {
    Verb::Put {
        priority,
        tagged: false,
        name: None,
    }
}

const fn join(consumer: u8) -> Verb {
    Verb::Join {
        group: 0,
        consumer,
        window: 1,
        new: false,
        auto: false,
        tagged: false,
    }
}

const fn take(at_most: u32) -> Verb {
    Verb::Take {
        group: 0,
        at_least: 1,
        at_most,
        from: 0,
    }
}

const fn deliver(session: usize, at_most: u32) -> Verb {
    Verb::Deliver { session, at_most }
}

#[test]
fn what_a_get_gave_back_does_not_go_before_a_better_item() {
    let hold = Verb::Advance(HOLD.as_secs());
    let look_past_it = [join(0), put(0), take(1), deliver(0, 1)];
    live([&look_past_it[..], &[hold, put(1), deliver(0, 1)]].concat());
}

#[test]
fn what_a_get_gave_back_is_delivered_once() {
    let hold = Verb::Advance(HOLD.as_secs());
    let look_past_them = [
        put(0),
        put(0),
        put(0),
        join(1),
        take(2),
        join(0),
        deliver(0, 1),
        join(0),
    ];
    let better_one_comes = [deliver(2, 1), hold, put(1), deliver(2, 1)];
    live(
        [
            &look_past_them[..],
            &better_one_comes,
            &[join(2), deliver(3, 3), deliver(0, 3)],
        ]
        .concat(),
    );
}
