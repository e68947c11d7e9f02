//! `POST /cancel/{id}`: a job that waits or runs ends as cancelled; one that has ended stays as it is.

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
/// 404 for a job that is not there or not the caller's.
pub async fn handler(State(state): State<AppState>, call: ClientCall) -> Result<Json<Value>, Refused> {
    cancel(&state, &call).await.map(Json).map_err(|e| call.refuse(e))
}

async fn cancel(state: &AppState, call: &ClientCall) -> Result<Value, AsyncError> {
    let job = call.job(state).await?;
    let tenant = call.caller.visible_tenant();
    let ended = state.service.cancel_and_wait(tenant, job.id).await?;
    Ok(json!({ "id": job.id, "status": view::state_word(&ended) }))
}
