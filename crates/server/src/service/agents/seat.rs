//! One session of an agent, and what it may ask for: the port of the attempts, call by call. Every call is checked as if a
//! stranger made it: an agent reaches the attempts that it was handed, the files that they name, and nothing else.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use darkroom_blobs::BlobReader;
use darkroom_core::{
    AttemptOutcome, InstanceId, InstanceState, JobState,
    attempt::{Lease, RunningOn},
    output::{Output, OutputBody},
};
use darkroom_runner::{
    link::{
        Assignment, AttemptLink, Completion, InputSource, LinkError, ProducedBody, ProducedFile, StopCause,
    },
    wire::{Ended, Leave, Produced},
};
use darkroom_store::Topic;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Agent, Refused, tell};
use crate::service::{
    Error, Service,
    attempts::{LEASE, SlotLink},
    facts::Facts,
};

/// How long a poll is held.
const HOLD: Duration = Duration::from_secs(25);
/// Between two looks at the queue when nobody woke the poll.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Who asks while the server stops waits so long for nothing, so that it does not ask a thousand times a second.
const STOPPING_PACE: Duration = Duration::from_millis(500);
/// An id of a prompt is replaced by the job's in all that is told of it, so it has to be one: this many characters at least,
/// as in a UUID without its hyphens.
const PROMPT_ID_CHARS: std::ops::RangeInclusive<usize> = 16..=128;

/// The agent's place while it is connected.
pub(super) struct Seat {
    pub(super) session: Uuid,
    pub(super) link: Arc<SlotLink>,
    /// Claims nothing more: another has the place, or the instance drains.
    closed: CancellationToken,
    /// Another has the place.
    replaced: CancellationToken,
    /// One poll at a time claims.
    turn: Arc<tokio::sync::Mutex<()>>,
    /// What was claimed for it and may not have reached it.
    claimed: Mutex<Option<Assignment>>,
    /// Files that were stored for its attempts, in this session.
    stored: Mutex<HashMap<Lease, Vec<OutputBody>>>,
}

impl Seat {
    pub(super) fn new(session: Uuid, link: Arc<SlotLink>, closed: CancellationToken) -> Self {
        Seat {
            session,
            link,
            closed,
            replaced: CancellationToken::new(),
            turn: Arc::default(),
            claimed: Mutex::default(),
            stored: Mutex::default(),
        }
    }

    pub(super) fn close(&self) {
        self.replaced.cancel();
        self.closed.cancel();
        self.link.let_go_of_all();
    }

