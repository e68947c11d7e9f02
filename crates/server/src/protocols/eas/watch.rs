//! `GET ?_watch_=true`: items as they come, over a WebSocket (one binary frame each) or as a chunked answer, where each
//! frame follows its length (`protocols/eas-queue.md` §4).

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::{
    body::Body,
    extract::{
        FromRequestParts, Request, WebSocketUpgrade,
        ws::{CloseFrame, Message as WsMessage, WebSocket, close_code},
    },
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{SinkExt, stream};
use http::{header, request::Parts};
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::{
    call::EasCall,
    codec::{PROTOBUF, frame},
    error::EasError,
    query::Index,
};
use crate::{
    auth::Lasting,
    http::Flushed,
    memory::accounted,
    service::queues::{OpenQueue, ReadItem, ReadItems, Start, Step, Watch, WatchOptions},
    state::AppState,
};

/// Traffic, so that proxies keep the connection: the Python SDK never notices one that died silently.
const PING_EVERY: Duration = Duration::from_secs(15);
/// A client that pings by itself (the SDKs do, each second or two) and then falls silent for this long is gone.
const SILENCE: Duration = Duration::from_secs(45);
/// A client that takes no bytes for this long is gone.
const SEND_LIMIT: Duration = Duration::from_secs(60);
/// What clients send is control frames.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Watches.
pub async fn watch(
    state: &AppState,
    queue: &OpenQueue,
    call: &EasCall,
    request: Request,
) -> Result<Response, EasError> {
    let options = options(state, call)?;
    let (mut parts, _) = request.into_parts();
    let upgrade = upgrade(&mut parts, state, call).await?;
    if state.stopping.is_cancelled() {
        return Err(EasError::stopping());
    }
    let watch = state.service.watch(queue, options).await?;
    let until = Until {
        stopping: state.stopping.clone(),
        access: state
            .auth
            .lasting(call.caller.clone(), call.endpoint.name.clone()),
    };
    Ok(match upgrade {
        Some(upgrade) => upgrade
            .max_message_size(MAX_MESSAGE_BYTES)
            .max_frame_size(MAX_MESSAGE_BYTES)
            .on_upgrade(move |socket| over_socket(socket, watch, until)),
        None => over_http(watch, until, call.flushed.clone()),
    })
}

/// The WebSocket, or nothing for a client that takes frames over plain HTTP.
async fn upgrade(
    parts: &mut Parts,
    state: &AppState,
    call: &EasCall,
) -> Result<Option<WebSocketUpgrade>, EasError> {
    match WebSocketUpgrade::from_request_parts(parts, state).await {
        Ok(upgrade) => Ok(Some(upgrade)),
        Err(_) if parts.headers.contains_key(header::UPGRADE) => {
            Err(EasError::invalid("the WebSocket handshake is not complete"))
        }
        Err(_) if call.protobuf => Ok(None),
        Err(_) => Err(EasError::upgrade_required()),
    }
}

fn options(state: &AppState, call: &EasCall) -> Result<WatchOptions, EasError> {
    let query = &call.query;
    Ok(WatchOptions {
        group: call.gid.clone(),
        // Consumers without a name are not all the same one.
        consumer: match call.uid.as_str() {
            "" => state.service.new_session_id(),
            uid => uid.to_owned(),
        },
        start: match query.index()?.unwrap_or(Index::From(0)) {
            Index::From(index) => Start::At(index),
            Index::Newest => Start::New,
        },
        window: query.number("_window_", 1, 1)?,
        index_only: query.flag("_index_only_"),
        auto_commit: query.flag("_auto_commit_"),
        tags: query.tags.clone(),
    })
}

/// How long a watch may go on.
struct Until {
    stopping: CancellationToken,
    access: Lasting,
}

impl Until {
    /// Resolves when it is over, with the words for the client. Cancel-safe.
    async fn over(&mut self) -> CloseFrame {
        tokio::select! {
            () = self.stopping.cancelled() => closed(close_code::AWAY, "the server restarts"),
            () = self.access.refused() => closed(close_code::POLICY, "the token is not valid any more"),
        }
    }
}

/// Why a watch ended.
enum End {
    /// Nobody is there any more.
    Gone,
    /// With this frame.
    Close(CloseFrame),
}

async fn over_socket(mut socket: WebSocket, mut watch: Watch, mut until: Until) {
    let end = pump(&mut socket, &mut watch, &mut until).await;
    settle(&mut watch).await;
    if until.stopping.is_cancelled() {
        watch.stays();
    }
    let close = match end {
        End::Gone => return,
        End::Close(frame) => frame,
    };
    let _ = tokio::time::timeout(SEND_LIMIT, socket.send(WsMessage::Close(Some(close)))).await;
}

async fn pump(socket: &mut WebSocket, watch: &mut Watch, until: &mut Until) -> End {
    let mut ping = tokio::time::interval(PING_EVERY);
    ping.tick().await;
    let mut pings_itself = false;
    let mut silence = pin!(tokio::time::sleep(SILENCE));
    loop {
        // One wait for the next items, whatever comes meanwhile: what it finds counts as delivered.
        let step = {
            let mut next = pin!(watch.next());
            loop {
                tokio::select! {
                    step = &mut next => break step,
                    over = until.over() => return End::Close(over),
                    () = &mut silence, if pings_itself => return End::Gone,
                    _ = ping.tick() => {
                        if send(socket, WsMessage::Ping(Bytes::new())).await.is_err() {
                            return End::Gone;
                        }
                    }
                    received = socket.recv() => match received {
                        Some(Ok(WsMessage::Close(_)) | Err(_)) | None => return End::Gone,
                        Some(Ok(message)) => {
                            pings_itself |= matches!(message, WsMessage::Ping(_));
                            silence.set(tokio::time::sleep(SILENCE));
                        }
                    },
                }
            }
        };
        let ReadItems { items, memory } = match step {
            Ok(Step::Items(read)) => read,
            Ok(Step::TakenOver) => {
                return End::Close(closed(
                    close_code::NORMAL,
                    "another connection of this consumer came",
                ));
            }
            Ok(Step::Ended) => return End::Close(closed(close_code::NORMAL, "the queue has ended")),
            Err(error) => {
                tracing::warn!(error = ?error, "a watch ended by an error");
                return End::Close(closed(close_code::AGAIN, "try again"));
            }
        };
        let indexes: Vec<u64> = items.iter().map(|item| item.index).collect();
        if send_all(socket, items).await.is_err() {
            return End::Gone;
        }
        drop(memory);
        watch.sent(indexes);
    }
}

async fn settle(watch: &mut Watch) {
    if let Err(error) = watch.settle().await {
        tracing::warn!(error = ?error, "items that were sent could not be committed; they will be sent again");
    }
}

fn closed(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame {
        code,
        reason: reason.into(),
    }
}

async fn send_all(socket: &mut WebSocket, items: Vec<ReadItem>) -> Result<(), ()> {
    for item in items {
        let message = WsMessage::Binary(frame(item).encode_to_vec().into());
        let fed = tokio::time::timeout(SEND_LIMIT, socket.feed(message)).await;
        fed.map_err(|_| ())?.map_err(|_| ())?;
    }
    let flushed = tokio::time::timeout(SEND_LIMIT, SinkExt::flush(socket)).await;
    flushed.map_err(|_| ())?.map_err(|_| ())
}

async fn send(socket: &mut WebSocket, message: WsMessage) -> Result<(), ()> {
    let sent = tokio::time::timeout(SEND_LIMIT, socket.send(message)).await;
    sent.map_err(|_| ())?.map_err(|_| ())
}

/// A watch over plain HTTP.
struct Chunks {
    watch: Watch,
    until: Until,
    flushed: Option<Flushed>,
    /// What the chunk before had, until it has left us.
    given: Vec<u64>,
}

impl Chunks {
    /// The next chunk; nothing at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if let Some(flushed) = self.flushed.as_mut().filter(|_| !self.given.is_empty()) {
            tokio::select! {
                () = flushed.all() => {}
                // It may have come, and may not: it is sent again.
                _ = self.until.over() => return None,
            }
        }
        self.watch.sent(std::mem::take(&mut self.given));
        let step = tokio::select! {
            step = self.watch.next() => step,
            _ = self.until.over() => return None,
        };
        let Ok(Step::Items(ReadItems { items, memory })) = step else {
            return None;
        };
        self.given = items.iter().map(|item| item.index).collect();
        Some(accounted(framed(items), memory))
    }

    async fn end(mut self) {
        settle(&mut self.watch).await;
        if self.until.stopping.is_cancelled() {
            self.watch.stays();
        }
    }
}

/// The Go SDK's other way: `u32` length in big-endian order, then the frame.
fn over_http(watch: Watch, until: Until, flushed: Option<Flushed>) -> Response {
    let chunks = Chunks {
        watch,
        until,
        flushed,
        given: Vec::new(),
    };
    let steps = stream::unfold(chunks, |mut chunks| async move {
        match chunks.next().await {
            Some(chunk) => Some((Ok::<_, Infallible>(chunk), chunks)),
            None => {
                chunks.end().await;
                None
            }
        }
    });
    ([(header::CONTENT_TYPE, PROTOBUF)], Body::from_stream(steps)).into_response()
}

fn framed(items: Vec<ReadItem>) -> Bytes {
    let mut bytes = BytesMut::new();
    for item in items {
        let frame = frame(item);
        // A payload is bounded far below 4 GB.
        bytes.put_u32(u32::try_from(frame.encoded_len()).unwrap_or(u32::MAX));
        bytes.extend_from_slice(&frame.encode_to_vec());
    }
    bytes.freeze()
}
