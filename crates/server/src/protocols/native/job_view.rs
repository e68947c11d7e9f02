//! One job of `/api/jobs`, short and in full; what is not known is left out.

use darkroom_core::{JobState, Timestamp, output::Output, public_name};
use serde_json::{Map, Value, json};

use super::{
    entry::{entry_of, last_message, prompt_of},
    ids,
};
use crate::service::{Error, Service, jobs::JobRecord, outputs::file_of};

/// In a list: nothing is read beside the job's row.
pub fn listed(job: &JobRecord) -> Value {
    let files: Vec<&Output> = job.outputs.iter().filter(|o| shown(o)).collect();
    let mut view = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            view.insert(key.to_owned(), value);
        }
    };
    put("id", json!(ids::prompt_id(job)));
    put("status", json!(status(job.state)));
    put("priority", ids::number(job));
    put("create_time", json!(job.created_at.as_millis()));
    if job.state.is_final() {
        put(
            "execution_start_time",
            json!(job.started_at.map(Timestamp::as_millis)),
        );
        put(
            "execution_end_time",
            json!(job.finished_at.map(Timestamp::as_millis)),
        );
        if matches!(job.state, JobState::Failed | JobState::Expired) {
            put("execution_error", last_message(job).1);
        }
        put("preview_output", preview(job, &files));
    }
    put("outputs_count", json!(files.len()));
    put("workflow_id", json!(ids::Options::of(job).workflow_id));
    Value::Object(view)
}

/// With the request, and what it made.
///
/// # Errors
/// When request or result cannot be read.
pub async fn in_full(service: &Service, job: &JobRecord) -> Result<Option<Value>, Error> {
    let mut view = listed(job);
    let prompt = if job.state.is_final() {
        let Some(entry) = entry_of(service, job).await? else {
            return Ok(None);
        };
        view["outputs"] = Value::Object(entry.outputs);
        view["execution_status"] = entry.status;
        entry.prompt
    } else {
        match prompt_of(service, job).await? {
            Some(prompt) => prompt,
            None => return Ok(None),
        }
    };
    let (graph, extra_data) = prompt.graph_and_extra_data();
    view["workflow"] = json!({ "prompt": graph, "extra_data": extra_data });
    Ok(Some(view))
}

fn status(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "pending",
        JobState::Running => "in_progress",
        JobState::Succeeded => "completed",
        JobState::Failed | JobState::Expired => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// A file that the history mentions.
fn shown(output: &Output) -> bool {
    file_of(output).is_some() && output.kind != "files"
}

/// A saved picture before a temporary one; anything that can be looked at.
fn preview(job: &JobRecord, files: &[&Output]) -> Value {
    let visible = |output: &&&Output| {
        file_of(output).is_some_and(|(_, _, media)| {
            ["image/", "video/", "audio/", "model/"]
                .iter()
                .any(|kind| media.starts_with(kind))
        })
    };
    let saved = |output: &&&Output| output.raw.get("type").is_some_and(|kind| kind == "output");
    let visible: Vec<&&Output> = files.iter().filter(visible).collect();
    let chosen = visible
        .iter()
        .copied()
        .find(|o| saved(o))
        .or(visible.first().copied());
    let Some(output) = chosen else {
        return Value::Null;
    };
    let mut item = json!({ "file": output.raw });
    public_name::publish(&mut item, job.id);
    let mut item = item["file"].take();
    if item.is_object() {
        item["nodeId"] = json!(output.node_id);
        item["mediaType"] = json!(output.kind);
    }
    item
}
