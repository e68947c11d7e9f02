//! An `AttemptLink` in memory, for tests: hands out attempts, keeps what it is told, fails on demand.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::{
    AttemptOutcome, BlobKey, Fence, JobId, JobState,
    attempt::{Lease, RunningOn},
    event::NewEvent,
    output::{Output, OutputBody},
};
use futures::TryStreamExt;
use tokio::sync::watch;
use uuid::Uuid;

use crate::link::{
    Assignment, AttemptLink, Bounds, ComfyWork, Completion, Ephemeral, InputSource, LinkError, ProducedBody,
    ProducedFile, StopCause,
};

/// The lease of test job `n`.
pub fn lease(n: u128) -> Lease {
    Lease {
        job: JobId::from_uuid(Uuid::from_u128(n)),
        fence: Fence(i64::try_from(n).expect("test numbers are small")),
    }
}

/// Test attempt `n` of that graph, with generous bounds.
pub fn assignment(n: u128, graph: serde_json::Value) -> Assignment {
    Assignment {
        lease: lease(n),
        attempt: 1,
        work: ComfyWork {
            graph,
            extra_data: serde_json::Map::new(),
            partial_execution_targets: None,
            outputs: Vec::new(),
            files: Vec::new(),
        },
        resume: None,
        may_restart: false,
        bounds: Bounds {
            execution_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(60),
            cancel_grace: Duration::from_secs(2),
        },
    }
}

/// See the module.
pub struct MemoryLink {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Assignment>,
    closed: bool,
    attempts: HashMap<Lease, Seen>,
    inputs: BTreeMap<String, Bytes>,
    blobs: BTreeMap<String, Vec<u8>>,
    failing_events: u32,
    refused_events: u32,
    blobs_away: bool,
    can_reuse: bool,
}

/// What the link saw of one attempt.
#[derive(Default, Clone)]
struct Seen {
    told: Vec<String>,
    events: Vec<NewEvent>,
    batches: Vec<usize>,
    started: Vec<RunningOn>,
    collecting: bool,
    stop: Option<StopCause>,
    stale: bool,
    finished: Option<Completion>,
    abandoned: bool,
    previews: Vec<Bytes>,
}

impl MemoryLink {
    /// A link without work.
    pub fn new() -> Arc<Self> {
        Arc::new(MemoryLink {
            state: Mutex::default(),
            changed: watch::Sender::new(0),
        })
    }

    /// Queues an attempt.
    pub fn give(&self, assignment: Assignment) {
        self.change(|s| s.waiting.push_back(assignment));
    }

    /// No more work: slots close once the queue is empty.
    pub fn close(&self) {
        self.change(|s| s.closed = true);
    }

    /// Makes the bytes of an input available under that key.
    pub fn add_input(&self, key: &str, bytes: impl Into<Bytes>) {
        let bytes = bytes.into();
        self.change(|s| s.inputs.insert(key.to_owned(), bytes));
    }

    /// Asks an attempt to stop.
    pub fn stop(&self, lease: Lease, cause: StopCause) {
        self.change(|s| s.attempts.entry(lease).or_default().stop = Some(cause));
    }

    /// Every later write under the lease is refused.
    pub fn make_stale(&self, lease: Lease) {
        self.change(|s| s.attempts.entry(lease).or_default().stale = true);
    }

    /// The next `n` calls of `event` are unavailable.
    pub fn fail_events(&self, n: u32) {
        self.change(|s| s.failing_events = n);
    }

    /// The next `n` calls of `event` are refused for good.
    pub fn refuse_events(&self, n: u32) {
        self.change(|s| s.refused_events = n);
    }

    /// How many calls of `event` will still be unavailable.
    pub fn failing_events(&self) -> u32 {
        self.state().failing_events
    }

    /// While away, no output can be stored.
    pub fn set_blobs_away(&self, away: bool) {
        self.change(|s| s.blobs_away = away);
    }

