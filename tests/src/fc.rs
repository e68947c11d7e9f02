//! A client of the Function Compute "ComfyUI Serverless API", as the vendor's samples call it.

use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use crate::{Api, http::Answer};

/// Synchronous call; `query` without the question mark.
pub async fn run(api: &Api, query: &str, graph: &Value) -> Answer {
    api.post(&format!("/api/serverless/run?{query}"), graph).await
}

/// Asynchronous call under a trace id of the caller.
pub async fn run_async(api: &Api, trace_id: &str, query: &str, graph: &Value) -> Answer {
    let request = api
        .request(Method::POST, &format!("/api/serverless/run?{query}"))
        .header("X-Fc-Invocation-Type", "Async")
        .header("X-Fc-Trace-Id", trace_id)
        .json(graph);
    api.send(request).await
}

/// The events of a task so far.
pub async fn status(api: &Api, task: &str) -> Vec<Value> {
    let answer = api
        .get(&format!("/api/serverless/status?task_id={task}"))
        .await
        .expect(200);
    answer.json().as_array().cloned().expect("status is an array")
}

/// Streamed call: every `data:` line, parsed, read as the vendor's sample reads them.
pub async fn stream(api: &Api, query: &str, graph: &Value) -> Vec<Value> {
    let path = format!("/api/serverless/run?stream=true&{query}");
    let answer = api.post(&path, graph).await.expect(200);
    let kind = answer.header("content-type").unwrap_or_default().to_owned();
    assert!(kind.starts_with("text/event-stream"), "{kind}");
    answer
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}")))
        .collect()
}

/// WebSocket call: one text frame in, every frame out until the result, an error, or the close.
pub async fn websocket(api: &Api, query: &str, graph: &Value) -> Vec<Value> {
    let url = format!(
        "{}/api/serverless/ws?{query}",
        api.base().replacen("http", "ws", 1)
    );
    let (mut socket, _) = tokio_tungstenite::connect_async(url)
        .await
        .expect("the socket opens");
    socket
        .send(Message::text(graph.to_string()))
        .await
        .expect("the workflow is sent");
    let mut events = Vec::new();
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Text(text) = message {
            let event: Value = serde_json::from_str(&text).expect("frames are JSON");
            let last = matches!(event["type"].as_str(), Some("serverless_api" | "error"));
            events.push(event);
            if last {
                break;
            }
        }
    }
    events
}

/// The words of the events, for comparing orders.
pub fn kinds(events: &[Value]) -> Vec<String> {
    events
        .iter()
        .map(|event| event["type"].as_str().unwrap_or("?").to_owned())
        .collect()
}

/// The results of a `serverless_api` answer.
pub fn results(answer: &Value) -> Vec<Value> {
    assert_eq!(answer["type"], "serverless_api", "{answer}");
    answer["data"]["results"]
        .as_array()
        .cloned()
        .expect("results is an array")
}
