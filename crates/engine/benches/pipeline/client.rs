//! Runs a graph and notes when each node begins.

use std::{collections::BTreeMap, time::Duration};

use darkroom_ambient::SystemClock;
use darkroom_core::Clock;
use futures::StreamExt;
use serde_json::{Value, json};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::{
    report::{PHASES, Phases},
    server::Server,
};

/// A connection to one server.
pub struct Client {
    http: reqwest::Client,
    base: String,
    socket: WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>,
    clock: SystemClock,
}

/// One run.
pub struct Run {
    /// How long each phase took.
    pub phases: Phases,
    /// The file it saved.
    pub file: String,
}

impl Client {
    /// Waits until the server answers.
    pub async fn connect(server: &Server) -> Client {
        let http = reqwest::Client::builder()
            .no_proxy()
            .build()
            .expect("an HTTP client");
        let base = server.base();
        for attempt in 0.. {
            if http
                .get(format!("{base}/prompt"))
                .send()
                .await
                .is_ok_and(|answer| answer.status().is_success())
            {
                break;
            }
            assert!(
                attempt < 1200,
                "{} does not answer; its log: {}",
                server.name(),
                server.log()
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let url = format!("{}/ws?clientId=bench", base.replace("http", "ws"));
        let (socket, _) = connect_async(url).await.expect("the socket opens");
        Client {
            http,
            base,
            socket,
            clock: SystemClock::new(),
        }
    }

    /// Runs a graph to its end.
    pub async fn run(&mut self, graph: &Value) -> Run {
        let body = json!({"prompt": graph, "client_id": "bench"});
        let url = format!("{}/prompt", self.base);
        let answer = self.http.post(url).json(&body).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        let id = answer["prompt_id"]
            .as_str()
            .unwrap_or_else(|| panic!("refused: {answer}"))
            .to_owned();
        let mut began: BTreeMap<String, Duration> = BTreeMap::new();
        let mut file = String::new();
        let end = loop {
            let Some(Ok(Message::Text(text))) = self.socket.next().await else {
                continue;
            };
            let now = self.clock.monotonic();
            let message: Value = serde_json::from_str(&text).expect("JSON");
            let data = &message["data"];
            match message["type"].as_str() {
                Some("executing") if data["node"].is_null() && data["prompt_id"] == id.as_str() => break now,
                Some("executing") => {
                    began.insert(data["node"].as_str().unwrap_or_default().to_owned(), now);
                }
                Some("executed") => {
                    file = data["output"]["images"][0]["filename"]
                        .as_str()
                        .unwrap_or_default()
                        .to_owned();
                }
                Some("execution_error") => panic!("failed: {message}"),
                _ => {}
            }
        };
        // The graph is a chain, so a phase ends where the next begins.
        let ends = PHASES.iter().skip(1).map(|phase| began[*phase]).chain([end]);
        let phases = PHASES.iter().zip(ends).map(|(phase, end)| end - began[*phase]);
        Run {
            phases: phases.collect::<Vec<_>>().try_into().expect("one for each phase"),
            file,
        }
    }
}
