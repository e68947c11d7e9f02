//! How an attempt ends: what its end means, its outputs, its record.

use std::{sync::Arc, time::Duration};

use darkroom_comfy::{
    session::{LostReason, Verdict},
    wire::HistoryEntry,
};
use darkroom_core::{AttemptOutcome, Failure, event::NewEvent, failure::FailureCode, output::Output};

use crate::{
    account::{Account, log_event},
    attempt::{After, Attempt, Early},
    backoff::Backoff,
    collect::{collection::StoreError, frames, unmentioned::Since},
    follow::End,
    gather::{self, Made},
    history,
    link::{Bounds, Completion, LinkError},
    slot::Desk,
    stop::Why,
    tail::{self, Tail},
};

impl Attempt {
    /// Records an end before the prompt was on the instance.
    pub async fn end_early(mut self, desk: &Desk, early: Early) -> After {
        let (outcome, after) = match early {
            Early::Stale => {
                desk.link.abandoned(self.lease);
                return After::Next;
            }
            Early::Shutdown => return After::Shutdown,
            Early::Outcome(outcome) => (outcome, After::Next),
            Early::Broken(outcome, reason) => (outcome, After::Broken(reason)),
        };
        self.finish(desk, Completion::of(outcome)).await;
        after
    }

    /// The prompt is over, one way or another.
    pub async fn settle(
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
            End::Over(Verdict::Failed { error, .. })
                if self.may_restart && history::is_out_of_memory(&error) =>
            {
                let failure = history::failure_of(&error);
                let place = error.node_id.as_deref().unwrap_or("?");
                let reason = format!("out of memory in node {place}, also after its models were unloaded");
                self.feed.durable(log_event(&format!(
                    "{reason}: the instance is started anew and the workflow is run once more"
                )));
                // What it told of the failure stays untold: the job has not failed.
                let events = account.summary().into_iter().collect();
                let ending = Completion {
                    events,
                    ..Completion::of(AttemptOutcome::Failed(failure))
                };
                self.finish(desk, ending).await;
                return After::Broken(reason);
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
                    | LostReason::Unanswered { .. }
                    | LostReason::Garbage { .. }
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
        let ending = Completion {
            outputs: self.salvage(desk, history.as_deref()).await,
            result: history.as_deref().map(history::result_of),
            events: account.summary().into_iter().collect(),
            ..Completion::of(outcome)
        };
        self.finish(desk, ending).await;
        after
    }

    /// What a prompt that did not succeed had made until then; its end is not held up for it.
    async fn salvage(&self, desk: &Desk, history: Option<&HistoryEntry>) -> Vec<Output> {
        let mut saved = Vec::new();
        if let Some(history) = history {
            let saving = gather::salvage(desk, self.lease, history, &mut saved);
            tokio::select! {
                () = saving => {}
                () = tokio::time::sleep(desk.config.slot_hold) => {}
                () = desk.shutdown.cancelled() => {}
            }
        }
        saved
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
                    // Its instance's doing, not ours: one that drops its socket in every run would repeat a long prompt
                    // until nobody wants it any more.
                    frames::Error::Missed => AttemptOutcome::Lost {
                        reason: error.to_string(),
                    },
                    frames::Error::TooMany => {
                        AttemptOutcome::Failed(Failure::new(FailureCode::OutputMissing, error.to_string()))
                    }
                };
                let ending = Completion {
                    result: Some(history::result_of(&history)),
                    events,
                    ..Completion::of(outcome)
                };
                self.finish(desk, ending).await;
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
                let ending = Completion {
                    result: Some(history::result_of(&history)),
                    events,
                    ..Completion::of(outcome)
                };
                self.finish(desk, ending).await;
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

    async fn finish(&mut self, desk: &Desk, completion: Completion) {
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
