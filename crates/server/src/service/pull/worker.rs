//! One worker: what it holds, whether it may have more, and who waits for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use darkroom_core::{
    EndpointName, InstanceId, JobId, Timestamp,
    attempt::Lease,
    presence::{Heard, Judgement, PING_INTERVAL, Watch},
};
use tokio::sync::watch;

use super::External;
use crate::service::attempts::SlotActivity;

/// What a worker may have from us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Jobs.
    Serving,
    /// No more jobs: its polls are held and answered with nothing.
    Draining,
    /// It is about to be told to end, which it hears between two polls: they are answered at once.
    Leaving,
    /// Nothing: it is no more.
    Gone,
}

/// Why a worker has to be ended by force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condemned {
    /// It goes on with a job that was ended; what else it holds must not suffer from that.
    Stuck(String),
    /// It says nothing any more, or that it cannot work: what it holds is lost.
    Broken(String),
}

/// A worker; see the module.
pub struct Worker {
    /// Whose jobs it takes.
    pub endpoint: EndpointName,
    /// How it calls itself in its requests.
    pub name: String,
    /// The instance it is.
    pub instance: InstanceId,
    /// The key it came with; `None`: whoever comes with its name. Meaningless for those that we started.
    key: Option<String>,
    managed: bool,
    activity: Arc<SlotActivity>,
    phase: watch::Sender<Phase>,
    /// Counts up when there is something to tell over the stop channel.
    stops: watch::Sender<u64>,
    /// Why it has to be ended by force, once it has.
    condemned: watch::Sender<Option<Condemned>>,
    /// It was heard of, or said that it cannot work.
    first_word: watch::Sender<Option<Result<(), String>>>,
    /// It asked to be replaced.
    worn_out: watch::Sender<bool>,
    listening: AtomicUsize,
    /// Of those, which were open before it was about to be told to end.
    asked_before: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    watch: Watch,
    held: BTreeMap<JobId, Held>,
    to_stop: BTreeSet<JobId>,
    slots: u32,
}

/// A job in a worker's hands.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) lease: Lease,
    /// When its lease was renewed last, on the monotonic clock.
    pub(super) renewed_at: Duration,
    /// The last durable event that we know of.
    pub(super) last_event: u64,
    /// What it yielded so far.
    pub(super) chunks: u64,
    /// Of that, what lies in rows.
    pub(super) chunk_bytes: u64,
    /// And all of it.
    pub(super) yielded_bytes: u64,
}

