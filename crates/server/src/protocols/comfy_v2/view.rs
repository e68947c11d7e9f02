//! A job on the wire: every required key is there, and every word is of its closed set (`protocols/comfy-v2.md` §2.4, §3, §4).

use std::{collections::BTreeMap, time::Duration};

use darkroom_comfy::progress::Progress;
use darkroom_core::{Endpoint, JobId, JobState, Timestamp, failure::FailureCode};
use serde_json::{Map, Value, json};

use super::{
    call::V2Call,
    error::ApiError,
    ids::job_id,
    outputs,
    time::{time, time_or_null},
};
use crate::service::{Service, jobs::JobRecord};

/// A job.
///
/// # Errors
/// When the store fails.
pub async fn job(service: &Service, call: &V2Call, job: &JobRecord) -> Result<Value, ApiError> {
    let places = service.positions(std::slice::from_ref(job)).await?;
    with_places(service, call, job, &places).await
}

/// A page of a list.
///
/// # Errors
/// When the store fails.
pub async fn jobs(service: &Service, call: &V2Call, jobs: &[JobRecord]) -> Result<Vec<Value>, ApiError> {
    let places = service.positions(jobs).await?;
    let mut views = Vec::with_capacity(jobs.len());
    for job in jobs {
        let mut view = with_places(service, call, job, &places).await?;
        // What the SDK reads of a list, beside what a job always has (§2.3).
        view["create_time"] = view["created_at"].clone();
        view["update_time"] = time(job.finished_at.or(job.started_at).unwrap_or(job.created_at));
        view["deployment_id"] = json!(job.endpoint);
        views.push(view);
    }
    Ok(views)
}

async fn with_places(
    service: &Service,
    call: &V2Call,
    job: &JobRecord,
    places: &BTreeMap<JobId, u64>,
) -> Result<Value, ApiError> {
    let id = job_id(job);
    let own = format!("{}/jobs/{id}", call.links.api);
    let run = service.run_progress(job).await?;
    let mut view = json!({
        "id": id,
        "status": status(job),
        "created_at": time(job.created_at),
        "started_at": time_or_null(job.started_at),
        "completed_at": time_or_null(job.finished_at),
        "expires_at": time(expires_at(job, &call.endpoint)),
        "queue_position": place(places.get(&job.id).copied()),
        "progress": run.as_ref().map(progress),
        "outputs": outputs::all(service, call, job),
        "error": error(job),
        "metrics": {
            "queue_ms": millis(Some(job.created_at), job.started_at),
            "execution_ms": millis(job.started_at, job.finished_at),
        },
        "urls": { "events": format!("{own}/events"), "cancel": format!("{own}/cancel"), "self": own },
    });
    if !job.meta.labels.is_empty() {
        view["metadata"] = json!(job.meta.labels);
    }
    Ok(view)
}

/// The word for where a job is.
pub fn status(job: &JobRecord) -> &'static str {
    word(job.state, job.cancel_requested)
}

/// The same from the parts.
pub fn word(state: JobState, cancelling: bool) -> &'static str {
    match (state, cancelling) {
        (JobState::Queued, _) => "queued",
        (JobState::Running, true) => "canceling",
        (JobState::Running, false) => "running",
        (JobState::Succeeded, _) => "succeeded",
        (JobState::Failed, _) => "failed",
        (JobState::Cancelled, _) => "canceled",
        (JobState::Expired, _) => "expired",
    }
}

/// The place in the line, from 1.
pub fn place(before: Option<u64>) -> Value {
    before.map_or(Value::Null, |before| json!(before + 1))
}

/// How long a job is kept at least: counted from its end, or from now on while it has none.
pub fn expires_at(job: &JobRecord, endpoint: &Endpoint) -> Timestamp {
    let from = job.finished_at.unwrap_or(job.created_at);
    let kept = from.plus(endpoint.limits.retention);
    job.delete_at.map_or(kept, |at| at.min(kept))
}

/// How far a run is.
pub fn progress(run: &Progress) -> Value {
    let mut view = Map::new();
    view.insert("value".to_owned(), json!(run.value));
    view.insert("nodes_done".to_owned(), json!(run.nodes_done));
    view.insert("nodes_total".to_owned(), json!(run.nodes_total));
    if let Some(node) = &run.node {
        let class = run.class.as_deref().unwrap_or(node);
        view.insert("current_node".to_owned(), json!(node));
        view.insert("current_node_class".to_owned(), json!(run.class));
        view.insert("step".to_owned(), json!(run.steps.map(|(step, _)| step)));
        view.insert("steps".to_owned(), json!(run.steps.map(|(_, steps)| steps)));
        let message = match run.steps {
            Some((step, steps)) => format!("{class} {step}/{steps}"),
            None => class.to_owned(),
        };
        view.insert("message".to_owned(), json!(message));
    }
    Value::Object(view)
}

/// Why a job did not succeed; null of one that did, or that was cancelled.
fn error(job: &JobRecord) -> Value {
    let Some(failure) = &job.failure else {
        return Value::Null;
    };
    let code = match failure.code {
        FailureCode::ExecutionError => "node_execution_error",
        other => other.as_str(),
    };
    let said = |key: &str| failure.detail.as_ref().and_then(|detail| detail.get(key));
    json!({
        "code": code,
        "message": failure.message,
        "node_id": failure.node_id,
        "class_type": failure.node_type,
        "traceback": said("traceback").and_then(one_text),
    })
}

/// A list of texts as one.
fn one_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(lines) => {
            let lines: Vec<&str> = lines.iter().filter_map(Value::as_str).collect();
            (!lines.is_empty()).then(|| lines.concat())
        }
        _ => None,
    }
}

fn millis(from: Option<Timestamp>, to: Option<Timestamp>) -> Value {
    let took = from.zip(to).map(|(from, to)| to.since(from));
    let millis = took.map(|took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
    json!(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_has_a_word_of_the_closed_set() {
        let words: Vec<&str> = JobState::ALL
            .into_iter()
            .flat_map(|state| [word(state, false), word(state, true)])
            .collect();
        assert_eq!(
            words,
            [
                "queued",
                "queued",
                "running",
                "canceling",
                "succeeded",
                "succeeded",
                "failed",
                "failed",
                "canceled",
                "canceled",
                "expired",
                "expired"
            ]
        );
    }

    #[test]
    fn progress_is_whole_numbers_and_a_line_for_people() {
        let run = Progress {
            value: 0.5,
            nodes_done: 1,
            nodes_total: 2,
            node: Some("7".into()),
            class: Some("KSampler".into()),
            steps: Some((21, 50)),
        };
        assert_eq!(
            progress(&run),
            json!({"value": 0.5, "nodes_done": 1, "nodes_total": 2, "current_node": "7",
                   "current_node_class": "KSampler", "step": 21, "steps": 50, "message": "KSampler 21/50"})
        );
        assert_eq!(
            progress(&Progress::default()),
            json!({"value": 0.0, "nodes_done": 0, "nodes_total": 0})
        );
    }

    #[test]
    fn a_traceback_is_one_text() {
        assert_eq!(one_text(&json!(["a\n", "b\n"])).as_deref(), Some("a\nb\n"));
        assert_eq!(one_text(&json!("a")).as_deref(), Some("a"));
        assert_eq!((one_text(&json!([])), one_text(&json!(3))), (None, None));
    }
}
