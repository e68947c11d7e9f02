//! `POST /scc/comfy_get_result`: what a task made, or why it did not (`protocols/speedpix.md` §6).

use axum::{
    Json,
    extract::{Request, State},
};
use darkroom_comfy::published::Shape;
use darkroom_core::{
    JobState, Timestamp,
    output::{Output, OutputBody},
};
use serde_json::{Map, Value, json};

use super::{
    call::SpeedpixCall,
    envelope::{FAILED, OK, Words, envelope},
    error::Failed,
    progress::{Task, word},
};
use crate::{
    service::{
        Service,
        jobs::JobRecord,
        outputs::file_of,
        published::{CalledAs, Named},
    },
    state::AppState,
};

/// The handler. A task that failed has status 20: under 10 the SDK would return nothing, and say nothing.
///
/// # Errors
/// An envelope for a task that is not there; an HTTP error for what passes, and for a signature that is wrong.
pub async fn handler(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Failed> {
    let call = SpeedpixCall::read(&state, request).await?;
    let task: Task = call.json().await?;
    let (job, called) = call.task(&state, &task.id()).await?;
    let mut data = json!({
        "taskId": job.id,
        "status": word(job.state),
        "result": null,
        "taskBeginTime": millis(job.started_at),
        "taskEndTime": millis(job.finished_at),
        "taskDuration": match (job.started_at, job.finished_at) {
            (Some(from), Some(to)) => Value::from(u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)),
            _ => Value::Null,
        },
    });
    let words = match job.state {
        JobState::Queued | JobState::Running => None,
        JobState::Succeeded => {
            let address = |output: &Output| address(&state.service, &call.base_url, output);
            data["result"] = result(&called, &job, &address);
            data["images"] = images(&called, &job, &address);
            None
        }
        JobState::Failed | JobState::Cancelled | JobState::Expired => Some(why(&called, &job)),
    };
    let status = if words.is_some() { FAILED } else { OK };
    Ok(Json(envelope(
        status,
        words.as_ref(),
        data,
        &call.caller.request_id,
    )))
}

fn millis(at: Option<Timestamp>) -> Value {
    at.map_or(Value::Null, |at| Value::from(at.as_millis()))
}

fn address(service: &Service, base_url: &str, output: &Output) -> Option<String> {
    let (key, ..) = file_of(output)?;
    Some(format!("{base_url}{}", service.signed_path(key).path_and_query))
}

/// The named outputs: one file is an object with its address (or the address alone, where the publisher chose that),
/// several are a list of them. It is never empty of a name that is published.
fn result(called: &CalledAs, job: &JobRecord, address: &dyn Fn(&Output) -> Option<String>) -> Value {
    let named = called.named(&job.outputs);
    let fields = named.into_iter().map(|one| {
        let value = value(&one, address);
        (one.name, value)
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

fn value(named: &Named<'_>, address: &dyn Fn(&Output) -> Option<String>) -> Value {
    let mut values: Vec<Value> = named
        .items
        .iter()
        .map(|output| item(output, named.shape, address))
        .collect();
    match values.len() {
        0 => Value::Null,
        1 => values.remove(0),
        _ => Value::Array(values),
    }
}

fn item(output: &Output, shape: Shape, address: &dyn Fn(&Output) -> Option<String>) -> Value {
    match (&output.body, address(output), shape) {
        (OutputBody::Text { text }, ..) => Value::from(text.as_str()),
        (OutputBody::File { .. }, Some(url), Shape::Object) => json!({ "url": url }),
        (OutputBody::File { .. }, Some(url), Shape::Url) => Value::from(url),
        (OutputBody::File { .. }, None, _) => Value::Null,
    }
}

/// Every file of the result as an address.
fn images(called: &CalledAs, job: &JobRecord, address: &dyn Fn(&Output) -> Option<String>) -> Value {
    let named = called.named(&job.outputs);
    let files = named.iter().flat_map(|one| one.items.iter().copied());
    files.filter_map(address).map(Value::from).collect()
}

fn why(called: &CalledAs, job: &JobRecord) -> Words {
    let ended = match job.state {
        JobState::Cancelled => ("CANCELLED", "the task was cancelled"),
        JobState::Expired => ("QUEUE_TIMEOUT", "the task waited longer than it may"),
        _ => ("FAILED", "the task failed"),
    };
    let (sub_code, sub_message) = match &job.failure {
        None => (ended.0.to_owned(), ended.1.to_owned()),
        Some(failure) => {
            let place = match (called.input_of(failure), &failure.node_id, &failure.node_type) {
                (Some(input), ..) => format!("input '{input}': "),
                (None, Some(node), Some(class)) => format!("node {node} ({class}): "),
                (None, Some(node), None) => format!("node {node}: "),
                (None, None, _) => String::new(),
            };
            (
                failure.code.as_str().to_ascii_uppercase(),
                format!("{place}{}", failure.message),
            )
        }
    };
    Words {
        code: "TASK_FAILED",
        message: ended.1,
        sub_code,
        sub_message,
    }
}
