//! The in-process form of `AttemptLink`: one slot of one instance, claiming from the store and writing under its fence.
//!
//! Renewing the lease is done here, beside the slot, so that a busy slot never loses its job by being busy.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::{
    AttemptOutcome, BlobKey, EndpointName, InstanceId, JobId, JobState,
    attempt::{Lease, RunningOn},
    event::NewEvent,
    failure::FailureCode,
    output::{Output, OutputBody},
};
use darkroom_runner::link::{
    Assignment, AttemptLink, Bounds, ComfyWork, Completion, Ephemeral, InputSource, LinkError, ProducedBody,
    ProducedFile, StopCause,
};
use darkroom_store::{
    Topic,
    jobs::{Claim, Claimed, Finish, JobRecord},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::{Error, Service, hub::Live, intake};

/// How long a claim holds a job unless renewed. Long enough for a restart of the server (2 s) many times over, short
/// enough that a dead server's jobs do not wait long.
pub const LEASE: Duration = Duration::from_secs(30);

/// One slot of one instance.
pub struct SlotLink {
    service: Service,
    endpoint: EndpointName,
    instance: InstanceId,
    /// Claim nothing more once this is cancelled.
    draining: CancellationToken,
    resume: Mutex<VecDeque<(JobRecord, u32, Lease, RunningOn)>>,
    held: Mutex<HashMap<Lease, Arc<Held>>>,
    activity: Arc<SlotActivity>,
}

/// What the control loop reads about a slot.
#[derive(Debug, Default)]
pub struct SlotActivity {
    busy: AtomicU64,
    collecting: AtomicU64,
    ended: AtomicU64,
    idle_since_micros: AtomicU64,
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
}

/// A job in this slot's hands.
#[derive(Debug)]
struct Held {
    job: JobId,
    prompt_id: Mutex<Option<String>>,
    last_event: AtomicU64,
    collecting: std::sync::atomic::AtomicBool,
    stop: watch::Sender<Option<StopCause>>,
    ended: CancellationToken,
}

impl SlotLink {
    /// A slot of an instance; it claims until `draining` is cancelled.
    pub fn new(
        service: Service,
        endpoint: EndpointName,
        instance: InstanceId,
        draining: CancellationToken,
        activity: Arc<SlotActivity>,
    ) -> Self {
        SlotLink {
            service,
            endpoint,
            instance,
            draining,
            resume: Mutex::new(VecDeque::new()),
            held: Mutex::new(HashMap::new()),
            activity,
        }
    }

    /// An attempt that already runs on the instance, from before a restart: handed out first. Its lease is renewed from
    /// now on: the slot may have to wait long until its instance answers again.
    pub fn adopt(&self, job: JobRecord, attempt: u32, lease: Lease, on: RunningOn) {
        self.hold(lease, Some(on.prompt_id.clone()));
        self.resume
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back((job, attempt, lease, on));
    }

    fn held(&self, lease: Lease) -> Option<Arc<Held>> {
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&lease)
            .cloned()
    }

    /// Begins to hold a job: the keeper renews its lease and watches for wishes that it stop.
    fn hold(&self, lease: Lease, prompt_id: Option<String>) {
        let stop = self.service.hub.attempt_began(lease.job);
        let held = Arc::new(Held {
            job: lease.job,
            prompt_id: Mutex::new(prompt_id),
            last_event: AtomicU64::new(0),
            collecting: std::sync::atomic::AtomicBool::new(false),
            stop: watch::Sender::new(None),
            ended: CancellationToken::new(),
        });
        self.held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(lease, held.clone());
        self.activity.busy.fetch_add(1, Ordering::AcqRel);
        tokio::spawn(keep(self.service.clone(), lease, held, stop));
    }

    fn let_go(&self, lease: Lease) {
        let Some(held) = self
            .held
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&lease)
        else {
            return;
        };
        held.ended.cancel();
        if held.collecting.load(Ordering::Acquire) {
            self.activity.collecting.fetch_sub(1, Ordering::AcqRel);
        } else {
            self.slot_freed();
        }
        self.activity.ended.fetch_add(1, Ordering::AcqRel);
        self.service.hub.attempt_ended(held.job);
    }

    fn slot_freed(&self) {
        let now = u64::try_from(self.service.clock.now().as_micros()).unwrap_or(0);
        self.activity.idle_since_micros.store(now, Ordering::Release);
        self.activity.busy.fetch_sub(1, Ordering::AcqRel);
    }

    async fn assignment(&self, claimed: Claimed) -> Result<Assignment, Error> {
        let lease = Lease {
            job: claimed.job.id,
            fence: claimed.fence,
        };
        let bounds = self.bounds()?;
        let work = self.work(&claimed.job).await?;
        self.hold(lease, None);
        Ok(Assignment {
            lease,
            attempt: claimed.attempt,
            work,
            resume: None,
            bounds,
        })
    }

    fn bounds(&self) -> Result<Bounds, Error> {
        let limits = self.service.endpoint(&self.endpoint)?.limits;
        Ok(Bounds {
            execution_timeout: limits.execution_timeout,
            stall_timeout: limits.stall_timeout,
            cancel_grace: limits.cancel_grace,
        })
    }

    async fn work(&self, job: &JobRecord) -> Result<ComfyWork, Error> {
        let body = self.service.read_payload(&job.input).await?;
        let body =
            body.ok_or_else(|| Error::Internal(anyhow::anyhow!("the input blob of job {} is gone", job.id)))?;
        serde_json::from_slice(&body).map_err(|e| Error::Internal(anyhow::Error::new(e)))
    }

    /// A claimed job that cannot even be begun (its input is gone): it ends, and the slot goes on.
    async fn give_up(&self, lease: Lease, error: Error) {
        tracing::error!(job.id = %lease.job, error = ?error, "a claimed job cannot be begun");
        let outcome = match &error {
            Error::Internal(_) | Error::NotFound { .. } => AttemptOutcome::Failed(
                darkroom_core::Failure::new(FailureCode::Internal, "its input cannot be read"),
            ),
            other => AttemptOutcome::Released {
                reason: other.to_string(),
            },
        };
        let finish = Finish {
            outcome,
            outputs: vec![],
            result: None,
            events: vec![],
        };
        if let Err(error) = self.service.store.finish(lease, finish).await {
            tracing::error!(job.id = %lease.job, error = ?error, "and could not be given back; its lease will run out");
        }
    }

    async fn next_adopted(&self) -> Option<Assignment> {
        loop {
            let next = self
                .resume
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let (job, attempt, lease, on) = next?;
            let prepared = async { Ok::<_, Error>((self.work(&job).await?, self.bounds()?)) }.await;
            match prepared {
                Ok((work, bounds)) => {
                    return Some(Assignment {
                        lease,
                        attempt,
                        work,
                        resume: Some(on),
                        bounds,
                    });
                }
                Err(error) => {
                    self.give_up(lease, error).await;
                    self.let_go(lease);
                }
            }
        }
    }
}

