//! What followers of a job see at once and nobody stores: progress, previews, and the wish that a running attempt stop.
//!
//! Everything lives in memory, last value per job and node. An entry exists while an attempt runs or somebody follows.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use darkroom_core::{JobId, attempt::Lease};
use darkroom_runner::link::Ephemeral;
use tokio::sync::{
    Notify,
    broadcast::{
        self,
        error::{RecvError, TryRecvError},
    },
    oneshot,
};

use super::run_progress::Counting;

/// Ephemeral events that a slow follower may be behind before it skips some.
const BACKLOG: usize = 256;

/// One ephemeral event in the order of the run.
#[derive(Debug, Clone)]
pub struct Live {
    /// The durable event of the job after which it happened: a follower shows durable ones up to here first.
    pub after: u64,
    /// What happened.
    pub what: Ephemeral,
}

/// A picture of what a node is making.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    /// Which node, where its instance says.
    pub node_id: Option<String>,
    /// Media type.
    pub content_type: &'static str,
    /// The picture.
    pub bytes: Bytes,
}

/// The ephemeral side of all jobs of this process.
#[derive(Debug, Default)]
pub struct Hub {
    channels: Mutex<HashMap<JobId, Channel>>,
}

#[derive(Debug)]
struct Channel {
    /// Made when an attempt meets a follower: else there is nothing to hear or nobody to hear it, and the backlog takes memory.
    live: Option<broadcast::Sender<Live>>,
    /// Followers from before the first attempt.
    early: Vec<oneshot::Sender<broadcast::Receiver<Live>>>,
    stop: Arc<Notify>,
    /// The newest attempt of this process; an older one that ends late says nothing about it.
    running: Option<Lease>,
    last_progress: Option<Arc<str>>,
    last_preview: Option<Preview>,
    /// How far its run was counted.
    counting: Counting,
}

impl Channel {
    fn new() -> Self {
        Channel {
            live: None,
            early: Vec::new(),
            stop: Arc::new(Notify::new()),
            running: None,
            last_progress: None,
            last_preview: None,
            counting: Counting::default(),
        }
    }

    fn is_followed(&self) -> bool {
        self.live.as_ref().is_some_and(|live| live.receiver_count() > 0)
            || self.early.iter().any(|early| !early.is_closed())
    }

    /// What followers of the attempt that runs hear.
    fn open(&mut self) -> &broadcast::Sender<Live> {
        self.live.get_or_insert_with(|| broadcast::channel(BACKLOG).0)
    }

    /// An attempt begins: whoever follows already hears all of it.
    fn admit_early(&mut self) {
        for early in std::mem::take(&mut self.early) {
            if !early.is_closed() {
                let _ = early.send(self.open().subscribe());
            }
        }
    }
}

/// A follower's ear.
#[derive(Debug)]
pub enum Listener {
    /// The job has not begun yet.
    Early(oneshot::Receiver<broadcast::Receiver<Live>>),
    /// It has.
    Open(broadcast::Receiver<Live>),
}

impl Listener {
    /// The next event; cancel-safe.
    ///
    /// # Errors
    /// When some were missed, or there will be no more.
    pub async fn recv(&mut self) -> Result<Live, RecvError> {
        if let Listener::Early(early) = self {
            *self = Listener::Open(early.await.map_err(|_| RecvError::Closed)?);
        }
        match self {
            Listener::Open(live) => live.recv().await,
            Listener::Early(_) => Err(RecvError::Closed),
        }
    }

