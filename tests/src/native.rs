//! A client of ComfyUI's own API, in the manner of ComfyUI's example scripts: a socket under a client id, prompts posted
//! under the same id.

use std::time::Duration;

use futures::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Message, client::IntoClientRequest},
};

use crate::{Api, eventually, http::JOB_LIMIT, within};

/// How long a client waits for the next frame.
const FRAME_LIMIT: Duration = Duration::from_secs(60);

/// What came over a socket.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// A message.
    Text(Value),
    /// A binary frame.
    Binary(Vec<u8>),
    /// The end.
    Closed,
}

/// An open socket.
pub struct Client {
    /// The client id it is open under.
    pub id: String,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Client {
    /// Opens a socket below a path (`` or `/e/NAME`).
    pub async fn connect(api: &Api, below: &str, id: &str) -> Self {
        Client::try_connect(api, below, id)
            .await
            .expect("the socket opens")
    }

    /// The same where the server may be away.
    pub async fn try_connect(api: &Api, below: &str, id: &str) -> Option<Self> {
        let base = api.base().replacen("http", "ws", 1);
        let url = format!("{base}{below}/ws?clientId={id}");
        let mut request = url.into_client_request().expect("the address is one");
        if let Some(key) = api.key() {
            let bearer = format!("Bearer {key}").parse().expect("a key is plain text");
            request.headers_mut().insert("authorization", bearer);
        }
        let (socket, _) = tokio_tungstenite::connect_async(request).await.ok()?;
        Some(Client {
            id: id.to_owned(),
            socket,
        })
    }

    /// The next frame that is no ping.
    pub async fn next(&mut self) -> Frame {
        within("the next frame", FRAME_LIMIT, self.next_whenever()).await
    }

    /// The same, however long it takes.
    pub async fn next_whenever(&mut self) -> Frame {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => {
                    return Frame::Text(serde_json::from_str(&text).expect("text frames are JSON"));
                }
                Some(Ok(Message::Binary(bytes))) => return Frame::Binary(bytes.to_vec()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Frame::Closed,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Sends a text.
    pub async fn say(&mut self, message: &Value) {
        use futures::SinkExt;
        let sent = self.socket.send(Message::text(message.to_string())).await;
        sent.expect("the message is sent");
    }

    /// Submits a graph under this client's id; returns its prompt id.
    pub async fn submit(&self, api: &Api, below: &str, graph: &Value) -> String {
        let body = json!({"prompt": graph, "client_id": self.id});
        let answer = api.post(&format!("{below}/prompt"), &body).await.expect(200);
        answer.json()["prompt_id"].as_str().expect("an id").to_owned()
    }

    /// Frames up to the one that says that nothing of this prompt runs any more.
    pub async fn until_end(&mut self, prompt_id: &str) -> Vec<Frame> {
        let mut frames = Vec::new();
        loop {
            let frame = self.next().await;
            assert_ne!(frame, Frame::Closed, "the socket closed after {frames:?}");
            let over = matches!(&frame, Frame::Text(text) if text["type"] == "executing"
                && text["data"]["node"].is_null() && text["data"]["prompt_id"] == prompt_id);
            frames.push(frame);
            if over {
                return frames;
            }
        }
    }

    /// Frames up to a message of this kind, the last one.
    pub async fn until(&mut self, kind: &str) -> Value {
        loop {
            match self.next().await {
                Frame::Text(text) if text["type"] == kind => return text,
                Frame::Closed => panic!("the socket closed before {kind}"),
                Frame::Text(_) | Frame::Binary(_) => {}
            }
        }
    }
}

/// Waits until the endpoint knows what its instances can do, so that graphs are validated. One of its instances must have
/// been started: they are asked beside their first job, and until then every graph is accepted.
pub async fn learned(api: &Api, below: &str) {
    let unknown = json!({"prompt": {"1": {"class_type": "NoSuchClass", "inputs": {}}}, "number": 1e9});
    eventually("what the instances can do is known", JOB_LIMIT, async || {
        let answer = api.post(&format!("{below}/prompt"), &unknown).await;
        if answer.status == 400 {
            return Some(());
        }
        let taken_out = json!({"delete": [answer.json()["prompt_id"]]});
        api.post(&format!("{below}/queue"), &taken_out).await.expect(200);
        None
    })
    .await;
}

/// Kinds of the text frames that are no progress and no status, in order.
pub fn kinds(frames: &[Frame]) -> Vec<String> {
    let texts = frames.iter().filter_map(|frame| match frame {
        Frame::Text(text) => text["type"].as_str(),
        Frame::Binary(_) | Frame::Closed => None,
    });
    texts
        .filter(|kind| !["status", "progress", "progress_state"].contains(kind))
        .map(str::to_owned)
        .collect()
}

/// Prompt ids that the text frames name.
pub fn prompt_ids(frames: &[Frame]) -> std::collections::BTreeSet<String> {
    let named = frames.iter().filter_map(|frame| match frame {
        Frame::Text(text) => text["data"]["prompt_id"].as_str(),
        Frame::Binary(_) | Frame::Closed => None,
    });
    named.map(str::to_owned).collect()
}
