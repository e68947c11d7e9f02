//! Submits a workflow and follows it: what `run` and `demo` share.

use serde_json::{Value, json};

use crate::{
    client::{Client, segment},
    exit::{Exit, Failure},
    workflow::Workflow,
};

/// What goes with a graph.
#[derive(Debug, Default)]
pub struct Options {
    /// Larger runs earlier.
    pub priority: Option<i32>,
    /// The caller's own id for it.
    pub reference: Option<String>,
}

/// Submits `workflow` to `endpoint`; returns the job as accepted.
pub async fn submit(
    client: &Client,
    endpoint: &str,
    workflow: &Workflow,
    options: &Options,
) -> Result<Value, Failure> {
    let mut body = json!({"graph": workflow.to_json()});
    if let Some(priority) = options.priority {
        body["priority"] = json!(priority);
    }
    if let Some(reference) = &options.reference {
        body["reference"] = json!(reference);
    }
    let path = format!("endpoints/{}/jobs", segment(endpoint));
    client.post(&path, Some(&body)).await
}

/// The id of a job the server answered with.
pub fn id(job: &Value) -> Result<&str, Failure> {
    job["id"]
        .as_str()
        .ok_or_else(|| Failure::new(Exit::Server, "no_id", "the server answered without a job id"))
}

/// The exit code of a job in its final state.
pub fn exit_of(job: &Value) -> Exit {
    match job["state"].as_str() {
        Some("succeeded") => Exit::Ok,
        Some("cancelled") => Exit::Cancelled,
        _ => Exit::JobFailed,
    }
}

/// One line saying why a job did not succeed.
pub fn why(job: &Value) -> String {
    let state = job["state"].as_str().unwrap_or("?");
    let failure = &job["failure"];
    let message = failure["message"].as_str().unwrap_or("");
    match (failure["node_id"].as_str(), failure["node_type"].as_str()) {
        (Some(node), Some(class)) => format!("{state} at node {node} ({class}): {message}"),
        _ if message.is_empty() => state.to_owned(),
        _ => format!("{state}: {message}"),
    }
}
