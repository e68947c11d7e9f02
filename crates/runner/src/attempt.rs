//! One attempt on one instance, up to where its prompt is over: inputs, prompt, events. What its end means, and its
//! outputs, are in [`ending`](crate::ending).

use std::{sync::Arc, time::Duration};

use darkroom_comfy::session::{Config, LostReason, Verdict};
use darkroom_core::{
    AttemptOutcome, Failure,
    attempt::{Lease, RunningOn},
    failure::FailureCode,
};
use futures::FutureExt;

use crate::{
    account::{Account, log_event},
    backoff::Backoff,
    collect::{frames::SocketImages, unmentioned::Since},
    feed::Feed,
    follow::{End, Following, Start},
    history, inputs,
    instance::Prompt,
    link::{Assignment, Bounds, LinkError, StopCause},
    slot::Desk,
    stop::Stop,
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
        may_restart: assignment.may_restart,
        feed: Feed::start(Arc::clone(&desk.link), assignment.lease),
    };
    let began = desk.time.wall();
    let targets = assignment.work.partial_execution_targets.as_deref();
    let images = SocketImages::of(&assignment.work.graph, targets);
    let (end, account, since) = match assignment.resume {
        Some(on) => {
            let mut account = Account::new(&on.prompt_id, attempt.may_restart, images);
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

/// An attempt that is under way.
pub struct Attempt {
    /// What it holds.
    pub lease: Lease,
    /// How long it may take.
    pub bounds: Bounds,
    /// Whether running out of memory ends only the instance.
    pub may_restart: bool,
    /// Where its events go.
    pub feed: Feed,
}

/// An end before the prompt was on the instance.
pub enum Early {
    /// The attempt lost its job.
    Stale,
    /// The server stops.
    Shutdown,
    /// That.
    Outcome(AttemptOutcome),
    /// That, and the instance is of no more use.
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
            let forgive = may_free || self.may_restart;
            let mut account = Account::new(&prompt_id, forgive, images.clone());
            let start = Start::Post(prompt.clone());
            let mut end = self.follow(desk, &prompt_id, start, &mut account, stop).await;
            if let End::Renamed(other) = end {
                self.started(desk, &other).await?;
                account = Account::new(&other, forgive, images.clone());
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
                End::NotTaken {
                    status: Some(code),
                    why,
                } if !is_passing(code) => {
                    return Err(Early::failed(Failure::new(FailureCode::PromptRefused, why)));
                }
                End::NotTaken { why, .. } if posts >= POST_TRIES => {
                    let reason = format!("the instance did not take the prompt: {why}");
                    return Err(Early::Broken(
                        AttemptOutcome::Released {
                            reason: reason.clone(),
                        },
                        reason,
                    ));
                }
                End::NotTaken { .. } => {
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
                unanswered_after: desk.config.unanswered_after,
                garbage_after: desk.config.garbage_after,
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
}

/// Whether the status says nothing about the prompt: somebody in between, or the instance itself, cannot take any just now.
fn is_passing(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 502 | 503 | 504)
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
