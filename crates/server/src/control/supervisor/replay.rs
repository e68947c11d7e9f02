//! The slot of a worker that answers HTTP: takes one request after the other, sends it, and brings back what was answered.
//!
//! A request lives as long as its connection: one whose connection broke is a lost attempt, one that nobody waits for any
//! more (cancelled, out of time) may go on for the grace of a cancel, and then its instance is replaced.

use std::time::Duration;

use bytes::BytesMut;
use darkroom_core::{AttemptOutcome, Failure, attempt::Lease, failure::FailureCode};
use darkroom_runner::{
    SlotEnd,
    link::{AttemptLink, LinkError, StopCause},
};
use http::{HeaderMap, HeaderName, HeaderValue, header};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::start::listens;
use crate::service::{
    attempts::{Replay, SlotLink},
    replay::{Answer, MAX_ANSWER_BYTES, Request},
};

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A far instance that is gone without a word is found out by then, also while it computes.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// After a connection broke, how long the instance's owner may take to say how it died.
const DEATH_KNOWN: Duration = Duration::from_secs(1);
/// And how long the instance may take to listen again, if it did not die.
const LISTENS_AGAIN: Duration = Duration::from_secs(10);
/// Between two tries to write an end down.
const FINISH_AGAIN: Duration = Duration::from_millis(500);
/// The header that tells the instance which request this is: the same one again, if it is tried again.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-eas-queueservice-request-id");

/// See the module.
pub(super) struct ReplaySlot {
    http: reqwest::Client,
    base_url: String,
    headers: HeaderMap,
    link: SlotLink,
    evidence: watch::Receiver<Option<String>>,
}

/// Why there is no answer.
enum Trouble {
    /// It was never sent.
    NotSent(String),
    /// The connection broke.
    Broke(String),
    /// The answer cannot be kept.
    TooLong,
    /// The request cannot be sent at all.
    Unusable(String),
}

/// What the slot does after an attempt.
enum After {
    Next,
    Broken(String),
    Shutdown,
}

impl ReplaySlot {
    /// A slot that has sent nothing yet. `headers` go with every request.
    ///
    /// # Errors
    /// When no client can be made.
    pub(super) fn new(
        base_url: &str,
        headers: HeaderMap,
        link: SlotLink,
        evidence: watch::Receiver<Option<String>>,
    ) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .tcp_keepalive(KEEPALIVE)
            // A kept connection that the instance closes just now would look like a lost request.
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(ReplaySlot {
            http,
            base_url: base_url.to_owned(),
            headers,
            link,
            evidence,
        })
    }

    /// Runs until the link has no more work, or the instance is of no use any more. On `hurry` what runs is given back.
    pub(super) async fn run(self, hurry: CancellationToken) -> SlotEnd {
        let mut evidence = self.evidence.clone();
        loop {
            let replay = tokio::select! {
                replay = self.link.next_request() => match replay {
                    Some(replay) => replay,
                    None => return SlotEnd::Closed,
                },
                // What was claimed just now ends with the instance's other attempts.
                reason = died(&mut evidence) => return SlotEnd::InstanceBroken { reason },
            };
            match self.replay(replay, &hurry).await {
                After::Next => {}
                After::Broken(reason) => return SlotEnd::InstanceBroken { reason },
                After::Shutdown => return SlotEnd::Closed,
            }
        }
    }

    async fn replay(&self, replay: Replay, hurry: &CancellationToken) -> After {
        let Replay {
            lease,
            request,
            execution_timeout,
            cancel_grace,
            last_chance,
        } = replay;
        let mut evidence = self.evidence.clone();
        let sending = send(self.http.clone(), &self.base_url, &self.headers, request);
        tokio::pin!(sending);
        let outcome = tokio::select! {
            answered = &mut sending => return self.over(lease, answered, last_chance, hurry).await,
            reason = died(&mut evidence) => {
                self.finish(lease, AttemptOutcome::Lost { reason: reason.clone() }, None, hurry).await;
                return After::Broken(reason);
            }
            () = hurry.cancelled() => {
                let reason = "the server stopped".to_owned();
                self.finish(lease, AttemptOutcome::Released { reason }, None, hurry).await;
                return After::Shutdown;
            }
            cause = self.link.cancelled(lease) => match cause {
                StopCause::Cancelled => AttemptOutcome::Cancelled,
                StopCause::Stale => {
                    self.link.abandoned(lease);
                    AttemptOutcome::Cancelled
                }
            },
            () = tokio::time::sleep(execution_timeout) => {
                let seconds = execution_timeout.as_secs();
                AttemptOutcome::Failed(Failure::new(
                    FailureCode::ExecutionTimeout,
                    format!("no answer within {seconds} s"),
                ))
            }
        };
        self.finish(lease, outcome, None, hurry).await;
        // Nobody waits for the answer, but the instance has one slot: what is sent next would wait behind it.
        tokio::select! {
            _ = &mut sending => After::Next,
            reason = died(&mut evidence) => After::Broken(reason),
            () = hurry.cancelled() => After::Shutdown,
            () = tokio::time::sleep(cancel_grace) => {
                let seconds = cancel_grace.as_secs();
                After::Broken(format!("it went on for {seconds} s with a request that was over"))
            }
        }
    }

    /// The request came to its end by itself.
    async fn over(
        &self,
        lease: Lease,
        answered: Result<Answer, Trouble>,
        last_chance: bool,
        hurry: &CancellationToken,
    ) -> After {
        let mut evidence = self.evidence.clone();
        let failed = |message| AttemptOutcome::Failed(Failure::new(FailureCode::ExecutionError, message));
        let (outcome, is_there) = match answered {
            Ok(answer) => {
                let outcome = answer.outcome(last_chance);
                self.finish(lease, outcome, Some(&answer), hurry).await;
                return After::Next;
            }
            Err(Trouble::TooLong) => {
                let message = format!("its answer is longer than {} MiB", MAX_ANSWER_BYTES >> 20);
                (failed(message), true)
            }
            Err(Trouble::Unusable(what)) => (failed(format!("the request cannot be sent: {what}")), true),
            Err(Trouble::NotSent(reason)) => (AttemptOutcome::Released { reason }, false),
            Err(Trouble::Broke(what)) => {
                let known = tokio::time::timeout(DEATH_KNOWN, died(&mut evidence)).await;
                let reason = known.unwrap_or(what);
                (AttemptOutcome::Lost { reason }, false)
            }
        };
        self.finish(lease, outcome, None, hurry).await;
        if is_there {
            return After::Next;
        }
        // Whatever is claimed by who cannot send it loses an attempt.
        tokio::select! {
            () = listens(&self.base_url) => After::Next,
            reason = died(&mut evidence) => After::Broken(reason),
            () = hurry.cancelled() => After::Shutdown,
            () = tokio::time::sleep(LISTENS_AGAIN) => After::Broken("its port takes no connections any more".to_owned()),
        }
    }

    /// Writes an end down, patiently: the lease is renewed until it is.
    async fn finish(
        &self,
        lease: Lease,
        outcome: AttemptOutcome,
        answer: Option<&Answer>,
        hurry: &CancellationToken,
    ) {
        loop {
            match self.link.finish_request(lease, outcome.clone(), answer).await {
                Ok(()) | Err(LinkError::Stale) => return,
                Err(error) => {
                    tracing::warn!(job.id = %lease.job, error = ?error, "the end of a request could not be recorded; trying again");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(FINISH_AGAIN) => {}
                // Its lease runs out, and it is tried again.
                () = hurry.cancelled() => return self.link.abandoned(lease),
            }
        }
    }
}