    fn claimed(&self) -> MutexGuard<'_, Option<Assignment>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stored(&self) -> MutexGuard<'_, HashMap<Lease, Vec<OutputBody>>> {
        self.stored.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request of an agent; while it lives, the agent is there.
pub struct Seated {
    pub(super) service: Service,
    agent: Arc<Agent>,
    pub(super) seat: Arc<Seat>,
}

/// The answer to who asks for work.
#[derive(Debug)]
pub enum Work {
    /// This.
    Attempt(Box<Assignment>),
    /// Ask again.
    None,
    /// There is no more on this instance.
    Closed,
}

/// An input file on its way to an agent.
pub enum Input {
    /// As it lies in the blob store.
    Blob(BlobReader),
    /// Fetched.
    Bytes(Bytes),
}

/// Why a call about an attempt did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The session.
    #[error(transparent)]
    Session(#[from] Refused),
    /// The attempt, or what was asked.
    #[error(transparent)]
    Link(#[from] LinkError),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::Session(Refused::Failed(error))
    }
}

impl Service {
    /// A request of an agent's session. `key` names the credential it comes with.
    ///
    /// # Errors
    /// [`Refused::NoSession`], [`Refused::Superseded`], [`Refused::NotYours`].
    pub fn seated(&self, instance: InstanceId, session: Uuid, key: Option<&str>) -> Result<Seated, Refused> {
        let agent = self.agent(instance).ok_or(Refused::NoSession)?;
        if !agent.is_of(key) {
            return Err(Refused::NotYours);
        }
        let seat = agent.seat().ok_or(Refused::NoSession)?;
        if seat.session != session {
            return Err(Refused::Superseded);
        }
        agent.heard().open += 1;
        Ok(Seated {
            service: self.clone(),
            agent,
            seat,
        })
    }
}

impl Drop for Seated {
    fn drop(&mut self) {
        let mut heard = self.agent.heard();
        heard.open -= 1;
        heard.at = self.service.clock.monotonic();
    }
}

impl Seated {
    /// The agent.
    pub fn agent(&self) -> &Agent {
        &self.agent
    }

    /// What its ComfyUI can do.
    ///
    /// # Errors
    /// When it is no `object_info`.
    pub async fn learn(&self, object_info: Vec<u8>) -> Result<(), Error> {
        let endpoint = &self.agent.endpoint;
        self.service
            .learn_object_info(endpoint, &self.agent.who.agent, object_info)
            .await?;
        self.service.forget_absent_boxes(endpoint).await
    }

    /// What else it tells of itself. Not the scripts that its custom nodes bring to the page: a key for work does not decide
    /// what runs in browsers.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn learn_facts(&self, facts: Facts) -> Result<(), Error> {
        let facts = Facts {
            extensions: vec![],
            ..facts
        };
        self.service.learn_facts(&self.agent.endpoint, facts).await
    }

    /// Waits for an attempt. `got`: the last one that reached the agent.
    ///
    /// # Errors
    /// [`Refused::Superseded`].
    pub async fn next(&self, got: Option<Lease>, stopping: &CancellationToken) -> Result<Work, Refused> {
        if let Some(again) = self.not_received(got) {
            return Ok(Work::Attempt(Box::new(again)));
        }
        if stopping.is_cancelled() {
            // A claim that is begun now would only go back.
            tokio::time::sleep(STOPPING_PACE).await;
            return Ok(Work::None);
        }
        let held = tokio::time::sleep(HOLD);
        tokio::pin!(held);
        let topic = Topic::Queue(self.agent.endpoint.clone());
        let mut woken = self.service.store.subscribe(topic);
        loop {
            let claimed = tokio::select! {
                claimed = self.claim() => claimed,
                () = self.seat.replaced.cancelled() => return Err(self.unseated()),
            };
            if let Some(assignment) = claimed {
                return Ok(Work::Attempt(Box::new(assignment)));
            }
            if self.seat.closed.is_cancelled() {
                return match self.seat.replaced.is_cancelled() {
                    true => Err(self.unseated()),
                    false => Ok(Work::Closed),
                };
            }
            tokio::select! {
                () = woken.woken() => {}
                () = self.seat.closed.cancelled() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = &mut held => return Ok(Work::None),
                () = stopping.cancelled() => return Ok(Work::None),
            }
        }
    }

    fn not_received(&self, got: Option<Lease>) -> Option<Assignment> {
        let mut claimed = self.seat.claimed();
        // It got it, or lost it meanwhile.
        claimed.take_if(|a| got == Some(a.lease) || !self.seat.link.has(a.lease));
        claimed.clone()
    }

    /// Beside the request: a claim that was begun is finished, and kept, also when the connection goes meanwhile.
    async fn claim(&self) -> Option<Assignment> {
        let (seat, service) = (self.seat.clone(), self.service.clone());
        let turn = seat.turn.clone().lock_owned().await;
        let claiming = tokio::spawn(async move {
            let _turn = turn;
            let taken = match seat.link.take_now().await {
                Ok(taken) => taken,
                Err(error) => {
                    tracing::warn!(error = ?error, "claiming for an agent failed; trying again");
                    None
                }
            };
            if let Some(assignment) = &taken {
                // Whoever took the place did not see it.
                if !seat.link.has(assignment.lease) || seat.replaced.is_cancelled() {
                    seat.link.abandoned(assignment.lease);
                    let reason = "its agent was gone before it was handed over";
                    if let Err(error) = service.give_back(assignment.lease, reason).await {
                        tracing::warn!(job.id = %assignment.lease.job, error = ?error, "an attempt ends when its lease does");
                    }
                    return None;
                }
                *seat.claimed() = Some(assignment.clone());
            }
            taken
        });
        claiming.await.ok().flatten()
    }

    /// Waits until an attempt should stop; `None`: ask again.
    ///
    /// # Errors
    /// [`Refused::Superseded`].
    pub async fn stop(
        &self,
        lease: Lease,
        stopping: &CancellationToken,
    ) -> Result<Option<StopCause>, Refused> {
        tokio::select! {
            cause = self.seat.link.cancelled(lease) => {
                self.still_seated()?;
                Ok(Some(cause))
            }
            () = self.seat.replaced.cancelled() => Err(self.unseated()),
            () = async { stopping.cancelled().await; tokio::time::sleep(STOPPING_PACE).await } => Ok(None),
            () = tokio::time::sleep(HOLD) => Ok(None),
        }
    }

    /// Where an attempt runs.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn started(&self, lease: Lease, on: RunningOn) -> Result<(), Failed> {
        self.check(lease)?;
        if on.instance != self.agent.instance {
            return Err(LinkError::Rejected("it runs on another instance".to_owned()).into());
        }
        let is_id = |text: &str| {
            text.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if !PROMPT_ID_CHARS.contains(&on.prompt_id.len()) || !is_id(&on.prompt_id) {
            return Err(LinkError::Rejected("that is no id of a prompt".to_owned()).into());
        }
        let done = self.seat.link.started(lease, on).await;
        self.answer(done)
    }

    /// An input file.
    ///
    /// # Errors
    /// [`Failed`]; also for one that the attempt does not name.
    pub async fn input(&self, lease: Lease, source: &InputSource) -> Result<Input, Failed> {
        self.check(lease)?;
        if !self.seat.link.names(lease, source).await? {
            return Err(LinkError::Rejected("the job names no such file".to_owned()).into());
        }
        match source {
            // Piece by piece: as large as it is, it is never in memory.
            InputSource::Blob(key) => {
                let opened = self.service.blobs.open(key, None).await.map_err(Error::from)?;
                let gone = || LinkError::InputUnavailable("an input file was removed meanwhile".into());
                Ok(Input::Blob(opened.ok_or_else(gone)?))
            }
            InputSource::Url(_) => {
                let read = self.seat.link.input(lease, source).await;
                Ok(Input::Bytes(self.answer(read)?))
            }
        }
    }

    /// The slot is free, outputs wait.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn collecting(&self, lease: Lease) -> Result<(), Failed> {
        self.check(lease)?;
        let done = self.seat.link.collecting(lease).await;
        self.answer(done)
    }

