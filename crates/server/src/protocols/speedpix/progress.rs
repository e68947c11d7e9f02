//! `POST /scc/comfy_get_progress`: how far a task is (`protocols/speedpix.md` §5).

use axum::{
    Json,
    extract::{Request, State},
};
use darkroom_core::JobState;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    call::SpeedpixCall,
    envelope::{OK, envelope},
    error::{Failed, Refused},
};
use crate::state::AppState;

/// What is told as the time to the end where nothing is known to tell it from, in seconds.
const UNKNOWN_ETA_S: u64 = 0;

/// The body of both questions about a task.
#[derive(Debug, Deserialize)]
pub struct Task {
    /// Its id; another type than a text is no id of ours.
    #[serde(default, rename = "taskId", alias = "task_id")]
    task_id: Value,
}

impl Task {
    /// As a text.
    pub fn id(&self) -> String {
        match &self.task_id {
            Value::String(id) => id.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }
}

/// The word for a state. The SDK knows four; any other ends the caller's run.
pub fn word(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "waiting",
        JobState::Running => "running",
        JobState::Succeeded => "succeeded",
        JobState::Failed | JobState::Cancelled | JobState::Expired => "failed",
    }
}

/// The handler.
///
/// # Errors
/// An envelope for a task that is not there; an HTTP error for what passes, and for a signature that is wrong.
pub async fn handler(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Failed> {
    let call = SpeedpixCall::read(&state, request).await?;
    let task: Task = call.json().await?;
    let (job, called) = call.task(&state, &task.id()).await?;
    let view = state.service.progress_of(&job).await;
    let view = view.map_err(|error| Refused::passing(error, &call.caller.request_id))?;
    // Whole seconds, rounded up: 0 is for what is over, and not for what takes longer than those before it.
    let least = u64::from(!job.state.is_final());
    let eta = view.remaining.map_or(UNKNOWN_ETA_S, |left| {
        let seconds = left.as_millis().div_ceil(1000).try_into().unwrap_or(u64::MAX);
        seconds.max(least)
    });
    let mut data = json!({
        "taskId": job.id,
        "status": word(job.state),
        "progress": view.fraction,
        "etaRelative": eta,
        "state": { "node": view.node, "nodes": called.nodes },
    });
    if let Some(position) = view.position {
        data["lastQueueRemaining"] = Value::from(position);
    }
    if let Some(node) = &view.node {
        data["message"] = Value::from(format!("node {node}"));
    }
    Ok(Json(envelope(OK, None, data, &call.caller.request_id)))
}
