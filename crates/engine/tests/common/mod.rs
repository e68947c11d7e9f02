//! A real engine on a port of its own, and a client for it.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod compare;

use std::{path::Path, sync::Arc, time::Duration};

use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_engine::{Options, serve};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// Everything is awaited with this limit.
pub const LIMIT: Duration = Duration::from_secs(180);

/// A running engine; ends with the test.
pub struct TestEngine {
    pub base: String,
    pub dir: TempDir,
    pub http: reqwest::Client,
    task: JoinHandle<()>,
}

impl Drop for TestEngine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestEngine {
    pub async fn start() -> TestEngine {
        TestEngine::start_in(tempfile::tempdir().unwrap()).await
    }

    pub async fn start_in(dir: TempDir) -> TestEngine {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listen = listener.local_addr().unwrap();
        let options = Options {
            listen,
            input_dir: dir.path().join("input"),
            output_dir: dir.path().join("output"),
            temp_dir: dir.path().join("temp"),
            user_dir: dir.path().join("user"),
            test_nodes: true,
            disable_metadata: false,
            max_upload_bytes: 1 << 20,
        };
        let task = tokio::spawn(async move {
            serve(
                options,
                listener,
                Arc::new(SystemClock::new()),
                Arc::new(SystemIds),
            )
            .await
            .unwrap();
        });
        let http = reqwest::Client::builder()
            .timeout(LIMIT)
            .no_proxy()
            .build()
            .unwrap();
        let engine = TestEngine {
            base: format!("http://{listen}"),
            dir,
            http,
            task,
        };
        // The first answer comes when the directories are there.
        engine.get("/prompt").await;
        engine
    }

    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    pub async fn get(&self, path: &str) -> reqwest::Response {
        self.http
            .get(format!("{}{path}", self.base))
            .send()
            .await
            .unwrap()
    }

    pub async fn json(&self, path: &str) -> Value {
        let text = self.get(path).await.text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{path}: not JSON: {text}"))
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let response = self
            .http
            .post(format!("{}{path}", self.base))
            .body(body.to_string())
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        (
            status,
            serde_json::from_str(&response.text().await.unwrap()).unwrap_or_default(),
        )
    }

    /// Submits for a client and gives the prompt's id.
    pub async fn submit(&self, graph: &Value, client: &str) -> String {
        let (status, reply) = self
            .post("/prompt", json!({"prompt": graph, "client_id": client}))
            .await;
        assert_eq!(status, 200, "{reply}");
        reply["prompt_id"].as_str().unwrap().to_owned()
    }

    pub async fn connect(&self, client: &str) -> Socket {
        let url = format!("{}/ws?clientId={client}", self.base.replace("http", "ws"));
        let (stream, _) = timeout(LIMIT, connect_async(url)).await.unwrap().unwrap();
        let mut socket = Socket {
            stream,
            binary: Vec::new(),
        };
        let hello = socket.next().await;
        assert_eq!(
            (&hello["type"], &hello["data"]["sid"]),
            (&json!("status"), &json!(client))
        );
        socket
    }

    /// Runs a graph to its end: the messages, and the history entry.
    pub async fn run(&self, graph: &Value) -> (Vec<Value>, Value) {
        let mut socket = self.connect("runner").await;
        let id = self.submit(graph, "runner").await;
        let messages = socket.until_end(&id).await;
        let history = self.json(&format!("/history/{id}")).await[&id].clone();
        (messages, history)
    }
}

/// A client's WebSocket.
pub struct Socket {
    stream: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    /// Binary frames met while waiting for texts.
    pub binary: Vec<Vec<u8>>,
}

impl Socket {
    pub async fn send(&mut self, message: Value) {
        self.stream
            .send(Message::text(message.to_string()))
            .await
            .unwrap();
    }

    /// The next text message.
    pub async fn next(&mut self) -> Value {
        loop {
            match timeout(LIMIT, self.stream.next())
                .await
                .expect("a message in time")
                .unwrap()
                .unwrap()
            {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Binary(bytes) => self.binary.push(bytes.to_vec()),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    /// All messages up to and including the first of this kind.
    pub async fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.next().await);
            if messages.last().unwrap()["type"] == kind {
                return messages;
            }
        }
    }

    /// All messages up to the end of a prompt.
    pub async fn until_end(&mut self, id: &str) -> Vec<Value> {
        let mut messages = Vec::new();
        loop {
            let message = self.next().await;
            let data = &message["data"];
            let ends = message["type"] == "executing" && data["node"].is_null() && data["prompt_id"] == id;
            messages.push(message);
            if ends {
                return messages;
            }
        }
    }
}

/// `type` or `type node` of every message, without `status` and `progress_state`.
pub fn story(messages: &[Value]) -> Vec<String> {
    let quiet = ["status", "progress_state"];
    let spoken = messages
        .iter()
        .filter(|m| !quiet.contains(&m["type"].as_str().unwrap()));
    spoken
        .map(|message| {
            let node = message["data"].get("node").or(message["data"].get("node_id"));
            match node.and_then(Value::as_str) {
                Some(node) => format!("{} {node}", message["type"].as_str().unwrap()),
                None => message["type"].as_str().unwrap().to_owned(),
            }
        })
        .collect()
}

/// The files below a directory, as sorted relative paths.
pub fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![dir.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path)
            } else {
                found.push(path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned())
            }
        }
    }
    found.sort();
    found
}
