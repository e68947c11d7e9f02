//! `WS /api/serverless/ws`: the first text frame is the workflow, then the same messages as server-sent events, one per
//! frame (`protocols/comfyui-serverless-fc.md` §6).

use std::{pin::pin, time::Duration};

use axum::{
    Extension,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    response::Response,
};
use http::HeaderMap;

use super::{
    MAX_BODY_BYTES,
    call::FcCall,
    error::{FcError, Refused},
    messages::Transcript,
    reader::Reader,
    request::{Flags, Invocation, Workflow},
    run::submit,
};
use crate::{beside::beside, http::Ongoing, memory::Held, service, state::AppState};

/// Keeps a socket open through a cold start.
const PING_EVERY: Duration = Duration::from_secs(20);
/// How long a client may take to send its workflow.
const FIRST_FRAME: Duration = Duration::from_secs(60);
/// How long a client may take to answer the close.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The handler.
///
/// # Errors
/// Refusals before the upgrade, in this protocol's shape.
pub async fn handler(
    State(state): State<AppState>,
    call: FcCall<Flags>,
    headers: HeaderMap,
    ongoing: Option<Extension<Ongoing>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refused> {
    let refuse = |error: FcError| call.refuse(error);
    let upgrade = upgrade.map_err(|_| refuse(FcError::invalid("this path takes WebSocket connections")))?;
    let invocation = Invocation::read(&headers).map_err(refuse)?;
    // A socket always streams; only its ids are taken from the headers.
    let invocation = Invocation {
        asynchronous: false,
        ..invocation
    };
    let memory = state.service.memory.socket().await;
    let memory = memory.map_err(|e| refuse(service::Error::from(e).into()))?;
    let session = Session {
        state,
        call,
        invocation,
        memory,
    };
    Ok(upgrade
        .max_message_size(MAX_BODY_BYTES)
        .max_frame_size(MAX_BODY_BYTES)
        .on_upgrade(async move |socket| {
            session.serve(socket).await;
            drop(ongoing);
        }))
}

struct Session {
    state: AppState,
    call: FcCall<Flags>,
    invocation: Invocation,
    /// Held until the first frame came.
    memory: Held,
}

impl Session {
    async fn serve(self, mut socket: WebSocket) {
        let closing = self.state.closing.clone();
        let (auth, call) = (&self.state.auth, &self.call);
        let mut access = auth.lasting(call.caller.clone(), call.endpoint.clone());
        let mut refused = false;
        match self.begin(&mut socket).await {
            Ok(Some(mut reader)) => tokio::select! {
                () = pump(&mut socket, &mut reader) => {}
                () = access.refused() => refused = true,
            },
            Ok(None) => return,
            Err(error) => {
                let _ = socket
                    .send(Message::Text(error.message().to_string().into()))
                    .await;
            }
        }
        let frame = match (closing.is_cancelled(), refused) {
            (true, _) => Some((close_code::AWAY, "the server stops")),
            (false, true) => Some((
                close_code::POLICY,
                "the key of this connection is not valid any more",
            )),
            (false, false) => None,
        };
        let frame = frame.map(|(code, reason)| CloseFrame {
            code,
            reason: reason.into(),
        });
        if socket.send(Message::Close(frame)).await.is_ok() {
            // Until the client says so too: what is cut off before may take the last message with it.
            let _ = tokio::time::timeout(LAST_WORDS, async {
                while let Some(Ok(_)) = socket.recv().await {}
            })
            .await;
        }
    }

    /// Reads the workflow and submits it; `None` when the client went away first.
    async fn begin(self, socket: &mut WebSocket) -> Result<Option<Reader>, FcError> {
        let first = tokio::select! {
            first = tokio::time::timeout(FIRST_FRAME, first_message(socket)) => first,
            () = self.state.closing.cancelled() => return Err(FcError::stopping()),
        };
        let body = match first {
            Ok(Some(body)) => body,
            Ok(None) => return Ok(None),
            Err(_) => return Err(FcError::invalid("no workflow came")),
        };
        let size = body.len();
        let memory = &self.state.service.memory;
        let held = async { memory.work(memory.read(size as u64).await?, size as u64).await };
        let held = held.await.map_err(service::Error::from)?;
        drop(self.memory);
        let read = move || {
            let json = serde_json::from_slice(&body).map_err(|e| FcError::invalid_json(&e))?;
            Workflow::of(json, body.len())
        };
        let workflow = beside(size, read).await?;
        let job = submit(&self.state, &self.call, workflow, &self.invocation, held)
            .await?
            .job;
        let transcript = Transcript::new(self.state.service.clone(), self.call.query, self.call.base_url);
        Ok(Some(Reader::new(self.state, job, transcript)))
    }
}

async fn first_message(socket: &mut WebSocket) -> Option<Vec<u8>> {
    loop {
        match socket.recv().await? {
            Ok(Message::Text(text)) => return Some(text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => return Some(bytes.to_vec()),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(Message::Close(_)) | Err(_) => return None,
        }
    }
}

async fn pump(socket: &mut WebSocket, reader: &mut Reader) {
    let mut ping = tokio::time::interval(PING_EVERY);
    ping.tick().await;
    loop {
        // One wait for the next message, whatever comes meanwhile: a client that talks must not start it over and over.
        let mut next = pin!(reader.next());
        let message = loop {
            tokio::select! {
                message = &mut next => break message,
                _ = ping.tick() => {
                    if socket.send(Message::Ping(Default::default())).await.is_err() {
                        return;
                    }
                }
                // A client that goes away does not end its job.
                received = socket.recv() => match received {
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                    Some(Ok(_)) => {}
                },
            }
        };
        let Some(text) = message else { return };
        if socket.send(Message::Text(text.into())).await.is_err() {
            return;
        }
    }
}
