//! `GET ping/{worker}`: the worker lives, and says which jobs it has. Nobody reads the answer.

use axum::extract::State;
use darkroom_core::presence::Heard;

use super::call::{Refusal, WorkerCall};
use crate::state::AppState;

/// The longest reason that is kept, in characters.
const REASON_CHARS: usize = 500;

/// Hears.
pub async fn handler(State(state): State<AppState>, call: WorkerCall) -> Result<&'static str, Refusal> {
    // The heartbeat of a worker that was killed pings for ever: a ping alone makes no worker known.
    let Some(worker) = call.known(&state)? else {
        return Ok("unknown");
    };
    if call.get("status") == Some("unhealthy") {
        let check = call.get("check").unwrap_or("a check").trim_matches('_');
        let reason = call.get("reason").unwrap_or("no reason given");
        let reason: String = reason
            .chars()
            .filter(|c| !c.is_control())
            .take(REASON_CHARS)
            .collect();
        let why = format!("{check} failed: {reason}");
        let told = state.service.worker_is_unhealthy(&worker, why).await;
        told.map_err(|e| Refusal::from(&e))?;
        return Ok("unhealthy");
    }
    let jobs = call.get("job_id").unwrap_or_default();
    let jobs = jobs.split(',').filter_map(|id| id.parse().ok()).collect();
    state.service.worker_heard(&worker, &Heard::Ping { jobs });
    Ok("ok")
}
