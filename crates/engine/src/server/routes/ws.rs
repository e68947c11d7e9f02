//! `/ws`: the socket over which a client learns what happens.

use std::sync::Arc;

use axum::{
    extract::{
        Query, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    response::Response,
};
use futures::{SinkExt, StreamExt, stream::SplitSink};
use serde::Deserialize;
use serde_json::Value;

use super::{super::Engine, Shared, system::feature_flags};
use crate::hub::{Frame, Subscription};

/// Larger messages close the socket; the only one that matters is about a hundred bytes.
const MAX_MESSAGE_BYTES: usize = 4 << 20;
/// Frames written between two flushes.
const BURST: usize = 64;

/// The query of the handshake.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    #[serde(default)]
    client_id: String,
}

/// `GET /ws?clientId=`
pub async fn connect(
    State(engine): Shared,
    Query(client): Query<Client>,
    upgrade: WebSocketUpgrade,
) -> Response {
    upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .on_upgrade(move |socket| talk(engine, client.client_id, socket))
}

async fn talk(engine: Arc<Engine>, client: String, socket: WebSocket) {
    let sid = if client.is_empty() {
        engine.host.ids.uuid_v4().simple().to_string()
    } else {
        client
    };
    let mut subscription = engine.hub.subscribe(sid, engine.queue.remaining());
    let (mut sink, mut stream) = socket.split();
    let mut first = true;
    let mut replaced = false;
    let mut frames = Vec::with_capacity(BURST);
    loop {
        tokio::select! {
            count = subscription.frames.recv_many(&mut frames, BURST), if !replaced => {
                if count == 0 {
                    // Replaced by a newer socket: the old one stays open and silent, as in ComfyUI. One that fell too
                    // far behind is closed, so that its client learns that it has missed something.
                    replaced = engine.hub.is_replaced(&subscription);
                    if !replaced {
                        break;
                    }
                }
                if write(&mut sink, &mut frames).await.is_err() {
                    break;
                }
            }
            message = stream.next() => match message {
                Some(Ok(Message::Text(text))) if first => {
                    first = !answer(&engine, &subscription, &text);
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            },
        }
    }
    engine.hub.unsubscribe(&subscription);
}

async fn write(sink: &mut SplitSink<WebSocket, Message>, frames: &mut Vec<Frame>) -> Result<(), axum::Error> {
    for frame in frames.drain(..) {
        let message = match frame {
            Frame::Text(text) => Message::Text(text.into()),
            Frame::Binary(bytes) => Message::Binary(bytes),
        };
        sink.feed(message).await?;
    }
    sink.flush().await
}

/// Answers the only message that is understood; true if it was that.
fn answer(engine: &Engine, subscription: &Subscription, text: &str) -> bool {
    let Ok(message) = serde_json::from_str::<Value>(text) else {
        return false;
    };
    if message["type"] != "feature_flags" {
        return false;
    }
    engine
        .hub
        .announce(subscription, message["data"]["supports_preview_metadata"] == true);
    let flags = feature_flags(engine.max_upload_bytes);
    engine
        .hub
        .send(Frame::event("feature_flags", &flags), Some(&subscription.sid));
    true
}
