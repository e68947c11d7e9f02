//! `/ws?clientId=`: one socket per client id, which hears of its own prompts and of the queue's length
//! (`comfyui/behaviour.md` §8, `protocols/comfyui-multi-instance.md`). It reads the store and the hub alone: an open socket
//! wakes nothing.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use darkroom_core::{JobId, JobState, event::EventKind};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    call::NativeCall,
    error::{NativeError, Refused},
    ids,
    messages::{Transcript, node_of, of_step, status, text},
    prompt::is_id,
    system::feature_flags,
};
use crate::{
    http::Ongoing,
    service::{
        Error, Service,
        clients::Connection,
        follow::{Follower, Step},
    },
    state::AppState,
};

/// ComfyUI sends none, and idle proxies cut its sockets.
const PING_EVERY: Duration = Duration::from_secs(20);
/// A client that takes nothing for so long is gone.
const SEND_TIME: Duration = Duration::from_secs(60);
/// Frames on their way to the socket; a slow one makes its followers wait, who then skip progress.
const BACKLOG: usize = 256;
/// Largest message of a client, in bytes: ComfyUI's own bound.
const MAX_MESSAGE_BYTES: usize = 4 * 1024 * 1024;

/// The query.
#[derive(Debug, Default, Deserialize)]
pub struct Query {
    #[serde(rename = "clientId")]
    client_id: Option<String>,
}

