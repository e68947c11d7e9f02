//! One attempt on one instance: inputs, prompt, events, outputs, record.

use std::{sync::Arc, time::Duration};

use darkroom_comfy::session::{Config, LostReason, Verdict};
use darkroom_comfy::wire::HistoryEntry;
use darkroom_core::{
    AttemptOutcome, Failure,
    attempt::{Lease, RunningOn},
    event::NewEvent,
    failure::FailureCode,
};

use futures::FutureExt;

use crate::{
    account::{Account, log_event},
    backoff::Backoff,
    collect::{
        collection::StoreError,
        frames::{self, SocketImages},
        unmentioned::Since,
    },
    feed::Feed,
    follow::{End, Following, Start},
    gather::{self, Made},
    history, inputs,
    instance::Prompt,
    link::{Assignment, Bounds, Completion, LinkError, StopCause},
    slot::Desk,
    stop::{Stop, Why},
    tail::{self, Tail},
};

/// How often a prompt that the instance did not take is posted again, each time under a new id.
const POST_TRIES: u32 = 3;
const LINK_TRIES: u32 = 6;

/// What the slot does after an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum After {
    /// Takes the next one.
    Next,
    /// Gives the instance up.
    Broken(String),
    /// Ends, and leaves the prompt to the next server.
    Shutdown,
}

/// Runs an attempt to its end, or to where its outputs only wait for the blob store.
pub async fn run(desk: &mut Desk, assignment: Assignment) -> After {
    let link = Arc::clone(&desk.link);
    let stop: Stop<'_> = link.cancelled(assignment.lease).shared();
    let attempt = Attempt {
        lease: assignment.lease,
        bounds: assignment.bounds,
        feed: Feed::start(Arc::clone(&desk.link), assignment.lease),
    };
    let began = desk.time.wall();
    let images = SocketImages::of(&assignment.work.graph);
    let (end, account, since) = match assignment.resume {
        Some(on) => {
            let mut account = Account::new(&on.prompt_id, false, images);
            let end = attempt
                .follow(desk, &on.prompt_id, Start::Resume, &mut account, &stop)
                .await;
            if let End::Over(Verdict::Lost {
                reason: LostReason::Gone,
            }) = end
            {
                // The instance lives and knows nothing of it: the server died before the prompt was posted.
                let reason = "the server restarted, and the instance does not know the prompt".to_owned();
                return attempt.end_early(desk, Early::released(reason)).await;
            }
            (end, account, None)
        }
        None => {
            let prompt = match attempt.bring(desk, assignment.work, &stop).await {
                Ok(prompt) => prompt,
                Err(early) => return attempt.end_early(desk, early).await,
            };
            match attempt.post_and_follow(desk, &prompt, images, &stop).await {
                Ok((end, account)) => (end, account, Some(Since::LastLook(began))),
                Err(early) => return attempt.end_early(desk, early).await,
            }
        }
    };
    attempt.settle(desk, end, account, since).await
}

struct Attempt {
    lease: Lease,
    bounds: Bounds,
    feed: Feed,
}

/// An end before the prompt was on the instance.
enum Early {
    Stale,
    Shutdown,
    Outcome(AttemptOutcome),
    Broken(AttemptOutcome, String),
}

impl Early {
    fn released(reason: String) -> Self {
        Early::Outcome(AttemptOutcome::Released { reason })
    }

    fn failed(failure: Failure) -> Self {
        Early::Outcome(AttemptOutcome::Failed(failure))
    }
}

impl Attempt {
    /// Inputs onto the instance.
    async fn bring(
        &self,
        desk: &mut Desk,
        mut work: crate::link::ComfyWork,
        stop: &Stop<'_>,
    ) -> Result<Prompt, Early> {
        let shutdown = desk.shutdown.clone();
        let bringing = inputs::bring(
            &mut work,
            self.lease,
            &*desk.link,
            &desk.instance,
            &mut desk.uploads,
        );
        let brought = tokio::select! {
            brought = bringing => brought,
            cause = stop.clone() => return Err(match cause {
                StopCause::Cancelled => Early::Outcome(AttemptOutcome::Cancelled),
                StopCause::Stale => Early::Stale,
            }),
            () = shutdown.cancelled() => return Err(Early::Shutdown),
        };
        match brought {
            Ok(()) => Ok(Prompt {
                graph: work.graph,
                extra_data: work.extra_data,
                targets: work.partial_execution_targets,
            }),
            Err(inputs::Error::Stale) => Err(Early::Stale),
            Err(inputs::Error::Failed(failure)) => Err(Early::failed(*failure)),
            Err(inputs::Error::Away(why)) => Err(Early::released(format!("inputs are not to be had: {why}"))),
            Err(inputs::Error::Instance(error)) => {
                let reason = format!("the instance takes no files: {error}");
                Err(Early::Broken(
                    AttemptOutcome::Released {
                        reason: reason.clone(),
                    },
                    reason,
                ))
            }
        }
    }