    /// Whether stored outputs may be used again by other jobs.
    pub fn allow_reuse(&self) {
        self.change(|s| s.can_reuse = true);
    }

    /// Durable events (`kind data`) and ephemerals (their text), in the order they came.
    pub fn told(&self, lease: Lease) -> Vec<String> {
        self.seen(lease).told
    }

    /// Durable events.
    pub fn events(&self, lease: Lease) -> Vec<NewEvent> {
        self.seen(lease).events
    }

    /// Sizes of the batches in which durable events came.
    pub fn batches(&self, lease: Lease) -> Vec<usize> {
        self.seen(lease).batches
    }

    /// Where the attempt ran, one per posted prompt.
    pub fn started_on(&self, lease: Lease) -> Vec<RunningOn> {
        self.seen(lease).started
    }

    /// Whether the slot was freed while outputs still waited.
    pub fn was_collecting(&self, lease: Lease) -> bool {
        self.seen(lease).collecting
    }

    /// Preview images.
    pub fn previews(&self, lease: Lease) -> Vec<Bytes> {
        self.seen(lease).previews
    }

    /// How the attempt ended, if it did.
    pub fn finished(&self, lease: Lease) -> Option<Completion> {
        self.seen(lease).finished
    }

    /// Whether the slot let go of the attempt without an end.
    pub fn was_abandoned(&self, lease: Lease) -> bool {
        self.seen(lease).abandoned
    }

    /// The stored bytes of an output.
    pub fn bytes_of(&self, output: &Output) -> Option<Vec<u8>> {
        match &output.body {
            OutputBody::File { key, .. } => self.state().blobs.get(key.as_str()).cloned(),
            OutputBody::Text { text } => Some(text.clone().into_bytes()),
        }
    }

    /// Waits, at most two minutes, until the attempt ended.
    pub async fn end_of(&self, lease: Lease) -> Completion {
        self.until(|| self.finished(lease)).await
    }

    /// Waits, at most two minutes, until `probe` has an answer; it is asked again after every change.
    pub async fn until<T>(&self, probe: impl Fn() -> Option<T>) -> T {
        let mut changes = self.changed.subscribe();
        let found = tokio::time::timeout(Duration::from_secs(120), async {
            loop {
                changes.mark_unchanged();
                if let Some(found) = probe() {
                    return found;
                }
                changes.changed().await.expect("the sender lives in self");
            }
        });
        found
            .await
            .expect("what a test waits for should happen within two minutes")
    }

    fn seen(&self, lease: Lease) -> Seen {
        self.state().attempts.get(&lease).cloned().unwrap_or_default()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        let result = with(&mut self.state());
        self.changed.send_modify(|n| *n += 1);
        result
    }

    fn write<T>(&self, lease: Lease, with: impl FnOnce(&mut Seen) -> T) -> Result<T, LinkError> {
        self.change(|s| {
            let seen = s.attempts.entry(lease).or_default();
            if seen.stale || seen.finished.is_some() {
                return Err(LinkError::Stale);
            }
            Ok(with(seen))
        })
    }
}

