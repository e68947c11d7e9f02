//! An instance's life and an endpoint's line as an operator sees them: why jobs wait, pausing and reordering, what fails a
//! start, recycling, memory, resources.

mod attention;
mod faults;
mod line;
mod recycle;
mod resources;
mod warmup;
mod why;

use std::{path::Path, time::Duration};

use darkroom_tests::{Api, config, eventually, graphs};
use serde_json::{Value, json};

/// For everything that has to happen in the end.
const LIMIT: Duration = Duration::from_secs(90);

/// An endpoint on the test engine with these lines of its own (sub-tables written inline).
fn endpoint(name: &str, more: &str) -> String {
    darkroom_tests::server::endpoint_with_test_nodes(name, more)
}

/// One whose instances do not come up before the file is there.
fn gated(name: &str, gate: &Path, more: &str) -> String {
    let script = format!(
        "while [ ! -e {} ]; do sleep 0.05; done; exec \"$@\"",
        gate.display()
    );
    config::endpoint_of_script(name, &script, "sh") + more + "\n"
}

async fn submit_to(api: &Api, endpoint: &str, graph: &Value) -> String {
    let path = format!("/darkroom/v1/endpoints/{endpoint}/jobs");
    let answer = api.post(&path, &json!({ "graph": graph })).await.expect(201);
    answer.json()["id"].as_str().expect("a job has an id").to_owned()
}

/// A graph that holds its instance for a long time, and ends at once when it is interrupted.
fn long(seed: &str) -> Value {
    graphs::through("TestSleep", json!({"seconds": 3600, "steps": 10_000}), seed, 1)
}

async fn is_running(api: &Api, job: &str) -> Value {
    eventually("the job runs", LIMIT, async || {
        let job = api.job(job).await;
        (job["state"] == "running").then_some(job)
    })
    .await
}

async fn cancel(api: &Api, job: &str) {
    let path = format!("/darkroom/v1/jobs/{job}/cancel");
    api.post(&path, &json!({})).await.expect(200);
}

/// Waits until the job waits for that, and returns it.
async fn waits_for(api: &Api, job: &str, reason: &str) -> Value {
    eventually(&format!("the job waits for {reason}"), LIMIT, async || {
        let job = api.job(job).await;
        (job["waiting"]["reason"]["waiting_for"] == reason).then_some(job)
    })
    .await
}

async fn decisions(api: &Api, endpoint: &str) -> Vec<Value> {
    let path = format!("/darkroom/v1/endpoints/{endpoint}/decisions?limit=100");
    let answer = api.get(&path).await.expect(200).json();
    answer["decisions"].as_array().cloned().unwrap_or_default()
}
