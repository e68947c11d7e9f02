//! The port of the attempts over HTTP.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use bytes::Bytes;
use darkroom_core::{
    Ids, JobState,
    attempt::{Lease, RunningOn},
    event::NewEvent,
    output::Output,
};
use darkroom_runner::{
    link::{
        Assignment, AttemptLink, Completion, Ephemeral, InputSource, LinkError, ProducedBody, ProducedFile,
        StopCause,
    },
    wire::{Ended, Next, PRODUCED, Produced, Recorded, Stop},
};
use reqwest::{Body, Method, RequestBuilder, StatusCode};
use tokio_util::{io::ReaderStream, sync::CancellationToken};

use crate::{
    pace::Pace,
    server::{Failed, Server, read},
    telling::Telling,
};

/// From one poll to the next, however soon the server answers that there is nothing: one that stops holds none.
const BETWEEN_POLLS: Duration = Duration::from_secs(1);

/// See the module.
pub struct HttpLink {
    server: Arc<Server>,
    ids: Arc<dyn Ids>,
    /// Asks for nothing more.
    draining: CancellationToken,
    got: Mutex<Option<Lease>>,
    tellings: Mutex<HashMap<Lease, Arc<Telling>>>,
    no_more: OnceLock<NoMore>,
}

/// Why the server has no more work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoMore {
    /// It takes the instance out of service.
    Closed,
    /// It has given the instance up.
    Gone,
}

impl HttpLink {
    /// Over a session; asks for nothing more once `draining` is cancelled.
    pub fn new(server: Arc<Server>, ids: Arc<dyn Ids>, draining: CancellationToken) -> Self {
        HttpLink {
            server,
            ids,
            draining,
            got: Mutex::default(),
            tellings: Mutex::default(),
            no_more: OnceLock::new(),
        }
    }

    /// Why there is no more work, if the server said so.
    pub fn no_more(&self) -> Option<NoMore> {
        self.no_more.get().copied()
    }

    async fn ask(&self) -> Result<Option<Assignment>, Failed> {
        let got = *self.got();
        let response = self
            .server
            .call(Method::POST, "next", |request| request.json(&Next { got }))
            .await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let assignment: Assignment = read(response).await?;
        self.server.hold(assignment.lease);
        *self.got() = Some(assignment.lease);
        Ok(Some(assignment))
    }

    async fn post<T: serde::Serialize + Sync>(
        &self,
        lease: Lease,
        what: &str,
        body: &T,
    ) -> Result<reqwest::Response, LinkError> {
        let done = self
            .server
            .about(lease, Method::POST, what, |request| request.json(body));
        Ok(done.await?)
    }

    fn let_go(&self, lease: Lease) {
        self.server.let_go(lease);
        self.lock_tellings().remove(&lease);
    }

    fn telling(&self, lease: Lease) -> Arc<Telling> {
        let new = || Arc::new(Telling::new(self.ids.uuid_v4()));
        self.lock_tellings().entry(lease).or_insert_with(new).clone()
    }