#[async_trait]
impl AttemptLink for MemoryLink {
    async fn next(&self) -> Option<Assignment> {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            {
                let mut state = self.state();
                if let Some(assignment) = state.waiting.pop_front() {
                    return Some(assignment);
                }
                if state.closed {
                    return None;
                }
            }
            changes.changed().await.ok()?;
        }
    }

    async fn started(&self, lease: Lease, on: RunningOn) -> Result<(), LinkError> {
        self.write(lease, |seen| seen.started.push(on))
    }

    async fn input(&self, _: Lease, source: &InputSource) -> Result<Bytes, LinkError> {
        let key = match source {
            InputSource::Blob(key) => key.as_str(),
            InputSource::Url(address) => &address.url,
        };
        let missing = || LinkError::InputUnavailable(format!("the input '{key}' is not there"));
        self.state().inputs.get(key).cloned().ok_or_else(missing)
    }

    async fn event(&self, lease: Lease, events: Vec<NewEvent>) -> Result<(), LinkError> {
        let failing = self.change(|s| {
            let failing = s.failing_events > 0;
            s.failing_events = s.failing_events.saturating_sub(1);
            failing
        });
        if failing {
            return Err(LinkError::Unavailable("events fail for a test".into()));
        }
        let refused = self.change(|s| {
            let refused = s.refused_events > 0;
            s.refused_events = s.refused_events.saturating_sub(1);
            refused
        });
        if refused {
            return Err(LinkError::Rejected("events are refused for a test".into()));
        }
        self.write(lease, |seen| {
            seen.batches.push(events.len());
            for event in events {
                seen.told.push(format!("{} {}", event.kind.as_str(), event.data));
                seen.events.push(event);
            }
        })
    }

    fn progress(&self, lease: Lease, what: Ephemeral) {
        let _ = self.write(lease, |seen| match what {
            Ephemeral::Message(text) => seen.told.push(text.to_string()),
            Ephemeral::Preview { bytes, .. } => {
                seen.told.push("preview".into());
                seen.previews.push(bytes);
            }
        });
    }

    async fn collecting(&self, lease: Lease) -> Result<(), LinkError> {
        self.write(lease, |seen| seen.collecting = true)
    }

    async fn put_output(&self, lease: Lease, file: ProducedFile) -> Result<Output, LinkError> {
        if self.state().blobs_away {
            return Err(LinkError::Unavailable("the blob store is away for a test".into()));
        }
        let unavailable = |error: std::io::Error| LinkError::Unavailable(error.to_string());
        let bytes = match file.body {
            ProducedBody::Path(path) => tokio::fs::read(path).await.map_err(unavailable)?,
            ProducedBody::Stream(stream) => {
                let parts: Vec<Bytes> = stream.try_collect().await.map_err(unavailable)?;
                parts.concat()
            }
        };
        self.write(lease, |_| ())?;
        let size = bytes.len() as u64;
        let key = self.change(|s| {
            let unguessable = Uuid::from_u128(s.blobs.len() as u128);
            let key = BlobKey::output(lease.job, unguessable, &file.file_name);
            s.blobs.insert(key.as_str().to_owned(), bytes);
            key
        });
        Ok(Output {
            node_id: file.node_id,
            kind: file.kind,
            index: file.index,
            body: OutputBody::File {
                key,
                size,
                content_type: "application/octet-stream".into(),
                blake3: String::new(),
            },
            raw: file.raw,
        })
    }

    async fn reuse_output(&self, lease: Lease, output: Output) -> Result<Option<Output>, LinkError> {
        self.write(lease, |_| ())?;
        Ok(self.state().can_reuse.then_some(output))
    }

    async fn finish(&self, lease: Lease, completion: Completion) -> Result<JobState, LinkError> {
        let state = match &completion.outcome {
            AttemptOutcome::Done => JobState::Succeeded,
            AttemptOutcome::Failed(_) => JobState::Failed,
            AttemptOutcome::Cancelled => JobState::Cancelled,
            AttemptOutcome::Lost { .. } | AttemptOutcome::Released { .. } => JobState::Queued,
        };
        self.write(lease, |seen| seen.finished = Some(completion))?;
        Ok(state)
    }

    fn abandoned(&self, lease: Lease) {
        self.change(|s| s.attempts.entry(lease).or_default().abandoned = true);
    }

    async fn cancelled(&self, lease: Lease) -> StopCause {
        let mut changes = self.changed.subscribe();
        loop {
            changes.mark_unchanged();
            let seen = self.seen(lease);
            if let Some(cause) = seen.stop {
                return cause;
            }
            if seen.stale {
                return StopCause::Stale;
            }
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}