#[async_trait]
impl AttemptLink for SlotLink {
    async fn next(&self) -> Option<Assignment> {
        if let Some(adopted) = self.next_adopted().await {
            return Some(adopted);
        }
        let mut woken = self.service.store.subscribe(Topic::Queue(self.endpoint.clone()));
        loop {
            if self.draining.is_cancelled() {
                return None;
            }
            let claim = Claim {
                endpoint: self.endpoint.clone(),
                instance: self.instance,
                owner: self.service.node.clone(),
                loaded_models: Vec::new(),
                lease: LEASE,
            };
            match self.service.store.claim(claim).await {
                Ok(Some(claimed)) => {
                    let lease = Lease {
                        job: claimed.job.id,
                        fence: claimed.fence,
                    };
                    self.service.reach("claim");
                    match self.assignment(claimed).await {
                        Ok(assignment) => return Some(assignment),
                        Err(error) => self.give_up(lease, error).await,
                    }
                }
                Ok(None) => {
                    // A wake-up may be missed by a paused endpoint's resume or another node's crash: look again anyway.
                    tokio::select! {
                        () = woken.woken() => {}
                        () = self.draining.cancelled() => return None,
                        () = tokio::time::sleep(Duration::from_secs(5)) => {}
                    }
                }
                Err(error) => {
                    tracing::warn!(error = ?error, "claiming failed; trying again");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }

    async fn started(&self, lease: Lease, on: RunningOn) -> Result<(), LinkError> {
        if let Some(held) = self.held(lease) {
            *held.prompt_id.lock().unwrap_or_else(PoisonError::into_inner) = Some(on.prompt_id.clone());
        }
        self.service
            .store
            .start(lease, on)
            .await
            .map_err(store_away)?
            .map_err(|_| LinkError::Stale)
    }

    async fn input(&self, _lease: Lease, source: &InputSource) -> Result<Bytes, LinkError> {
        match source {
            InputSource::Blob(key) => {
                let limit = self.service.fetcher.max_bytes().max(1 << 30);
                let read = self
                    .service
                    .blobs
                    .read(key, limit)
                    .await
                    .map_err(|e| blobs_away(&e))?;
                read.ok_or_else(|| LinkError::InputUnavailable("an input file was removed meanwhile".into()))
            }
            InputSource::Url(url) => {
                let bytes = self.service.fetcher.get(url).await;
                let bytes = bytes.map_err(|e| {
                    LinkError::InputUnavailable(format!("can not get image from http url, {e}"))
                })?;
                intake::check_fetched(&bytes).map_err(LinkError::InputUnavailable)?;
                Ok(bytes)
            }
        }
    }

    async fn event(&self, lease: Lease, mut events: Vec<NewEvent>) -> Result<(), LinkError> {
        let Some(held) = self.held(lease) else {
            return Err(LinkError::Stale);
        };
        for event in &mut events {
            event.data = held.as_job(&event.data);
        }
        for event in &events {
            self.service.metrics.event(event.kind);
        }
        let last = self
            .service
            .store
            .append_events(lease, events)
            .await
            .map_err(store_away)?;
        held.last_event
            .store(last.map_err(|_| LinkError::Stale)?, Ordering::Release);
        Ok(())
    }

    fn progress(&self, lease: Lease, what: Ephemeral) {
        let Some(held) = self.held(lease) else { return };
        self.service.metrics.ephemeral_events(1);
        let what = match what {
            Ephemeral::Message(text) => Ephemeral::Message(held.as_job(&text).into()),
            preview @ Ephemeral::Preview { .. } => preview,
        };
        self.service.hub.publish(
            lease.job,
            Live {
                after: held.last_event.load(Ordering::Acquire),
                what,
            },
        );
    }

    async fn collecting(&self, lease: Lease) -> Result<(), LinkError> {
        if let Some(held) = self.held(lease)
            && !held.collecting.swap(true, Ordering::AcqRel)
        {
            self.activity.collecting.fetch_add(1, Ordering::AcqRel);
            self.slot_freed();
        }
        self.service
            .store
            .collecting(lease)
            .await
            .map_err(store_away)?
            .map_err(|_| LinkError::Stale)
    }

    async fn put_output(&self, lease: Lease, file: ProducedFile) -> Result<Output, LinkError> {
        let service = &self.service;
        let key = BlobKey::output(lease.job, service.ids.uuid_v4(), &file.file_name);
        service.store.intend(&key).await.map_err(store_away)?;
        let meta = match file.body {
            ProducedBody::Path(path) => service.blobs.put_file(&key, &path).await,
            ProducedBody::Stream(stream) => service.blobs.put_stream(&key, stream, u64::MAX).await,
        };
        let meta = meta.map_err(|e| blobs_away(&e))?;
        service.reach("blob_stored");
        let content_type = service.content_type_of(&key, &file.file_name).await;
        Ok(Output {
            node_id: file.node_id,
            kind: file.kind,
            index: file.index,
            raw: file.raw,
            body: OutputBody::File {
                key,
                size: meta.size,
                content_type,
                blake3: meta.blake3,
            },
        })
    }

    async fn finish(&self, lease: Lease, completion: Completion) -> Result<JobState, LinkError> {
        let held = self.held(lease);
        let as_job = |text: &str| held.as_ref().map_or_else(|| text.to_owned(), |h| h.as_job(text));
        let result = match completion.result {
            Some(json) => {
                let json = as_job(&String::from_utf8_lossy(&json)).into_bytes();
                let key = BlobKey::job_part(lease.job, &format!("result-{}.json", lease.fence));
                let placed = self.service.place(key, json.into()).await;
                Some(placed.map_err(|e| LinkError::Unavailable(e.to_string()))?)
            }
            None => None,
        };
        let mut outcome = completion.outcome;
        if let AttemptOutcome::Failed(failure) = &mut outcome
            && let Some(detail) = &failure.detail
            && let Ok(mapped) = serde_json::from_str(&as_job(&detail.to_string()))
        {
            failure.detail = Some(mapped);
        }
        let mut events = completion.events;
        for event in &mut events {
            event.data = as_job(&event.data);
        }
        let lost = matches!(outcome, AttemptOutcome::Lost { .. });
        self.service.reach("before_record");
        let finish = Finish {
            outcome,
            outputs: completion.outputs,
            result,
            events,
        };
        let finished = self
            .service
            .store
            .finish(lease, finish)
            .await
            .map_err(store_away)?;
        self.service.reach("recorded");
        self.let_go(lease);
        if let Ok(state) = &finished {
            if lost {
                self.service.metrics.attempt_lost(&self.endpoint);
            }
            if state.is_final() {
                self.service.metrics.job_finished(&self.endpoint, *state);
            }
        }
        finished.map_err(|_| LinkError::Stale)
    }

    /// A cached rerun re-reports files that were stored for an earlier job: the blob gains a reference when this job's
    /// end is written, which also takes it out of the trash should the earlier job have been swept meanwhile.
    async fn reuse_output(&self, _lease: Lease, output: Output) -> Result<Option<Output>, LinkError> {
        let OutputBody::File { key, .. } = &output.body else {
            return Ok(Some(output));
        };
        let there = self.service.blobs.stat(key).await.map_err(|e| blobs_away(&e))?;
        Ok(there.map(|_| output))
    }

    fn abandoned(&self, lease: Lease) {
        self.let_go(lease);
    }

    async fn cancelled(&self, lease: Lease) -> StopCause {
        let Some(held) = self.held(lease) else {
            return StopCause::Stale;
        };
        let mut stop = held.stop.subscribe();
        let wished = stop.wait_for(Option::is_some).await.map(|cause| *cause);
        match wished {
            Ok(Some(cause)) => cause,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }
}

impl Held {
    /// What an instance says about its own prompt, as the job's followers see it: under the job's id.
    fn as_job(&self, text: &str) -> String {
        match &*self.prompt_id.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(prompt_id) if text.contains(prompt_id.as_str()) => {
                text.replace(prompt_id, &self.job.to_string())
            }
            _ => text.to_owned(),
        }
    }
}

/// Renews a lease until the attempt ends, and finds out when it should stop.
async fn keep(service: Service, lease: Lease, held: Arc<Held>, wished: Arc<Notify>) {
    loop {
        tokio::select! {
            () = held.ended.cancelled() => return,
            () = wished.notified() => {}
            () = tokio::time::sleep(LEASE / 3) => {}
        }
        match service.store.renew(lease, LEASE).await {
            Ok(Ok(renewed)) if renewed.cancel_requested => {
                held.stop.send_replace(Some(StopCause::Cancelled));
            }
            Ok(Ok(_)) => {}
            Ok(Err(_)) => {
                held.stop.send_replace(Some(StopCause::Stale));
                return;
            }
            Err(error) => tracing::warn!(job.id = %lease.job, error = ?error, "renewing a lease failed"),
        }
    }
}

impl Service {
    async fn content_type_of(&self, key: &BlobKey, file_name: &str) -> String {
        let head = match self.blobs.open(key, Some(0..64)).await {
            Ok(Some(reader)) => {
                use futures::TryStreamExt;
                reader
                    .stream
                    .try_collect::<Vec<Bytes>>()
                    .await
                    .map(|c| c.concat())
                    .unwrap_or_default()
            }
            Ok(None) | Err(_) => Vec::new(),
        };
        darkroom_blobs::content_type::of(file_name, &head).to_owned()
    }
}

fn store_away(error: darkroom_store::Error) -> LinkError {
    tracing::warn!(error = ?error, "the store failed under an attempt");
    LinkError::Unavailable(error.to_string())
}

fn blobs_away(error: &darkroom_blobs::Error) -> LinkError {
    if error.is_transient() {
        LinkError::Unavailable(error.to_string())
    } else {
        LinkError::Rejected(error.to_string())
    }
}