    fn lock_tellings(&self) -> MutexGuard<'_, HashMap<Lease, Arc<Telling>>> {
        self.tellings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn got(&self) -> MutexGuard<'_, Option<Lease>> {
        self.got.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AttemptLink for HttpLink {
    async fn next(&self) -> Option<Assignment> {
        let mut pace = Pace::new();
        loop {
            let soonest = tokio::time::Instant::now() + BETWEEN_POLLS;
            let asked = tokio::select! {
                asked = self.ask() => asked,
                () = self.draining.cancelled() => return None,
            };
            let no_more = match asked {
                Ok(Some(assignment)) => return Some(assignment),
                Ok(None) => {
                    pace = Pace::new();
                    tokio::select! {
                        () = tokio::time::sleep_until(soonest) => continue,
                        () = self.draining.cancelled() => return None,
                    }
                }
                // Whoever looks after this ends it.
                Err(Failed::Superseded | Failed::Refused(_)) => std::future::pending().await,
                Err(Failed::Gone) => NoMore::Gone,
                Err(Failed::Closed) => NoMore::Closed,
                Err(error) => {
                    if pace.is_first() {
                        tracing::warn!(?error, "no work can be had from the server; trying again");
                    }
                    tokio::select! {
                        () = pace.wait() => continue,
                        () = self.draining.cancelled() => return None,
                    }
                }
            };
            let _ = self.no_more.set(no_more);
            return None;
        }
    }

    async fn started(&self, lease: Lease, on: RunningOn) -> Result<(), LinkError> {
        self.post(lease, "started", &on).await.map(drop)
    }

    async fn input(&self, lease: Lease, source: &InputSource) -> Result<Bytes, LinkError> {
        let response = self.post(lease, "input", source).await?;
        let bytes = response.bytes().await;
        bytes.map_err(|error| LinkError::Unavailable(error.to_string()))
    }

    async fn event(&self, lease: Lease, events: Vec<NewEvent>) -> Result<(), LinkError> {
        let telling = self.telling(lease);
        Ok(telling.durable(&self.server, lease, events).await?)
    }

    fn progress(&self, lease: Lease, what: Ephemeral) {
        let telling = self.telling(lease);
        if telling.push(what) {
            let server = self.server.clone();
            tokio::spawn(async move { telling.show(&server, lease).await });
        }
    }

    async fn collecting(&self, lease: Lease) -> Result<(), LinkError> {
        let done = self
            .server
            .about(lease, Method::POST, "collecting", |request| request);
        Ok(done.await.map(drop)?)
    }

    async fn put_output(&self, lease: Lease, file: ProducedFile) -> Result<Output, LinkError> {
        let produced = Produced {
            node_id: file.node_id,
            kind: file.kind,
            index: file.index,
            raw: file.raw,
            file_name: file.file_name,
        };
        let described = serde_json::to_vec(&produced).map_err(|e| LinkError::Rejected(e.to_string()))?;
        let described = BASE64_URL_SAFE_NO_PAD.encode(described);
        let body = match file.body {
            ProducedBody::Path(path) => {
                let unreadable = |error: std::io::Error| LinkError::Unavailable(error.to_string());
                let file = tokio::fs::File::open(&path).await.map_err(unreadable)?;
                Body::wrap_stream(ReaderStream::with_capacity(file, 256 << 10))
            }
            ProducedBody::Stream(stream) => Body::wrap_stream(stream),
        };
        let path = format!("{}/{}/output", lease.job, lease.fence);
        let with = |request: RequestBuilder| request.header(PRODUCED, described).body(body);
        let response = self.server.call_once(Method::PUT, &path, with).await?;
        Ok(read(response).await?)
    }

    async fn reuse_output(&self, lease: Lease, output: Output) -> Result<Option<Output>, LinkError> {
        let reused = self.post(lease, "reuse", &output).await?;
        Ok(read(reused).await?)
    }

    async fn finish(&self, lease: Lease, completion: Completion) -> Result<JobState, LinkError> {
        let finished = self.post(lease, "finish", &Ended::from(completion)).await?;
        let recorded: Recorded = read(finished).await?;
        self.let_go(lease);
        Ok(recorded.state)
    }

    fn abandoned(&self, lease: Lease) {
        self.let_go(lease);
        let server = self.server.clone();
        tokio::spawn(async move {
            // The server finds out by itself that nobody works on it, when its lease ends.
            let _ = server
                .about(lease, Method::POST, "abandoned", |request| request)
                .await;
        });
    }

    async fn cancelled(&self, lease: Lease) -> StopCause {
        let mut pace = Pace::new();
        loop {
            let soonest = tokio::time::Instant::now() + BETWEEN_POLLS;
            let asked = match self
                .server
                .about(lease, Method::GET, "stop", |request| request)
                .await
            {
                Ok(response) => read::<Stop>(response).await,
                Err(failed) => Err(failed),
            };
            match asked {
                Ok(Stop { cause: Some(cause) }) => return cause,
                Ok(Stop { cause: None }) => {
                    pace = Pace::new();
                    tokio::time::sleep_until(soonest).await;
                }
                Err(Failed::Away(_) | Failed::Rejected(_) | Failed::InputUnavailable(_)) => pace.wait().await,
                // What runs is not to be stopped: whoever has our name goes on with it.
                Err(Failed::Superseded | Failed::Refused(_)) => std::future::pending().await,
                Err(Failed::Stale | Failed::Gone | Failed::Closed) => return StopCause::Stale,
            }
        }
    }
}