    /// Posts the prompt, again if the instance did not take it, and once more after it ran out of memory.
    async fn post_and_follow(
        &self,
        desk: &mut Desk,
        prompt: &Prompt,
        images: SocketImages,
        stop: &Stop<'_>,
    ) -> Result<(End, Account), Early> {
        let mut posts = 1;
        let mut may_free = true;
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(2));
        loop {
            let prompt_id = desk.ids.uuid_v4().to_string();
            self.started(desk, &prompt_id).await?;
            let mut account = Account::new(&prompt_id, may_free, images.clone());
            let start = Start::Post(prompt.clone());
            let mut end = self.follow(desk, &prompt_id, start, &mut account, stop).await;
            if let End::Renamed(other) = end {
                self.started(desk, &other).await?;
                account = Account::new(&other, may_free, images.clone());
                end = self.follow(desk, &other, Start::Resume, &mut account, stop).await;
            }
            match end {
                End::NotTaken {
                    status: Some(code @ (401 | 403 | 404)),
                    why,
                } => {
                    let reason = format!("the instance does not take prompts from us ({code}): {why}");
                    return Err(Early::Broken(
                        AttemptOutcome::Released {
                            reason: reason.clone(),
                        },
                        reason,
                    ));
                }
                // 413 and a crash of the instance's own handler: the prompt is at fault, or nobody can tell.
                End::NotTaken { status: Some(_), why } => {
                    return Err(Early::failed(Failure::new(FailureCode::PromptRefused, why)));
                }
                End::NotTaken { status: None, why } if posts >= POST_TRIES => {
                    let reason = format!("the instance did not take the prompt: {why}");
                    return Err(Early::Broken(
                        AttemptOutcome::Released {
                            reason: reason.clone(),
                        },
                        reason,
                    ));
                }
                End::NotTaken { status: None, .. } => {
                    posts += 1;
                    pause(desk, backoff.next(), stop).await?;
                }
                End::Over(Verdict::Failed { error, history })
                    if history::is_out_of_memory(&error) && may_free =>
                {
                    may_free = false;
                    let place = error.node_id.as_deref().unwrap_or("?");
                    let text = format!(
                        "out of memory in node {place}: models are unloaded and the prompt is run again"
                    );
                    self.feed.durable(log_event(&text));
                    if let Err(why) = desk.instance.client.free(true, true).await {
                        tracing::warn!(error = %why, "an instance that is out of memory does not free any");
                        account.close(Some(&history), &self.feed);
                        return Ok((End::Over(Verdict::Failed { error, history }), account));
                    }
                    pause(desk, desk.config.free_pause, stop).await?;
                }
                end => return Ok((end, account)),
            }
        }
    }

    async fn follow(
        &self,
        desk: &mut Desk,
        prompt_id: &str,
        start: Start,
        account: &mut Account,
        stop: &Stop<'_>,
    ) -> End {
        let following = Following {
            instance: &desk.instance,
            line: &mut desk.line,
            feed: &self.feed,
            account,
            bounds: self.bounds,
            session: Config {
                stall_timeout: self.bounds.stall_timeout,
                unreachable_after: desk.config.unreachable_after,
                worker_dead_after: desk.config.worker_dead_after,
                failure_retry: Duration::from_millis(500),
                ..Config::default()
            },
            time: &desk.time,
            evidence: &mut desk.evidence,
            shutdown: &desk.shutdown,
        };
        following.run(prompt_id, start, stop).await
    }

    /// Where it runs is stored before the prompt is posted: a server that dies in between can find it.
    async fn started(&self, desk: &Desk, prompt_id: &str) -> Result<(), Early> {
        let on = RunningOn {
            instance: desk.instance.id,
            client_id: desk.instance.client_id().to_owned(),
            prompt_id: prompt_id.to_owned(),
        };
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        for attempt in 1.. {
            match desk.link.started(self.lease, on.clone()).await {
                Ok(()) => return Ok(()),
                Err(LinkError::Stale) => return Err(Early::Stale),
                Err(LinkError::Unavailable(why)) if attempt == LINK_TRIES => {
                    return Err(Early::released(format!(
                        "the attempt could not be recorded: {why}"
                    )));
                }
                Err(LinkError::Unavailable(_)) => tokio::time::sleep(backoff.next()).await,
                Err(LinkError::Rejected(why) | LinkError::InputUnavailable(why)) => {
                    return Err(Early::failed(Failure::new(FailureCode::Internal, why)));
                }
            }
        }
        unreachable!("the last try returns")
    }

    async fn end_early(mut self, desk: &Desk, early: Early) -> After {
        let (outcome, after) = match early {
            Early::Stale => {
                desk.link.abandoned(self.lease);
                return After::Next;
            }
            Early::Shutdown => return After::Shutdown,
            Early::Outcome(outcome) => (outcome, After::Next),
            Early::Broken(outcome, reason) => (outcome, After::Broken(reason)),
        };
        self.finish(desk, outcome, None, Vec::new()).await;
        after
    }

    /// The prompt is over, one way or another.
    async fn settle(
        mut self,
        desk: &mut Desk,
        end: End,
        mut account: Account,
        since: Option<Since>,
    ) -> After {
        let wrote = since.filter(|_| account.ran_a_node);
        if !matches!(end, End::Over(Verdict::Succeeded { .. }))
            && let Some(since) = wrote
        {
            desk.shelf.look_away(since).await;
        }
        let (outcome, history, after) = match end {
            End::Over(Verdict::Succeeded { history }) => {
                account.close(Some(&history), &self.feed);
                return self.collect(desk, *history, &account, since).await;
            }
            End::Over(Verdict::Failed { error, history }) => {
                let failure = history::failure_of(&error);
                (AttemptOutcome::Failed(failure), Some(history), After::Next)
            }
            End::Over(Verdict::Interrupted { history }) => {
                let why = "somebody else interrupted the prompt at the instance";
                let failure = Failure::new(FailureCode::ExecutionError, why);
                (AttemptOutcome::Failed(failure), Some(history), After::Next)
            }
            End::Over(Verdict::Lost { reason }) => {
                let text = reason.to_string();
                let after = match reason {
                    LostReason::Gone => {
                        desk.forget();
                        After::Next
                    }
                    LostReason::WorkerDead
                    | LostReason::Stalled { .. }
                    | LostReason::Unreachable { .. }
                    | LostReason::InstanceDied { .. } => After::Broken(text.clone()),
                };
                (AttemptOutcome::Lost { reason: text }, None, after)
            }
            End::Refused(detail) => (AttemptOutcome::Failed(refusal(detail)), None, After::Next),
            End::NotTaken { why, .. } => (AttemptOutcome::Released { reason: why }, None, After::Next),
            End::Renamed(_) => {
                let why = "the instance renamed a prompt that it was only asked about";
                (
                    AttemptOutcome::Failed(Failure::new(FailureCode::Internal, why)),
                    None,
                    After::Next,
                )
            }
            End::Stopped { why, history, stuck } => {
                let after = stuck.map_or(After::Next, After::Broken);
                let outcome = match why {
                    Why::Stale => {
                        desk.link.abandoned(self.lease);
                        return after;
                    }
                    Why::Cancelled => AttemptOutcome::Cancelled,
                    Why::ExecutionTimeout => AttemptOutcome::Failed(too_long(self.bounds)),
                };
                (outcome, history, after)
            }
            End::Shutdown => return After::Shutdown,
        };
        account.close(history.as_deref(), &self.feed);
        let events = account.summary().into_iter().collect();
        self.finish(desk, outcome, history.as_deref(), events).await;
        after
    }

    /// It succeeded, if its outputs can be had.
    async fn collect(
        mut self,
        desk: &mut Desk,
        history: HistoryEntry,
        account: &Account,
        since: Option<Since>,
    ) -> After {
        let resumed = || history::started_at_ms(&history).map(|ms| Since::Start(Duration::from_millis(ms)));
        let files_since = match since {
            Some(since) => Some(since).filter(|_| account.ran_a_node),
            None => resumed(),
        };
        let events: Vec<NewEvent> = account.summary().into_iter().collect();
        let sent = match account.images.pieces() {
            Ok(sent) => sent,
            Err(error) => {
                let outcome = match error {
                    frames::Error::Missed => AttemptOutcome::Released {
                        reason: error.to_string(),
                    },
                    frames::Error::TooMany => {
                        AttemptOutcome::Failed(Failure::new(FailureCode::OutputMissing, error.to_string()))
                    }
                };
                self.finish(desk, outcome, Some(&history), events).await;
                return After::Next;
            }
        };
        let made = Made {
            lease: self.lease,
            history: &history,
            sent,
            files_since,
        };
        let (spool_dir, patience) = (&desk.config.spool_dir, desk.config.download_patience);
        let gathering = gather::gather(made, &desk.instance, &desk.shelf, spool_dir, patience, &*desk.ids);
        let gathered = tokio::select! {
            gathered = gathering => gathered,
            () = desk.shutdown.cancelled() => return After::Shutdown,
        };
        let collection = match gathered {
            Ok(collection) => collection,
            Err(error) => {
                let (outcome, after) = match error {
                    gather::Error::Failed(failure) => (AttemptOutcome::Failed(*failure), After::Next),
                    gather::Error::Lost(reason) => (
                        AttemptOutcome::Lost {
                            reason: reason.clone(),
                        },
                        After::Broken(reason),
                    ),
                    gather::Error::Released(reason) => (AttemptOutcome::Released { reason }, After::Next),
                };
                self.finish(desk, outcome, Some(&history), events).await;
                return after;
            }
        };
        let tail = Tail {
            link: Arc::clone(&desk.link),
            lease: self.lease,
            collection,
            feed: self.feed,
            result: history::result_of(&history),
            events,
            memory: Arc::clone(&desk.shelf.memory),
        };
        store_or_carry_on(desk, tail).await
    }

    async fn finish(
        &mut self,
        desk: &Desk,
        outcome: AttemptOutcome,
        history: Option<&HistoryEntry>,
        events: Vec<NewEvent>,
    ) {
        let completion = Completion {
            outcome,
            outputs: Vec::new(),
            result: history.map(history::result_of),
            events,
        };
        let ending = async {
            self.feed.close().await;
            tail::finish(&*desk.link, self.lease, completion, desk.config.collect_timeout).await;
        };
        tokio::select! {
            () = ending => {}
            () = desk.shutdown.cancelled() => {}
        }
    }
}

