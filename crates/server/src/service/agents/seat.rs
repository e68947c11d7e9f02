//! One session of an agent, and what it may ask for: the port of the attempts, call by call. Every call is checked as if a
//! stranger made it: an agent reaches the attempts that it was handed, the files that they name, and nothing else.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use darkroom_core::{
    AttemptOutcome, InstanceId, InstanceState, JobState,
    attempt::{Lease, RunningOn},
    event::NewEvent,
    output::{Output, OutputBody},
};
use darkroom_runner::{
    link::{
        Assignment, AttemptLink, Completion, Ephemeral, InputSource, LinkError, ProducedBody, ProducedFile,
        StopCause,
    },
    wire::{Ended, Happening, Leave, Produced, Told},
};
use darkroom_store::Topic;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Agent, Refused};
use crate::service::{Error, Service, attempts::SlotLink, facts::Facts};

/// How long a poll is held.
const HOLD: Duration = Duration::from_secs(25);
/// Between two looks at the queue when nobody woke the poll.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

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
        }
    }

    pub(super) fn close(&self) {
        self.replaced.cancel();
        self.closed.cancel();
        self.link.let_go_of_all();
    }

    fn claimed(&self) -> std::sync::MutexGuard<'_, Option<Assignment>> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request of an agent; while it lives, the agent is there.
pub struct Seated {
    service: Service,
    agent: Arc<Agent>,
    seat: Arc<Seat>,
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
            () = stopping.cancelled() => Ok(None),
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
        let done = self.seat.link.started(lease, on).await;
        self.answer(done)
    }

    /// An input file.
    ///
    /// # Errors
    /// [`Failed`]; also for one that the attempt does not name.
    pub async fn input(&self, lease: Lease, source: &InputSource) -> Result<Bytes, Failed> {
        self.check(lease)?;
        if !self.seat.link.names(lease, source).await? {
            return Err(LinkError::Rejected("the job names no such file".to_owned()).into());
        }
        let read = self.seat.link.input(lease, source).await;
        self.answer(read)
    }

    /// What went on.
    ///
    /// # Errors
    /// [`Failed`].
    pub async fn tell(&self, lease: Lease, told: Told) -> Result<(), Failed> {
        self.check(lease)?;
        let mut repeated = self.repeated(lease, &told).await?;
        let mut number = told.first;
        let mut batch = Vec::new();
        for item in told.items {
            match shown(item) {
                Shown::Durable(event) => {
                    number += 1;
                    match repeated {
                        0 => batch.push(event),
                        _ => repeated -= 1,
                    }
                }
                Shown::Live(what) => {
                    self.append(lease, std::mem::take(&mut batch), number).await?;
                    self.seat.link.progress(lease, what);
                }
                Shown::Nothing => {}
            }
        }
        self.append(lease, batch, number).await
    }

    /// How many of the first durable events were stored already: their answer was lost.
    async fn repeated(&self, lease: Lease, told: &Told) -> Result<usize, Error> {
        let known = self.agent.told().get(&lease).copied();
        match known {
            Some(count) => Ok(usize::try_from(count.saturating_sub(told.first)).unwrap_or(usize::MAX)),
            // The first of a new attempt; or the first after a restart of the server, which knows its events only.
            None => {
                let durable: Vec<NewEvent> = told.items.iter().filter_map(durable).cloned().collect();
                self.seat.link.stored_already(lease, &durable).await
            }
        }
    }

    async fn append(&self, lease: Lease, batch: Vec<NewEvent>, number: u64) -> Result<(), Failed> {
        if !batch.is_empty() {
            let done = self.seat.link.event(lease, batch).await;
            self.answer(done)?;
        }
        self.agent.told().insert(lease, number);
        Ok(())
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
        let file = ProducedFile {
            node_id: produced.node_id,
            kind: produced.kind,
            index: produced.index,
            raw: produced.raw,
            file_name: produced.file_name,
            body: ProducedBody::Stream(body),
        };
        let stored = self.seat.link.put_output(lease, file).await;
        self.answer(stored)
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
        self.answer(reused)
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
        }
        let done = self.seat.link.finish(lease, Completion::from(ended)).await;
        let state = self.answer(done)?;
        self.agent.told().remove(&lease);
        Ok(state)
    }

    /// The agent works on an attempt no more, and writes no end of it.
    pub fn abandoned(&self, lease: Lease) {
        self.seat.link.abandoned(lease);
        self.agent.told().remove(&lease);
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
    fn check(&self, lease: Lease) -> Result<(), Failed> {
        self.still_seated()?;
        match self.seat.link.has(lease) {
            true => Ok(()),
            false => Err(LinkError::Stale.into()),
        }
    }

    /// The link's answer, unless it lost its attempts to another session meanwhile.
    fn answer<T>(&self, answer: Result<T, LinkError>) -> Result<T, Failed> {
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

enum Shown {
    Durable(NewEvent),
    Live(Ephemeral),
    Nothing,
}

fn durable(item: &Happening) -> Option<&NewEvent> {
    match item {
        Happening::Durable(event) => Some(event),
        Happening::Message(_) | Happening::Preview { .. } => None,
    }
}

/// What cannot be shown is not: a picture that is none is no reason to end a run.
fn shown(item: Happening) -> Shown {
    match item {
        Happening::Durable(event) => Shown::Durable(event),
        Happening::Message(text) => Shown::Live(Ephemeral::Message(text.into())),
        Happening::Preview {
            node_id,
            content_type,
            base64,
        } => {
            let known = ["image/jpeg", "image/png"];
            let content_type = known.into_iter().find(|known| *known == content_type);
            match (content_type, STANDARD.decode(base64)) {
                (Some(content_type), Ok(bytes)) => Shown::Live(Ephemeral::Preview {
                    node_id,
                    content_type,
                    bytes: bytes.into(),
                }),
                _ => Shown::Nothing,
            }
        }
    }
}
