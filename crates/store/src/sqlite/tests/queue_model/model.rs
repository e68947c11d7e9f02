//! The model: one queue as the words of the trait have it, without a store.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use darkroom_core::Timestamp;

use crate::queues::Session;

pub(super) const GRACE: Duration = Duration::from_secs(5);
pub(super) const MAX_IDLE: Duration = Duration::from_secs(20);
pub(super) const MAX_DELIVERY: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Pending,
    Returned,
    Committed,
}

#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub state: State,
    pub consumer: Option<u8>,
    pub times: u32,
    pub at: Timestamp,
}

#[derive(Debug)]
pub(super) struct Consumer {
    pub session: Session,
    pub left_at: Option<Timestamp>,
    pub start: u64,
    pub window: u32,
    pub auto: bool,
    pub tagged: bool,
}

#[derive(Debug)]
pub(super) struct Item {
    pub priority: i32,
    pub tagged: bool,
    pub taken_until: Option<Timestamp>,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub last: u64,
    pub items: BTreeMap<u64, Item>,
    pub rear: u64,
    pub names: BTreeMap<u8, u64>,
    pub groups: BTreeSet<u8>,
    pub consumers: BTreeMap<(u8, u8), Consumer>,
    pub deliveries: BTreeMap<(u8, u64), Delivery>,
}

impl Model {
    pub fn length(&self) -> u64 {
        self.items.values().filter(|i| i.taken_until.is_none()).count() as u64
    }

    pub fn remove(&mut self, index: u64) -> bool {
        self.deliveries.retain(|(_, i), _| *i != index);
        self.items.remove(&index).is_some()
    }

    pub fn commit(&mut self, group: u8, index: u64) {
        self.deliveries.get_mut(&(group, index)).unwrap().state = State::Committed;
        let done =
            |g: &u8| matches!(self.deliveries.get(&(*g, index)), Some(d) if d.state == State::Committed);
        if self.groups.iter().all(done) {
            self.remove(index);
        }
    }

    pub fn return_taken(&mut self, now: Timestamp) {
        for item in self.items.values_mut() {
            if item.taken_until.is_some_and(|until| until <= now) {
                item.taken_until = None;
            }
        }
    }

    /// What a session gets, by the words of the trait.
    pub fn deliver(&mut self, group: u8, me: u8, at_most: u32, now: Timestamp) -> Vec<u64> {
        self.return_taken(now);
        for ((g, _), d) in &mut self.deliveries {
            if *g != group || d.state == State::Committed {
                continue;
            }
            let gone = d.consumer.filter(|c| *c != me).is_some_and(|c| {
                self.consumers[&(group, c)]
                    .left_at
                    .is_some_and(|at| at.plus(GRACE) <= now)
            });
            let idle = d.state == State::Pending && d.at.plus(MAX_IDLE) <= now;
            if gone || idle {
                *d = Delivery {
                    state: State::Returned,
                    consumer: None,
                    at: now,
                    times: d.times,
                };
            }
        }
        let consumer = &self.consumers[&(group, me)];
        let mine = |d: &Delivery| d.state == State::Pending && d.consumer == Some(me);
        let held = self
            .deliveries
            .iter()
            .filter(|((g, _), d)| *g == group && mine(d))
            .count();
        let room = match consumer.auto {
            true => at_most,
            false => consumer
                .window
                .saturating_sub(u32::try_from(held).unwrap())
                .min(at_most),
        } as usize;
        let fits = |index: u64, item: &Item| {
            index >= consumer.start && item.taken_until.is_none() && (!consumer.tagged || item.tagged)
        };
        let mut order: Vec<u64> = self.items.keys().copied().collect();
        order.sort_by_key(|index| (std::cmp::Reverse(self.items[index].priority), *index));
        let mut returned = Vec::new();
        let mut new = Vec::new();
        let mut tired = Vec::new();
        for index in order {
            if !fits(index, &self.items[&index]) {
                continue;
            }
            match self.deliveries.get(&(group, index)) {
                None if new.len() < room => new.push(index),
                Some(d) if d.state == State::Returned && d.consumer.is_none_or(|c| c == me) => {
                    if returned.len() == room {
                        continue;
                    }
                    match d.times >= MAX_DELIVERY {
                        true => tired.push(index),
                        false => returned.push(index),
                    }
                }
                None | Some(_) => {}
            }
        }
        for index in tired {
            self.rear += 1;
            self.commit(group, index);
        }
        let mut best: Vec<u64> = returned.into_iter().chain(new).collect();
        best.sort_by_key(|index| (std::cmp::Reverse(self.items[index].priority), *index));
        best.truncate(room);
        for index in &best {
            let times = self.deliveries.get(&(group, *index)).map_or(0, |d| d.times) + 1;
            let delivery = Delivery {
                state: State::Pending,
                consumer: Some(me),
                times,
                at: now,
            };
            self.deliveries.insert((group, *index), delivery);
        }
        best
    }
}