/// Sends a request and reads the whole answer.
async fn send(
    http: reqwest::Client,
    base_url: &str,
    headers: &HeaderMap,
    request: Request,
) -> Result<Answer, Trouble> {
    let url = format!("{base_url}{}", request.path);
    let sent = http
        .post(url)
        .headers(headers_of(&request, headers))
        .body(request.body)
        .send()
        .await;
    let mut response = sent.map_err(|error| match () {
        () if error.is_builder() => Trouble::Unusable(in_words(&error)),
        () if error.is_connect() => Trouble::NotSent(in_words(&error)),
        () => Trouble::Broke(in_words(&error)),
    })?;
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| Some(value.to_str().ok()?.to_owned()));
    let mut body = BytesMut::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| Trouble::Broke(in_words(&e)))? {
        if body.len() + chunk.len() > MAX_ANSWER_BYTES {
            return Err(Trouble::TooLong);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Answer {
        status: response.status().as_u16(),
        content_type,
        body: body.freeze(),
    })
}

/// Those of the request, and over them those of the instance.
fn headers_of(request: &Request, of_instance: &HeaderMap) -> HeaderMap {
    let pairs = request.headers.iter().filter_map(|(name, value)| {
        let name = HeaderName::try_from(name.as_str()).ok()?;
        Some((name, HeaderValue::try_from(value.as_str()).ok()?))
    });
    let mut headers: HeaderMap = pairs.collect();
    if let Ok(id) = HeaderValue::try_from(request.id.as_str()) {
        headers.insert(REQUEST_ID, id);
    }
    for (name, value) in of_instance {
        headers.insert(name, value.clone());
    }
    headers
}

/// Without the address, which is no caller's business.
fn in_words(error: &reqwest::Error) -> String {
    let mut text = match error.is_connect() {
        true => "the instance took no connection".to_owned(),
        false => "the connection to the instance broke".to_owned(),
    };
    let mut deepest = std::error::Error::source(error);
    while let Some(cause) = deepest {
        match cause.source() {
            Some(deeper) => deepest = Some(deeper),
            None => {
                text = format!("{text}: {cause}");
                break;
            }
        }
    }
    text
}

/// Resolves with how the instance died, once its owner knows.
async fn died(evidence: &mut watch::Receiver<Option<String>>) -> String {
    let how = evidence.wait_for(Option::is_some).await.map(|how| how.clone());
    match how {
        Ok(how) => how.unwrap_or_default(),
        // Its owner is gone, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
