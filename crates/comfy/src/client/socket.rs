//! The WebSocket of an instance.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use reqwest::Upgraded;
use tokio::time::{Interval, MissedTickBehavior};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message as Frame};

use super::{Client, Error};
use crate::wire::{BinaryFrame, Message};

/// How to open a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOptions {
    /// Whose events come over it. Has to be unguessable and used by one socket only: with a second socket of
    /// the same id ComfyUI silences the first, and when the first closes, the second too.
    pub client_id: String,
    /// Previews as event 4, which names prompt and node, instead of event 1.
    pub preview_metadata: bool,
}

/// What an instance sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Incoming {
    Message(Message),
    Binary(BinaryFrame),
}

/// An open socket. Dropping it closes the connection.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<Upgraded>,
    ping: Interval,
}

impl Client {
    /// Opens a socket. It has to be open before the prompt is posted, or the first events are missed.
    pub async fn open_socket(&self, options: &SocketOptions) -> Result<Socket, Error> {
        const ROUTE: &str = "GET /ws";
        let limit = self.config.timeouts.request;
        let opening = tokio::time::timeout(limit, self.handshake(ROUTE, options)).await;
        opening.map_err(|_| Error::Timeout { route: ROUTE })?
    }

    /// The handshake goes over the same HTTP client as everything else: one TLS setup, one set of headers.
    async fn handshake(&self, route: &'static str, options: &SocketOptions) -> Result<Socket, Error> {
        let key = generate_key();
        let request = self
            .get(&["ws"])
            .query(&[("clientId", &options.client_id)])
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        let response = request
            .send()
            .await
            .map_err(|error| Error::transport(route, error))?;
        let status = response.status();
        if status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::status(route, status, b""));
        }
        let accept = response.headers().get(SEC_WEBSOCKET_ACCEPT);
        if accept.is_none_or(|accept| accept.as_bytes() != derive_accept_key(key.as_bytes()).as_bytes()) {
            return Err(Error::Handshake {
                reason: "wrong accept key",
            });
        }
        let upgraded = response
            .upgrade()
            .await
            .map_err(|error| Error::transport(route, error))?;
        let bytes = self.config.limits.message_bytes;
        let config = WebSocketConfig::default()
            .max_message_size(Some(bytes))
            .max_frame_size(Some(bytes));
        let mut stream = WebSocketStream::from_raw_socket(upgraded, Role::Client, Some(config)).await;
        if options.preview_metadata {
            let flags = Message::new(
                "feature_flags",
                serde_json::json!({"supports_preview_metadata": true}),
            );
            stream
                .send(Frame::text(flags.raw()))
                .await
                .map_err(socket_error)?;
        }
        let mut ping = tokio::time::interval(self.config.timeouts.ping);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.reset();
        Ok(Socket { stream, ping })
    }
}

impl Socket {
    /// The next thing the instance says; `None` once the socket is closed. Frames that cannot be read are
    /// skipped: one odd custom node must not end a conversation. Safe to drop and call again.
    pub async fn next(&mut self) -> Result<Option<Incoming>, Error> {
        loop {
            let frame = tokio::select! {
                frame = self.stream.next() => frame,
                _ = self.ping.tick() => {
                    self.stream.send(Frame::Ping(Bytes::new())).await.map_err(socket_error)?;
                    continue;
                }
            };
            let read = match frame {
                None | Some(Ok(Frame::Close(_))) => return Ok(None),
                Some(Err(error)) if is_end(&error) => return Ok(None),
                Some(Err(error)) => return Err(socket_error(error)),
                Some(Ok(Frame::Text(text))) => Message::parse(&text).map(Incoming::Message),
                Some(Ok(Frame::Binary(bytes))) => BinaryFrame::parse(bytes).map(Incoming::Binary),
                Some(Ok(Frame::Ping(_) | Frame::Pong(_) | Frame::Frame(_))) => continue,
            };
            match read {
                Ok(incoming) => return Ok(Some(incoming)),
                Err(error) => tracing::debug!(%error, "skipped an unreadable frame of an instance"),
            }
        }
    }

    /// Closes it in an orderly way.
    pub async fn close(mut self) {
        // Whether the other side hears of it changes nothing here.
        self.stream.close(None).await.ok();
    }
}

/// A killed process does not say goodbye.
fn is_end(error: &tungstenite::Error) -> bool {
    use tungstenite::error::ProtocolError::ResetWithoutClosingHandshake;
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => true,
        tungstenite::Error::Protocol(error) => *error == ResetWithoutClosingHandshake,
        tungstenite::Error::Io(_) => true,
        _ => false,
    }
}

fn socket_error(error: tungstenite::Error) -> Error {
    Error::Socket(Box::new(error))
}