    /// A produced file.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn put_output(
        &self,
        lease: Lease,
        produced: Produced,
        body: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<Output, Failed> {
        self.check(lease)?;
        let broke = Arc::new(AtomicBool::new(false));
        let file = ProducedFile {
            node_id: produced.node_id,
            kind: produced.kind,
            index: produced.index,
            raw: produced.raw,
            file_name: produced.file_name,
            body: ProducedBody::Stream(while_it_moves(body, broke.clone())),
        };
        let stored = self.seat.link.put_output(lease, file).await;
        // Nothing is wrong with the file then: it may be sent again.
        let stored = stored.map_err(|error| match error {
            LinkError::Rejected(why) if broke.load(Ordering::Acquire) => LinkError::Unavailable(why),
            error => error,
        });
        let output = self.answer(stored)?;
        self.remember(lease, &output);
        Ok(output)
    }

    fn remember(&self, lease: Lease, output: &Output) {
        self.seat
            .stored()
            .entry(lease)
            .or_default()
            .push(output.body.clone());
    }

    /// Makes what was stored for an earlier job an output of this one too; `None`: it is to be stored again.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn reuse_output(&self, lease: Lease, output: Output) -> Result<Option<Output>, Failed> {
        self.check(lease)?;
        if !self.may_name(lease, &output.body).await? {
            return Ok(None);
        }
        let reused = self.seat.link.reuse_output(lease, output).await;
        let reused = self.answer(reused)?;
        if let Some(output) = &reused {
            self.remember(lease, output);
        }
        Ok(reused)
    }

    /// Whether an output is there as it is described: no job has succeeded before its outputs are stored, whatever an agent
    /// says. What was stored in a session before this one is looked at.
    async fn is_stored(&self, lease: Lease, body: &OutputBody) -> Result<bool, Error> {
        let OutputBody::File {
            key,
            size,
            content_type,
            blake3,
        } = body
        else {
            return Ok(true);
        };
        if self
            .seat
            .stored()
            .get(&lease)
            .is_some_and(|stored| stored.contains(body))
        {
            return Ok(true);
        }
        let is_there = self
            .service
            .blobs
            .stat(key)
            .await?
            .is_some_and(|there| there.size == *size);
        Ok(is_there
            && self.service.content_type_of(key, key.file_name()).await == *content_type
            && self.service.hash_of(key).await?.as_ref() == Some(blake3))
    }

    /// Whether an attempt of this agent may have such an output: one of its own job, or one that a job has already that ran
    /// on this very instance, whose ComfyUI reports the files of cached nodes again.
    async fn may_name(&self, lease: Lease, body: &OutputBody) -> Result<bool, Error> {
        let job = match body {
            OutputBody::Text { .. } => return Ok(true),
            OutputBody::File { key, .. } => key.output_job(),
        };
        let Some(job) = job.filter(|job| *job != lease.job) else {
            return Ok(job.is_some());
        };
        let attempts = self.service.store.attempts(job).await?;
        if !attempts.iter().any(|a| a.instance == self.agent.instance) {
            return Ok(false);
        }
        let record = self.service.store.job(None, job).await?;
        Ok(record.is_some_and(|record| record.outputs.iter().any(|output| output.body == *body)))
    }

    /// The end of an attempt.
    ///
    /// # Errors
    /// [`Failed`]; also for outputs that are neither its job's nor of an earlier one on this instance.
    pub async fn finish(&self, lease: Lease, ended: Ended) -> Result<JobState, Failed> {
        self.check(lease)?;
        for output in &ended.outputs {
            if !self.may_name(lease, &output.body).await? {
                return Err(LinkError::Rejected("an output is another job's".to_owned()).into());
            }
            if !self.is_stored(lease, &output.body).await? {
                return Err(
                    LinkError::Rejected("an output is not stored as it is described".to_owned()).into(),
                );
            }
        }
        tell::check_end(&ended)?;
        let done = self.seat.link.finish(lease, Completion::from(ended)).await;
        let state = self.answer(done)?;
        self.seat.stored().remove(&lease);
        Ok(state)
    }

    /// The agent works on an attempt no more, and writes no end of it.
    pub fn abandoned(&self, lease: Lease) {
        self.seat.link.abandoned(lease);
        self.seat.stored().remove(&lease);
    }

    /// The agent goes.
    pub async fn leave(self, leave: Leave) {
        let reason: String = leave.reason.chars().take(1000).collect();
        let (outcome, to) = match leave.broken {
            true => (
                AttemptOutcome::Lost {
                    reason: reason.clone(),
                },
                InstanceState::Failed,
            ),
            false => (
                AttemptOutcome::Released {
                    reason: reason.clone(),
                },
                InstanceState::Stopped,
            ),
        };
        self.service.agent_gone(&self.agent, &outcome, to, &reason).await;
    }

    /// An agent knows fences; that alone makes no attempt its own.
    pub(super) fn check(&self, lease: Lease) -> Result<(), Failed> {
        self.still_seated()?;
        match self.seat.link.has(lease) {
            true => Ok(()),
            false => Err(LinkError::Stale.into()),
        }
    }

    /// The link's answer, unless it lost its attempts to another session meanwhile.
    pub(super) fn answer<T>(&self, answer: Result<T, LinkError>) -> Result<T, Failed> {
        if answer.is_err() {
            self.still_seated()?;
        }
        Ok(answer?)
    }

    fn still_seated(&self) -> Result<(), Refused> {
        match self.seat.replaced.is_cancelled() {
            true => Err(self.unseated()),
            false => Ok(()),
        }
    }

    /// Another has the place; or there is none any more, as who connects again is told.
    fn unseated(&self) -> Refused {
        match self.service.agent(self.agent.instance) {
            Some(_) => Refused::Superseded,
            None => Refused::NoSession,
        }
    }
}

/// A body that breaks off once nothing came for as long as a silent agent is waited for: a peer that lost its power leaves its
/// request open for ever, and an open request is a sign of life. `broke`: whether it did, or its connection.
pub(super) fn while_it_moves(
    body: BoxStream<'static, std::io::Result<Bytes>>,
    broke: Arc<AtomicBool>,
) -> BoxStream<'static, std::io::Result<Bytes>> {
    let moving = stream::unfold(Some(body), |body| async {
        let mut body = body?;
        match tokio::time::timeout(LEASE, body.next()).await {
            Ok(piece) => Some((piece?, Some(body))),
            Err(_) => {
                let stalled = std::io::Error::new(std::io::ErrorKind::TimedOut, "nothing came for too long");
                Some((Err(stalled), None))
            }
        }
    });
    let noted = move |piece: &std::io::Result<Bytes>| {
        if piece.is_err() {
            broke.store(true, Ordering::Release);
        }
    };
    moving.inspect(noted).boxed()
}
