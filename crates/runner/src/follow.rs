//! Follows one prompt on an instance from `POST /prompt` to its end, whatever happens in between.
//!
//! The decisions are the session's ([`darkroom_comfy::session`]); this does what it asks for, and adds what only an
//! attempt knows: that it may have to stop, how long it may run, and what the instance's owner knows about its death.

use std::time::Duration;

use darkroom_comfy::{
    client,
    session::{Action, Config, LostReason, Session, Verdict},
    wire::{HistoryEntry, PromptReply, QueueSnapshot},
};
use darkroom_core::Timestamp;
use futures::{FutureExt, future::BoxFuture};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    account::Account,
    even_time::EvenTime,
    feed::Feed,
    instance::{Instance, Prompt},
    line::{Heard, Line},
    link::{Bounds, StopCause},
    stop::{Stop, Stopping, Tried, Why},
};

/// Messages taken in one go, so that a flood does not keep requests and deadlines waiting.
const AT_ONCE: usize = 256;

/// What following needs.
pub struct Following<'a> {
    /// Where.
    pub instance: &'a Instance,
    /// Its socket.
    pub line: &'a mut Line,
    /// Where events go.
    pub feed: &'a Feed,
    /// What was told so far.
    pub account: &'a mut Account,
    /// The attempt's bounds.
    pub bounds: Bounds,
    /// The session's patience.
    pub session: Config,
    /// Now.
    pub time: &'a EvenTime,
    /// What the instance's owner knows about its death.
    pub evidence: &'a mut watch::Receiver<Option<String>>,
    /// The server stops.
    pub shutdown: &'a CancellationToken,
}

/// Where to begin.
pub enum Start {
    /// Post it.
    Post(Prompt),
    /// It was posted before, perhaps by a server that died since.
    Resume,
}

/// How it ended.
#[derive(Debug)]
pub enum End {
    /// By itself.
    Over(Verdict),
    /// The instance's validation refused the graph.
    Refused(serde_json::Value),
    /// The instance did not take it.
    NotTaken {
        /// Why.
        why: String,
        /// A status that the instance answered with, when it did.
        status: Option<u16>,
    },
    /// The instance chose another prompt id.
    Renamed(String),
    /// It was to stop. Without `stuck` the instance is free again.
    Stopped {
        /// On whose wish.
        why: Why,
        /// What it did until then.
        history: Option<Box<HistoryEntry>>,
        /// The instance did not obey.
        stuck: Option<String>,
    },
    /// The server stops; the prompt goes on.
    Shutdown,
}

enum Answer {
    Queue(Result<QueueSnapshot, client::Error>),
    History(Result<Option<Box<HistoryEntry>>, client::Error>),
}

type Posting<'a> = BoxFuture<'a, Result<PromptReply, client::Error>>;