/// The handler.
///
/// # Errors
/// Refusals before the upgrade, in this protocol's shape.
pub async fn handler(
    State(state): State<AppState>,
    call: NativeCall<Query>,
    ongoing: Option<Extension<Ongoing>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refused> {
    let upgrade = upgrade.map_err(|_| {
        let message = "This path takes WebSocket connections";
        call.refuse(NativeError::new(
            StatusCode::BAD_REQUEST,
            "not_a_websocket",
            message,
            "",
        ))
    })?;
    let given = call.query.client_id.clone().filter(|id| is_id(id));
    let sid = given.unwrap_or_else(|| state.service.new_session_id());
    Ok(upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .on_upgrade(async move |socket| {
            let session = Session {
                service: state.service.clone(),
                sid,
                call,
                followed: HashSet::new(),
                followers: JoinSet::new(),
                with_metadata: Arc::default(),
            };
            session.serve(socket, &state).await;
            drop(ongoing);
        }))
}

struct Session {
    service: Service,
    sid: String,
    call: NativeCall<Query>,
    followed: HashSet<JobId>,
    /// One task per job; they end with the socket.
    followers: JoinSet<JobId>,
    /// The client said that it takes previews with metadata.
    with_metadata: Arc<AtomicBool>,
}

/// Why a socket ends.
enum Over {
    Replaced,
    Stopping,
    Refused,
    Gone,
}

impl Session {
    async fn serve(mut self, mut socket: WebSocket, state: &AppState) {
        let name = ids::client_name(&self.call, &self.sid);
        let connection = name.map(|name| self.service.clients.connect(name));
        let over = match self.talk(&mut socket, connection, state).await {
            Ok(over) => over,
            Err(error) => {
                tracing::warn!(error = ?error, "a client's socket ends: its prompts could not be read");
                Over::Stopping
            }
        };
        let (code, reason) = match over {
            Over::Replaced => (close_code::NORMAL, "another connection has this clientId now"),
            Over::Stopping => (close_code::AWAY, "the server stops"),
            Over::Refused => (
                close_code::POLICY,
                "the key of this connection is not valid any more",
            ),
            Over::Gone => return,
        };
        let close = CloseFrame {
            code,
            reason: reason.into(),
        };
        let _ = tokio::time::timeout(SEND_TIME, socket.send(Message::Close(Some(close)))).await;
    }

    async fn talk(
        &mut self,
        socket: &mut WebSocket,
        mut connection: Option<Connection>,
        state: &AppState,
    ) -> Result<Over, Error> {
        let endpoint = self.call.endpoint.name.clone();
        let mut lengths = self.service.queue_lengths();
        let mut remaining = self.service.queue_remaining(&endpoint).await?;
        if send(socket, status(remaining, Some(&self.sid))).await.is_err() {
            return Ok(Over::Gone);
        }
        let (frames, mut coming) = mpsc::channel(BACKLOG);
        if connection.is_some() {
            for message in self.resume(&frames).await? {
                if send(socket, message).await.is_err() {
                    return Ok(Over::Gone);
                }
            }
        }
        let replaced = connection.as_ref().map(Connection::replaced).unwrap_or_default();
        let mut access = state.auth.lasting(self.call.caller.clone(), endpoint.clone());
        let mut first = true;
        let mut ping = tokio::time::interval(PING_EVERY);
        ping.tick().await;
        loop {
            let message = tokio::select! {
                biased;
                () = replaced.cancelled() => return Ok(Over::Replaced),
                () = access.refused() => return Ok(Over::Refused),
                () = state.closing.cancelled() => return Ok(Over::Stopping),
                received = socket.recv() => match received {
                    Some(Ok(Message::Text(said))) if std::mem::take(&mut first) => match self.flags(&said) {
                        Some(answer) => answer,
                        None => continue,
                    },
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(Over::Gone),
                    Some(Ok(_)) => continue,
                },
                follower = next_job(&mut connection) => {
                    self.follow(follower, &frames).await?;
                    continue;
                }
                Some(frame) = coming.recv() => frame,
                changed = lengths.changed() => {
                    if changed.is_err() {
                        return Ok(Over::Stopping);
                    }
                    let now = lengths.borrow_and_update().get(&endpoint).copied().unwrap_or(0);
                    if now == remaining {
                        continue;
                    }
                    remaining = now;
                    status(now, None)
                }
                _ = ping.tick() => Message::Ping(Default::default()),
                // Finished followers are taken off the set.
                Some(ended) = self.followers.join_next() => {
                    if let Ok(job) = ended {
                        self.followed.remove(&job);
                    }
                    continue;
                }
            };
            if send(socket, message).await.is_err() {
                return Ok(Over::Gone);
            }
        }
    }

    /// Goes on with the client's prompts that have not ended; says which node runs now. What was missed stays missed, but
    /// for what nobody was told yet.
    async fn resume(&mut self, frames: &mpsc::Sender<Message>) -> Result<Vec<Message>, Error> {
        let (tenant, endpoint) = (&self.call.caller.tenant, &self.call.endpoint.name);
        let named = (ids::CLIENT_ID, self.sid.clone());
        let open = self.service.open_jobs_with(tenant, endpoint, named).await?;
        let mut messages = Vec::new();
        for job in open {
            if ids::Options::of(&job).client_id.as_deref() != Some(&self.sid) {
                continue;
            }
            let mut transcript = Transcript::new(&job);
            let mut after = 0;
            if job.state == JobState::Running {
                let mut node = None;
                for event in self.service.events(job.id, 0).await? {
                    after = event.seq;
                    if event.kind == EventKind::Executing {
                        node = node_of(&event.data);
                    }
                    transcript.of_event(&event);
                }
                let running = node.map(|node| text(&json!({"type": "executing", "data": {"node": node}})));
                messages.extend(running);
            }
            self.spawn(self.service.follow(job.id, after), transcript, frames);
        }
        Ok(messages)
    }

    async fn follow(&mut self, follower: Follower, frames: &mpsc::Sender<Message>) -> Result<(), Error> {
        if !self.followed.contains(&follower.job()) {
            let record = self.service.job(None, follower.job()).await?;
            self.spawn(follower, Transcript::new(&record), frames);
        }
        Ok(())
    }

    fn spawn(&mut self, follower: Follower, transcript: Transcript, frames: &mpsc::Sender<Message>) {
        if self.followed.insert(follower.job()) {
            let (service, frames) = (self.service.clone(), frames.clone());
            let with_metadata = self.with_metadata.clone();
            self.followers.spawn(async move {
                let job = follower.job();
                follow(service, follower, transcript, with_metadata, frames).await;
                job
            });
        }
    }

    /// Answers the client's feature flags; anything else that it says is ignored.
    fn flags(&self, said: &str) -> Option<Message> {
        let said: Value = serde_json::from_str(said).ok()?;
        if said.get("type")? != "feature_flags" {
            return None;
        }
        let wants = said.pointer("/data/supports_preview_metadata") == Some(&Value::Bool(true));
        self.with_metadata.store(wants, Ordering::Relaxed);
        Some(text(&json!({"type": "feature_flags", "data": feature_flags()})))
    }
}

async fn next_job(connection: &mut Option<Connection>) -> Follower {
    match connection {
        Some(connection) => connection.next_job().await,
        None => std::future::pending().await,
    }
}

/// One job to its end.
async fn follow(
    service: Service,
    mut follower: Follower,
    mut transcript: Transcript,
    with_metadata: Arc<AtomicBool>,
    frames: mpsc::Sender<Message>,
) {
    let record = loop {
        match follower.next().await {
            Ok(Step::End(record)) => break record,
            Ok(step) => {
                let metadata = with_metadata.load(Ordering::Relaxed);
                if let Some(frame) = of_step(&mut transcript, &step, metadata)
                    && frames.send(frame).await.is_err()
                {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(job.id = %follower.job(), error = ?error, "a client's prompt could not be followed");
                return;
            }
        }
    };
    let remaining = service.queue_remaining(&record.endpoint).await.unwrap_or(0);
    for frame in transcript.of_end(&record, remaining) {
        if frames.send(frame).await.is_err() {
            return;
        }
    }
}

async fn send(socket: &mut WebSocket, message: Message) -> Result<(), ()> {
    match tokio::time::timeout(SEND_TIME, socket.send(message)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}
