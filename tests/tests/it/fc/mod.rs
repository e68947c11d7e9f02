//! The Function Compute "ComfyUI Serverless API", tried from outside against its reference: what every answer holds,
//! key by key; what is told while a job runs, byte by byte; and what each mistake gets.
//!
//! `serverless_api.rs` beside this is the short version; here is the whole list.

mod access;
mod answers;
mod bad_input;
mod bombs;
mod endurance;
mod errors;
mod images;
mod limits;
mod lists;
mod socket;
mod stream;
mod tasks;
mod website;

use std::time::Duration;

use darkroom_tests::{Api, eventually, fc, graphs, http::Answer};
use reqwest::{Body, Method};
use serde_json::{Value, json};

/// How long a job or an answer may take.
const LIMIT: Duration = Duration::from_secs(180);

/// The path of `run`.
const RUN: &str = "/api/serverless/run";

/// Codes that the platform answers with, in front of the agent: their bodies have the platform's keys too.
const PLATFORM: &[&str] = &[
    "AccessDenied",
    "ConcurrentUpdateError",
    "EntityTooLarge",
    "FunctionNotFound",
    "InternalServerError",
    "InvalidArgument",
    "ResourceExhausted",
    "ResourceThrottled",
];

/// An endpoint whose jobs wait for ever: nothing is known of its nodes, and nobody serves it.
const PARKED: &str =
    "[endpoints.parked]\ncommand = [\"/nobody\", \"{port}\"]\nscaling = { max_instances = 0 }\n";

/// The same beside `default` on the embedded engine, which is implied only where no endpoint is configured.
const WITH_PARKED: &str = "[endpoints.default]\n[endpoints.parked]\ncommand = [\"/nobody\", \"{port}\"]\nscaling = { max_instances = 0 }\n";

/// `POST` with headers.
async fn post(api: &Api, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
    let mut request = api
        .request(Method::POST, path)
        .header("content-type", "application/json")
        .body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    api.send(request).await
}

/// Checks that an answer is an error in this protocol's shape; gives its body.
#[track_caller]
fn refused(answer: &Answer, status: u16, code: &str) -> Value {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.text());
    assert_eq!(
        answer.header("content-type"),
        Some("application/json"),
        "{}",
        answer.text()
    );
    let id = answer.header("x-fc-request-id").unwrap_or_default();
    assert!(
        !id.is_empty(),
        "every answer has a request id: {:?}",
        answer.headers
    );
    let body = answer.json();
    error_body(&body, code);
    if PLATFORM.contains(&code) {
        for key in ["Code", "errorCode"] {
            assert_eq!(body[key], code, "{body}");
        }
        for key in ["Message", "errorMessage"] {
            assert_eq!(body[key], body["error_message"], "{body}");
        }
        assert_eq!(body["RequestId"], id, "{body}");
    }
    body
}

/// Checks that a message is an error object.
#[track_caller]
fn error_body(body: &Value, code: &str) {
    assert_eq!(body["type"], "error", "{body}");
    assert_eq!(body["error_code"], code, "{body}");
    assert!(
        body["error_message"].as_str().is_some_and(|m| !m.is_empty()),
        "{body}"
    );
}

/// Number of jobs that the server knows.
async fn jobs(api: &Api) -> usize {
    let listed = api.get("/darkroom/v1/jobs?limit=500").await.expect(200).json();
    listed["jobs"].as_array().expect("a list").len()
}

/// Waits until a task's last message is its result or an error; gives all messages.
async fn ended(api: &Api, task: &str) -> Vec<Value> {
    eventually(&format!("task {task} ends"), LIMIT, async || {
        let messages = fc::status(api, task).await;
        let last = messages.last()?["type"].clone();
        (last == "serverless_api" || last == "error").then_some(messages)
    })
    .await
}

/// The keys of an object, in order.
fn keys(object: &Value) -> Vec<&str> {
    let map = object
        .as_object()
        .unwrap_or_else(|| panic!("not an object: {object}"));
    let mut keys: Vec<&str> = map.keys().map(String::as_str).collect();
    keys.sort_unstable();
    keys
}

/// A graph of one node of the test engine that is an output, so that nothing else is needed.
fn file_node(filename: &str, content: &str, kind: &str) -> Value {
    json!({ "7": { "class_type": "TestFile", "inputs":
        { "filename": filename, "content": content, "kind": kind, "folder": "output" } } })
}

/// A plain picture that passes through a node of the test engine, then is saved; `seed` makes it unlike every other.
fn through(class: &str, mut inputs: Value, seed: &str) -> Value {
    inputs["image"] = json!(["1", 0]);
    inputs["seed"] = json!(seed);
    let mut graph = graphs::plain(0x0a_0b_0c, 16, 16);
    graph["5"] = json!({"class_type": class, "inputs": inputs});
    graph["9"]["inputs"]["images"] = json!(["5", 0]);
    graph
}

/// Sleeps that long with progress, then saves a plain picture.
fn sleep(seconds: f64, seed: &str) -> Value {
    through("TestSleep", json!({"seconds": seconds, "steps": 10}), seed)
}

/// A node that raises.
fn raise(message: &str) -> Value {
    through("TestRaise", json!({"message": message}), message)
}