    /// The next event, if there is one now.
    pub fn heard(&mut self) -> Option<Live> {
        if let Listener::Early(early) = self {
            *self = Listener::Open(early.try_recv().ok()?);
        }
        let Listener::Open(live) = self else { return None };
        loop {
            match live.try_recv() {
                Ok(event) => return Some(event),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => return None,
            }
        }
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, HashMap<JobId, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows a job's ephemeral events from now on.
    pub fn follow(&self, job: JobId) -> Listener {
        let mut channels = self.lock();
        let channel = channels.entry(job).or_insert_with(Channel::new);
        if channel.running.is_some() || channel.live.is_some() {
            return Listener::Open(channel.open().subscribe());
        }
        let (tell, told) = oneshot::channel();
        channel.early.retain(|early| !early.is_closed());
        channel.early.push(tell);
        Listener::Early(told)
    }

    /// Gives up an entry that nobody runs or follows any more; called when a follower ends.
    pub fn release(&self, job: JobId) {
        let mut channels = self.lock();
        if channels
            .get(&job)
            .is_some_and(|c| c.running.is_none() && !c.is_followed())
        {
            channels.remove(&job);
        }
    }

    /// An attempt began; the result resolves whenever somebody wishes that it stop.
    pub fn attempt_began(&self, lease: Lease) -> Arc<Notify> {
        let mut channels = self.lock();
        let channel = channels.entry(lease.job).or_insert_with(Channel::new);
        channel.running = Some(lease);
        channel.admit_early();
        channel.last_progress = None;
        channel.last_preview = None;
        // Its own: an attempt whose lease is gone must not take the wish away from the one that runs.
        channel.stop = Arc::new(Notify::new());
        channel.stop.clone()
    }

    /// The attempt ended; nothing happens when another one of its job began meanwhile.
    pub fn attempt_ended(&self, lease: Lease) {
        if let Some(channel) = self.lock().get_mut(&lease.job)
            && channel.running == Some(lease)
        {
            channel.running = None;
        }
        self.release(lease.job);
    }

    /// Shows something to the job's followers.
    pub fn publish(&self, job: JobId, live: Live) {
        let mut channels = self.lock();
        let Some(channel) = channels.get_mut(&job) else {
            return;
        };
        match &live.what {
            Ephemeral::Message(text) => channel.last_progress = Some(text.clone()),
            Ephemeral::Preview {
                node_id,
                content_type,
                bytes,
            } => {
                channel.last_preview = Some(Preview {
                    node_id: node_id.clone(),
                    content_type,
                    bytes: bytes.clone(),
                });
            }
        }
        // Nobody listening is no error: the last value stays for whoever comes.
        if let Some(open) = &channel.live {
            let _ = open.send(live);
        }
    }

    /// The last progress of a running attempt, as ComfyUI sent it.
    pub fn last_progress(&self, job: JobId) -> Option<Arc<str>> {
        self.lock().get(&job).and_then(|c| c.last_progress.clone())
    }

    /// The last preview of a running attempt.
    pub fn last_preview(&self, job: JobId) -> Option<Preview> {
        self.lock().get(&job).and_then(|c| c.last_preview.clone())
    }

    /// Where a job's run is counted, for all who ask while it runs or is followed.
    pub fn counting(&self, job: JobId) -> Option<Counting> {
        self.lock().get(&job).map(|c| c.counting.clone())
    }

    /// Tells a running attempt to look whether it should stop.
    pub fn wake_attempt(&self, job: JobId) {
        if let Some(channel) = self.lock().get(&job) {
            channel.stop.notify_one();
        }
    }

    /// How many jobs have an entry; for tests and metrics.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is no entry at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use darkroom_core::attempt::Fence;

    use super::*;

    fn job() -> JobId {
        JobId::from_uuid(uuid::Uuid::from_u128(7))
    }

    fn lease(fence: i64) -> Lease {
        Lease {
            job: job(),
            fence: Fence(fence),
        }
    }

    fn message(text: &str) -> Live {
        Live {
            after: 3,
            what: Ephemeral::Message(text.into()),
        }
    }

    #[tokio::test]
    async fn an_entry_lives_while_it_is_run_or_followed() {
        let hub = Hub::default();
        hub.publish(job(), message("dropped"));
        assert!(hub.is_empty(), "publishing alone keeps nothing");
        hub.attempt_began(lease(1));
        hub.publish(job(), message("a"));
        assert_eq!(hub.last_progress(job()).as_deref(), Some("a"));
        let mut follower = hub.follow(job());
        hub.publish(job(), message("b"));
        assert_eq!(
            follower.recv().await.unwrap().what,
            Ephemeral::Message("b".into())
        );
        hub.attempt_ended(lease(1));
        assert_eq!(hub.len(), 1, "still followed");
        drop(follower);
        hub.release(job());
        assert!(hub.is_empty());
    }

    #[tokio::test]
    async fn who_follows_before_the_job_begins_hears_all_of_it() {
        let hub = Hub::default();
        let mut early = hub.follow(job());
        hub.publish(job(), message("of nobody"));
        hub.attempt_began(lease(1));
        hub.publish(job(), message("first"));
        hub.attempt_ended(lease(1));
        hub.attempt_began(lease(2));
        hub.publish(job(), message("second"));
        for expected in ["first", "second"] {
            let heard = early.recv().await.unwrap();
            assert_eq!(heard.what, Ephemeral::Message(expected.into()));
        }
        hub.attempt_ended(lease(2));
        drop(early);
        hub.release(job());
        drop(hub.follow(job()));
        hub.release(job());
        assert!(hub.is_empty());
    }

    #[tokio::test]
    async fn a_wish_to_stop_is_not_lost_before_anybody_waits() {
        let hub = Hub::default();
        let stop = hub.attempt_began(lease(1));
        hub.wake_attempt(job());
        stop.notified().await;
    }

    #[tokio::test]
    async fn an_older_attempt_that_ends_late_takes_nothing_from_the_newer_one() {
        let hub = Hub::default();
        hub.attempt_began(lease(1));
        let stop = hub.attempt_began(lease(2));
        hub.publish(job(), message("of the second"));
        hub.attempt_ended(lease(1));
        assert_eq!(hub.last_progress(job()).as_deref(), Some("of the second"));
        hub.wake_attempt(job());
        stop.notified().await;
        hub.attempt_ended(lease(2));
        assert!(hub.is_empty());
    }
}