impl Following<'_> {
    /// Follows the prompt. `stop` resolves when the attempt should stop.
    pub async fn run(mut self, prompt_id: &str, start: Start, stop: &Stop<'_>) -> End {
        let instance = self.instance;
        let time = self.time;
        let stale = self.feed.stale();
        let now = time.now();
        let mut posting: Option<Posting<'_>> = None;
        let mut session = match start {
            Start::Post(prompt) => {
                posting = Some(Box::pin(async move { instance.submit(&prompt, prompt_id).await }));
                let mut session = Session::new(prompt_id, self.session.clone(), now);
                if !self.line.is_open() {
                    self.account.interrupted();
                    session.on_socket_closed(now);
                }
                session
            }
            Start::Resume => {
                let mut session = Session::resume(prompt_id, self.session.clone(), now);
                if self.line.is_open() {
                    self.account.take(session.on_socket_opened(now), self.feed);
                }
                session
            }
        };
        // Whether the instance took the prompt, when the answer to the post was none.
        let mut doubt: Option<client::Error> = None;
        let mut asking: Option<BoxFuture<'_, Answer>> = None;
        let mut opening: Option<BoxFuture<'_, _>> = None;
        let mut stopping: Option<Stopping<'_>> = None;
        let mut run_deadline: Option<Timestamp> = None;
        loop {
            let now = time.now();
            // While the answer to the post is out, neither the queue nor the history can be expected to know it.
            let settled = posting.is_none() || session.has_started();
            if settled {
                while let Some(action) = session.poll_action(now) {
                    match action {
                        Action::OpenSocket => opening = Some(instance.connect().boxed()),
                        Action::FetchQueue => {
                            asking = Some(async move { Answer::Queue(instance.queue().await) }.boxed());
                        }
                        Action::FetchHistory => {
                            let ask = async move {
                                Answer::History(
                                    instance.history(prompt_id).await.map(|entry| entry.map(Box::new)),
                                )
                            };
                            asking = Some(ask.boxed());
                        }
                    }
                }
            }
            if session.verdict().is_some() {
                break;
            }
            if run_deadline.is_none() && session.has_started() {
                run_deadline = Some(now.plus(self.bounds.execution_timeout));
            }
            if stopping.is_none() && run_deadline.is_some_and(|at| at <= now) {
                stopping = Some(Stopping::new(
                    Why::ExecutionTimeout,
                    self.bounds.cancel_grace,
                    now,
                ));
            }
            if let Some(stopping) = &mut stopping {
                if stopping.deadline <= now {
                    return End::Stopped {
                        why: stopping.why,
                        history: None,
                        stuck: Some(stuck(
                            stopping.why,
                            self.bounds.cancel_grace,
                            session.current_node(),
                        )),
                    };
                }
                stopping.poll(instance, prompt_id, now);
            }
            let wake = [
                settled.then(|| session.poll_timeout()).flatten(),
                run_deadline.filter(|_| stopping.is_none()),
                stopping.as_ref().map(Stopping::wake_at),
            ];
            let wake = wake.into_iter().flatten().min();
            let may_stop = stopping.is_none();
            let trying = stopping.as_mut().and_then(|stopping| stopping.trying.as_mut());
            let is_trying = trying.is_some();
            tokio::select! {
                heard = self.line.hear() => self.hear(heard, &mut session),
                reply = ready(&mut posting) => {
                    posting = None;
                    if let Some(end) = judge_reply(reply, prompt_id, &mut session, &mut doubt, time.now()) {
                        return match (end, &stopping) {
                            // It is not there, as wished.
                            (End::Refused(_) | End::NotTaken { .. }, Some(stopping)) => {
                                End::Stopped { why: stopping.why, history: None, stuck: None }
                            }
                            (end, _) => end,
                        };
                    }
                }
                answer = ready(&mut asking) => {
                    asking = None;
                    take_answer(answer, &mut session, time.now());
                }
                opened = ready(&mut opening) => {
                    opening = None;
                    match opened {
                        Ok(socket) => {
                            self.line.opened(socket);
                            self.account.take(session.on_socket_opened(time.now()), self.feed);
                        }
                        Err(error) => session.on_failed(Action::OpenSocket, error.failure(), time.now()),
                    }
                }
                tried = async { trying.expect("asked for only when there is one").await }, if is_trying => {
                    if let Some(stopping) = &mut stopping {
                        stopping.tried(time.now());
                        match tried {
                            Ok(Tried::Removed) => {
                                let why = stopping.why;
                                return End::Stopped { why, history: None, stuck: None };
                            }
                            Ok(Tried::Done(history)) => {
                                let why = stopping.why;
                                return End::Stopped { why, history: Some(history), stuck: None };
                            }
                            Ok(Tried::Told) => {}
                            Err(error) => tracing::debug!(%error, "ending a prompt failed; it is tried again"),
                        }
                    }
                }
                cause = stop.clone(), if may_stop => {
                    let why = match cause {
                        StopCause::Cancelled => Why::Cancelled,
                        StopCause::Stale => Why::Stale,
                    };
                    stopping = Some(Stopping::new(why, self.bounds.cancel_grace, time.now()));
                }
                () = stale.cancelled(), if may_stop => {
                    stopping = Some(Stopping::new(Why::Stale, self.bounds.cancel_grace, time.now()));
                }
                how = death(self.evidence) => session.give_up(LostReason::InstanceDied { how }),
                () = self.shutdown.cancelled() => return End::Shutdown,
                () = sleep(time, wake) => {}
            }
        }
        let started = session.has_started();
        let verdict = session.into_verdict().expect("the loop ends at a verdict only");
        if let Some(Stopping { why, .. }) = stopping {
            let stuck = match &verdict {
                Verdict::Lost { reason } if *reason != LostReason::Gone => Some(reason.to_string()),
                _ => None,
            };
            let history = verdict.history().cloned().map(Box::new);
            return End::Stopped { why, history, stuck };
        }
        match (verdict, doubt) {
            (
                Verdict::Lost {
                    reason: LostReason::Gone,
                },
                Some(error),
            ) if !started => not_taken(&error),
            (verdict, _) => End::Over(verdict),
        }
    }

    fn hear(&mut self, heard: Heard, session: &mut Session) {
        let now = self.time.now();
        let mut next = Some(heard);
        let mut taken = 0;
        while let Some(heard) = next {
            let events = match heard {
                Heard::Message(message) => session.on_message(message, now),
                Heard::Frame(frame) => session.on_binary(frame, now),
                Heard::Closed => {
                    // The end may be found in history before the socket is open again.
                    self.account.interrupted();
                    session.on_socket_closed(now);
                    Vec::new()
                }
            };
            self.account.take(events, self.feed);
            taken += 1;
            // What has arrived already is one batch for the followers and for the store.
            next = if taken < AT_ONCE {
                self.line.hear().now_or_never()
            } else {
                None
            };
        }
    }
}

