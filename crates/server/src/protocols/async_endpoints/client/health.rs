//! `GET /health`: how many jobs and workers an endpoint has, by state (`protocols/async-endpoints.md` §2.1).

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::ClientCall;
use crate::{protocols::async_endpoints::error::Refused, state::AppState};

/// The handler.
///
/// # Errors
/// When the store fails.
pub async fn handler(State(state): State<AppState>, call: ClientCall) -> Result<Json<Value>, Refused> {
    let health = state.service.endpoint_health(&call.endpoint.name).await;
    let health = health.map_err(|e| call.refuse(e))?;
    let (jobs, workers) = (health.jobs, health.workers);
    Ok(Json(json!({
        "jobs": {
            "completed": jobs.completed,
            "failed": jobs.failed,
            "inProgress": jobs.in_progress,
            "inQueue": jobs.in_queue,
            "retried": jobs.retried,
        },
        "workers": {
            "idle": workers.idle,
            "initializing": workers.initializing,
            "ready": workers.idle + workers.running,
            "running": workers.running,
            "throttled": workers.throttled,
            "unhealthy": workers.unhealthy,
        },
    })))
}