/// On the spot, or without the slot.
async fn store_or_carry_on(desk: &mut Desk, mut tail: Tail) -> After {
    let stored = tokio::select! {
        stored = tokio::time::timeout(desk.config.slot_hold, tail.store()) => stored,
        () = desk.shutdown.cancelled() => return After::Shutdown,
    };
    let why = match stored {
        Ok(stored @ (Ok(()) | Err(StoreError::Stale | StoreError::Failed(_)))) => {
            tail.finish(stored, desk.config.collect_timeout).await;
            return After::Next;
        }
        Ok(Err(StoreError::Away(why))) => why,
        Err(_) => "storing takes long".to_owned(),
    };
    tracing::info!(job.id = %tail.lease.job, why, "outputs wait for the blob store");
    // Bounded: with too many waiting already, this slot waits too.
    let permit = tokio::select! {
        permit = Arc::clone(&desk.collecting).acquire_owned() => permit.expect("the semaphore is never closed"),
        () = desk.shutdown.cancelled() => return After::Shutdown,
    };
    let captured = tail.collection.capture(&desk.config.spool_dir, &*desk.ids).await;
    let carrying = tail_task(tail, desk.config.collect_timeout, permit);
    match captured {
        Ok(()) => {
            desk.tasks.spawn(carrying);
        }
        // Without copies the instance must not run anything that could overwrite the originals.
        Err(error) => {
            tracing::warn!(%error, "outputs cannot be copied to the spool; the slot waits for the blob store");
            carrying.await;
        }
    }
    After::Next
}

