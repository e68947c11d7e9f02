//! `POST /retry/{id}`: a job that failed or ran out of time waits again, under its id and with its input.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{ClientCall, view};
use crate::{
    protocols::async_endpoints::error::{AsyncError, Refused},
    state::AppState,
};

/// The handler.
///
/// # Errors
/// 404 for a job that is not there, 400 for one in another state.
pub async fn handler(State(state): State<AppState>, call: ClientCall) -> Result<Json<Value>, Refused> {
    retry(&state, &call).await.map(Json).map_err(|e| call.refuse(e))
}

async fn retry(state: &AppState, call: &ClientCall) -> Result<Value, AsyncError> {
    let job = call.job(state).await?;
    let word = view::state_word(&job);
    if !matches!(word, "FAILED" | "TIMED_OUT") {
        return Err(AsyncError::invalid(format!(
            "job {} is {word}: only FAILED and TIMED_OUT ones are retried",
            job.id
        )));
    }
    state.service.retry(call.caller.visible_tenant(), job.id).await?;
    Ok(json!({ "id": job.id, "status": "IN_QUEUE" }))
}