/// What the answer to the post means; `None` to go on following.
fn judge_reply(
    reply: Result<PromptReply, client::Error>,
    prompt_id: &str,
    session: &mut Session,
    doubt: &mut Option<client::Error>,
    now: Timestamp,
) -> Option<End> {
    match reply {
        Ok(reply) if reply.prompt_id == prompt_id => None,
        // Versions that do not let the client choose.
        Ok(reply) if !reply.prompt_id.is_empty() => Some(End::Renamed(reply.prompt_id)),
        Ok(_) => None,
        Err(_) if session.has_started() => None,
        Err(client::Error::Rejected(rejected)) => {
            let detail = serde_json::json!({"error": rejected.error, "node_errors": rejected.node_errors});
            Some(End::Refused(detail))
        }
        Err(error @ client::Error::Refused { .. }) => Some(not_taken(&error)),
        Err(error @ client::Error::Status { status, .. }) if status.is_client_error() => {
            Some(not_taken(&error))
        }
        Err(error) => {
            tracing::debug!(%error, "no answer to a prompt; its queue is asked whether it was taken");
            *doubt = Some(error);
            // Looks at the queue at once.
            session.on_socket_opened(now);
            None
        }
    }
}

fn not_taken(error: &client::Error) -> End {
    let status = match error {
        client::Error::Status { status, .. } => Some(status.as_u16()),
        _ => None,
    };
    End::NotTaken {
        why: error.to_string(),
        status,
    }
}

fn take_answer(answer: Answer, session: &mut Session, now: Timestamp) {
    match answer {
        Answer::Queue(Ok(queue)) => session.on_queue(&queue, now),
        Answer::Queue(Err(error)) => session.on_failed(Action::FetchQueue, error.failure(), now),
        Answer::History(Ok(entry)) => session.on_history(entry.map(|entry| *entry), now),
        Answer::History(Err(error)) => session.on_failed(Action::FetchHistory, error.failure(), now),
    }
}

fn stuck(why: Why, grace: Duration, node: Option<&str>) -> String {
    let wish = match why {
        Why::Cancelled => "a cancelled prompt",
        Why::Stale => "a prompt that lost its job",
        Why::ExecutionTimeout => "a prompt that ran too long",
    };
    let place = node.map(|node| format!(" in node {node}")).unwrap_or_default();
    format!("{wish} did not stop{place} within {} s", grace.as_secs_f32())
}

/// The future in the option; never, while there is none.
async fn ready<T>(future: &mut Option<BoxFuture<'_, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

async fn sleep(time: &EvenTime, until: Option<Timestamp>) {
    match until {
        Some(until) => time.sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// What the owner of the instance saw of its death; never, while it lives.
pub async fn death(evidence: &mut watch::Receiver<Option<String>>) -> String {
    loop {
        if let Some(how) = evidence.borrow_and_update().clone() {
            return how;
        }
        if evidence.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}