/// Not tied to the slot's end: it needs neither the instance nor its directories any more.
async fn tail_task(tail: Tail, patience: Duration, permit: tokio::sync::OwnedSemaphorePermit) {
    let telling = async {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(15));
        while let Err(LinkError::Unavailable(_)) = tail.link.collecting(tail.lease).await {
            tokio::time::sleep(backoff.next()).await;
        }
    };
    // A link that cannot even hear this may be back for the outputs.
    let _ = tokio::time::timeout(patience, telling).await;
    tail.carry_on(patience).await;
    drop(permit);
}

/// A pause in which a caller may cancel.
async fn pause(desk: &Desk, length: Duration, stop: &Stop<'_>) -> Result<(), Early> {
    tokio::select! {
        () = tokio::time::sleep(length) => Ok(()),
        cause = stop.clone() => Err(match cause {
            StopCause::Cancelled => Early::Outcome(AttemptOutcome::Cancelled),
            StopCause::Stale => Early::Stale,
        }),
        () = desk.shutdown.cancelled() => Err(Early::Shutdown),
    }
}

fn refusal(detail: serde_json::Value) -> Failure {
    let said = detail["error"]["message"].as_str().unwrap_or("no reason given");
    let message = format!("the instance refused the workflow: {said}");
    Failure {
        detail: Some(detail),
        ..Failure::new(FailureCode::PromptRefused, message)
    }
}

fn too_long(bounds: Bounds) -> Failure {
    let message = format!("ran longer than {} s", bounds.execution_timeout.as_secs_f32());
    Failure::new(FailureCode::ExecutionTimeout, message)
}
