//! How busy a slot is, as the control loop reads it, and what its instance has in memory, as its claims say it.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use darkroom_core::Timestamp;

/// Counts of one slot; written by the slot's link, read by the planner.
#[derive(Debug, Default)]
pub struct SlotActivity {
    busy: AtomicU64,
    collecting: AtomicU64,
    ended: AtomicU64,
    idle_since_micros: AtomicU64,
    /// 0: one.
    slots: AtomicU64,
    loaded: Mutex<Vec<String>>,
}

impl SlotActivity {
    /// Attempts that hold the slot now.
    pub fn busy(&self) -> u64 {
        self.busy.load(Ordering::Acquire)
    }
    /// Attempts whose slot is free but whose outputs are not stored yet.
    pub fn collecting(&self) -> u64 {
        self.collecting.load(Ordering::Acquire)
    }
    /// Attempts that ended here.
    pub fn ended(&self) -> u64 {
        self.ended.load(Ordering::Acquire)
    }
    /// Since when it has been idle, in microseconds since the epoch; 0: never was busy.
    pub fn idle_since_micros(&self) -> u64 {
        self.idle_since_micros.load(Ordering::Acquire)
    }

    /// Jobs it can run at once.
    pub fn slots(&self) -> u32 {
        u32::try_from(self.slots.load(Ordering::Acquire))
            .unwrap_or(u32::MAX)
            .max(1)
    }

    /// A worker runs so many jobs at once, as it says.
    pub(in crate::service) fn set_slots(&self, slots: u32) {
        self.slots.store(slots.into(), Ordering::Release);
    }

    /// A worker is at so many jobs now.
    pub(in crate::service) fn occupy(&self, busy: u64, now: Timestamp) {
        if self.busy.swap(busy, Ordering::AcqRel) > 0 && busy == 0 {
            let now = u64::try_from(now.as_micros()).unwrap_or(0);
            self.idle_since_micros.store(now, Ordering::Release);
        }
    }

    /// An attempt of a worker ended.
    pub(in crate::service) fn ended_one(&self) {
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    /// The models that the last job which loaded any left in the instance's memory.
    pub(super) fn loaded(&self) -> Vec<String> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A job that loads these ended well. One that loads none drives out none.
    pub(super) fn ran_with(&self, models: &[String]) {
        if !models.is_empty() {
            *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = models.to_vec();
        }
    }

    pub(super) fn began(&self) {
        self.busy.fetch_add(1, Ordering::AcqRel);
    }

    /// The slot is free, what the attempt made is still being stored.
    pub(super) fn collects(&self, now: Timestamp) {
        self.collecting.fetch_add(1, Ordering::AcqRel);
        self.freed(now);
    }

    pub(super) fn end(&self, was_collecting: bool, now: Timestamp) {
        if was_collecting {
            self.collecting.fetch_sub(1, Ordering::AcqRel);
        } else {
            self.freed(now);
        }
        self.ended.fetch_add(1, Ordering::AcqRel);
    }

    fn freed(&self, now: Timestamp) {
        let now = u64::try_from(now.as_micros()).unwrap_or(0);
        self.idle_since_micros.store(now, Ordering::Release);
        self.busy.fetch_sub(1, Ordering::AcqRel);
    }
}