/// Counts an open connection of a worker as long as it lives.
pub(super) struct Listening<'a> {
    worker: &'a Worker,
    asked_before: bool,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.worker.listening.fetch_sub(1, Ordering::AcqRel);
        if self.asked_before {
            self.worker.asked_before.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Worker {
    /// One that we start as this instance; it was not heard of yet.
    pub(crate) fn managed(
        endpoint: EndpointName,
        instance: InstanceId,
        activity: Arc<SlotActivity>,
        ping_interval: Duration,
        now: Duration,
    ) -> Self {
        let mut worker = Self::new(endpoint, instance.to_string(), instance, now);
        worker.managed = true;
        worker.activity = activity;
        worker.lock().watch.set_ping_interval(ping_interval);
        worker
    }

    /// One that came by itself.
    pub(super) fn external(
        endpoint: EndpointName,
        instance: InstanceId,
        external: External,
        now: Duration,
    ) -> Self {
        let mut worker = Self::new(endpoint, external.worker, instance, now);
        worker.key = external.key;
        worker.first_word.send_replace(Some(Ok(())));
        worker
    }

    fn new(endpoint: EndpointName, name: String, instance: InstanceId, now: Duration) -> Self {
        Worker {
            endpoint,
            name,
            instance,
            key: None,
            managed: false,
            activity: Arc::default(),
            phase: watch::Sender::new(Phase::Serving),
            stops: watch::Sender::new(0),
            condemned: watch::Sender::new(None),
            first_word: watch::Sender::new(None),
            worn_out: watch::Sender::new(false),
            listening: AtomicUsize::new(0),
            asked_before: AtomicUsize::new(0),
            state: Mutex::new(State {
                watch: Watch::new(PING_INTERVAL, now),
                held: BTreeMap::new(),
                to_stop: BTreeSet::new(),
                slots: 1,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether we started it, and can end it.
    pub fn is_managed(&self) -> bool {
        self.managed
    }

    /// Whether who comes with this key may speak for it. Those that we started have tokens of their own.
    pub fn may_speak(&self, key: Option<&str>) -> bool {
        !self.managed && self.key.as_deref() == key
    }

    /// The key it came with.
    pub(super) fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// What the planner reads of it.
    pub(crate) fn activity(&self) -> Arc<SlotActivity> {
        self.activity.clone()
    }

    /// What it may have from us.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub(super) fn phases(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// From now on it may have no more than this; a phase never goes back.
    pub(crate) fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    /// Something changed that its polls wait for.
    pub(crate) fn look_again(&self) {
        self.phase.send_modify(|_| {});
    }

    /// Whether it was heard of at all.
    pub(super) fn was_heard(&self) -> bool {
        self.first_word.borrow().is_some()
    }

    /// It said something.
    pub(super) fn hear(&self, heard: &Heard, now: Timestamp, monotonic: Duration) {
        {
            let mut state = self.lock();
            state.watch.hear(heard, monotonic);
            let State { watch, to_stop, .. } = &mut *state;
            to_stop.retain(|job| watch.may_be_at(*job));
            self.tell_activity(&state, now);
        }
        self.first_word.send_if_modified(|word| {
            let first = word.is_none();
            word.get_or_insert(Ok(()));
            first
        });
    }

    /// It pings this often, as it says.
    pub fn set_ping_interval(&self, interval: Duration) {
        self.lock().watch.set_ping_interval(interval);
    }

    /// It runs so many jobs at a time, as its polls say.
    pub(super) fn asks_for(&self, wanted: usize) {
        let mut state = self.lock();
        let slots = state.watch.occupied().saturating_add(wanted).max(1);
        state.slots = u32::try_from(slots).unwrap_or(u32::MAX);
        self.activity.set_slots(state.slots);
    }

    /// It cannot work, and says why; what it says first counts.
    pub fn is_unhealthy(&self, reason: String) {
        self.first_word.send_if_modified(|word| {
            let first = word.is_none();
            word.get_or_insert(Err(reason.clone()));
            first
        });
        self.condemn(Condemned::Broken(reason));
    }

    /// Resolves once it was heard of.
    ///
    /// # Errors
    /// What it said when it cannot work.
    pub(crate) async fn first_word(&self) -> Result<(), String> {
        let mut word = self.first_word.subscribe();
        let heard = word.wait_for(Option::is_some).await.map(|word| word.clone());
        match heard {
            Ok(Some(word)) => word,
            // The sender lives as long as the worker.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    /// It has to be ended by force.
    pub(crate) fn condemn(&self, why: Condemned) {
        self.condemned.send_if_modified(|now| {
            let is_worse = matches!(
                (&*now, &why),
                (None, _) | (Some(Condemned::Stuck(_)), Condemned::Broken(_))
            );
            if is_worse {
                *now = Some(why);
            }
            is_worse
        });
    }

    /// The reason if it is stuck with a job that was ended.
    pub(crate) fn stuck_with(&self) -> Option<String> {
        match &*self.condemned.borrow() {
            Some(Condemned::Stuck(reason)) => Some(reason.clone()),
            Some(Condemned::Broken(_)) | None => None,
        }
    }

    /// Resolves with the reason once it is stuck with a job that was ended.
    pub(crate) async fn stuck(&self) -> String {
        self.condemned_for(|why| match why {
            Condemned::Stuck(reason) => Some(reason.clone()),
            Condemned::Broken(_) => None,
        })
        .await
    }

    /// Resolves with the reason once it is broken.
    pub(crate) async fn broken(&self) -> String {
        self.condemned_for(|why| match why {
            Condemned::Broken(reason) => Some(reason.clone()),
            Condemned::Stuck(_) => None,
        })
        .await
    }

    async fn condemned_for(&self, reason_of: impl Fn(&Condemned) -> Option<String>) -> String {
        let mut condemned = self.condemned.subscribe();
        loop {
            let reason = condemned.borrow_and_update().as_ref().and_then(&reason_of);
            if let Some(reason) = reason {
                return reason;
            }
            if condemned.changed().await.is_err() {
                // The sender lives as long as the worker.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Its handler asked that it be replaced: it gets no more jobs.
    pub(super) fn wears_out(&self) {
        self.enter(Phase::Draining);
        self.worn_out.send_replace(true);
    }

    /// Resolves once it asked to be replaced.
    pub(crate) async fn worn_out(&self) {
        let mut worn_out = self.worn_out.subscribe();
        if worn_out.wait_for(|it_is| *it_is).await.is_err() {
            std::future::pending().await
        }
    }

    /// Whether it asked to be replaced.
    pub(crate) fn is_worn_out(&self) -> bool {
        *self.worn_out.borrow()
    }

    pub(super) fn listen(&self) -> Listening<'_> {
        let asked_before = self.phase() < Phase::Leaving;
        self.listening.fetch_add(1, Ordering::AcqRel);
        if asked_before {
            self.asked_before.fetch_add(1, Ordering::AcqRel);
        }
        Listening {
            worker: self,
            asked_before,
        }
    }

    /// Whether a poll of it is open that may have been answered with a job, had it not been about to end.
    pub(crate) fn waits_from_before(&self) -> bool {
        self.asked_before.load(Ordering::Acquire) > 0
    }

    /// Whether a poll of it is open.
    pub(crate) fn is_listening(&self) -> bool {
        self.listening.load(Ordering::Acquire) > 0
    }

    /// How many jobs it holds or may still be at.
    pub(crate) fn occupied(&self) -> usize {
        self.lock().watch.occupied()
    }

    /// Jobs it must not be given: it may be at them.
    pub(super) fn has(&self) -> Vec<JobId> {
        self.lock().watch.has().collect()
    }

    /// It holds a job from now on.
    pub(super) fn hold(&self, lease: Lease, ends_at: Duration, now: Timestamp, monotonic: Duration) {
        let held = Held {
            lease,
            renewed_at: monotonic,
            last_event: 0,
            chunks: 0,
            chunk_bytes: 0,
            yielded_bytes: 0,
        };
        let mut state = self.lock();
        state.watch.took(lease.job, ends_at, monotonic);
        state.to_stop.remove(&lease.job);
        state.held.insert(lease.job, held);
        self.tell_activity(&state, now);
    }

    /// A job that it holds may run until then, and no longer.
    pub(super) fn must_end(&self, job: JobId, ends_at: Duration) {
        self.lock().watch.must_end(job, ends_at);
    }

    /// The lease under which it holds a job.
    pub(super) fn lease_of(&self, job: JobId) -> Option<Lease> {
        self.lock().held.get(&job).map(|held| held.lease)
    }

    pub(super) fn held(&self) -> Vec<Held> {
        self.lock().held.values().cloned().collect()
    }

    pub(super) fn change_held<T>(&self, lease: Lease, change: impl FnOnce(&mut Held) -> T) -> Option<T> {
        let mut state = self.lock();
        let held = state.held.get_mut(&lease.job).filter(|held| held.lease == lease);
        held.map(change)
    }

    /// It is done with what it held under this lease, which counts as one of the jobs it ran. A job that was ended on it
    /// meanwhile counted then; one that it took again since is another.
    pub(super) fn is_done_with(&self, lease: Lease, now: Timestamp) {
        if self.forget(lease.job, Some(lease), now) {
            self.activity.ended_one();
        }
    }

    /// It is done with a job that was ended before.
    pub(super) fn is_done_with_ended(&self, job: JobId, now: Timestamp) {
        self.forget(job, None, now);
    }

    /// It never got what was claimed for it under this lease.
    pub(super) fn gave_back(&self, lease: Lease, now: Timestamp) {
        self.forget(lease.job, Some(lease), now);
    }

    /// Whether it held the job under the lease; nothing changes where it holds it under another.
    fn forget(&self, job: JobId, lease: Option<Lease>, now: Timestamp) -> bool {
        let mut state = self.lock();
        let held = state.held.get(&job).map(|held| held.lease);
        if held.is_some() && held != lease {
            return false;
        }
        state.held.remove(&job);
        state.to_stop.remove(&job);
        state.watch.is_done_with(job);
        self.tell_activity(&state, now);
        held.is_some()
    }

    /// We ended what it holds under this lease; it may be at it until `stuck_at`, and is told to stop. Nothing, when it holds
    /// that no more: a result came meanwhile.
    pub(super) fn goes_on_with(&self, lease: Lease, stuck_at: Duration) {
        {
            let mut state = self.lock();
            if state.held.get(&lease.job).is_none_or(|held| held.lease != lease) {
                return;
            }
            state.held.remove(&lease.job);
            state.watch.ended(lease.job, stuck_at);
            state.to_stop.insert(lease.job);
            self.activity.ended_one();
        }
        self.stops.send_modify(|n| *n += 1);
    }

    /// Whether it holds anything that counts.
    pub(crate) fn holds_any(&self) -> bool {
        !self.lock().held.is_empty()
    }

    /// A job it is stuck with was spoken about once.
    pub(super) fn leave_to_it(&self, job: JobId) {
        self.lock().watch.ended(job, Duration::MAX);
    }

    /// Takes all from it.
    pub(super) fn let_go_of_all(&self, now: Timestamp) -> Vec<Lease> {
        let mut state = self.lock();
        let held = std::mem::take(&mut state.held);
        for job in state.watch.has().collect::<Vec<_>>() {
            state.watch.is_done_with(job);
        }
        state.to_stop.clear();
        held.keys().for_each(|_| self.activity.ended_one());
        self.tell_activity(&state, now);
        held.into_values().map(|held| held.lease).collect()
    }

    pub(super) fn judge(&self, monotonic: Duration) -> Judgement {
        self.lock().watch.judge(self.is_listening(), monotonic)
    }

    pub(super) fn forgive(&self, gap: Duration) {
        self.lock().watch.forgive(gap);
    }

    pub(super) fn stops(&self) -> watch::Receiver<u64> {
        self.stops.subscribe()
    }

    /// Jobs it should stop and was not told of yet.
    pub(super) fn to_stop(&self) -> Vec<JobId> {
        self.lock().to_stop.iter().copied().collect()
    }

    /// It was told to stop these: they were written to its connection.
    pub fn was_told_to_stop(&self, jobs: &[JobId]) {
        let mut state = self.lock();
        for job in jobs {
            state.to_stop.remove(job);
        }
    }

    fn tell_activity(&self, state: &State, now: Timestamp) {
        self.activity.occupy(state.watch.occupied() as u64, now);
    }
}
