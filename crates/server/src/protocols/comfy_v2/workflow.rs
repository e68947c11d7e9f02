//! `GET /jobs/{id}/workflow`: the graph as it runs, with the names that files have there. Nothing of `extra_data` is in it.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{
    call::{Id, V2Call},
    error::ApiError,
    found::find,
};
use crate::state::AppState;

/// The handler.
///
/// # Errors
/// 404, also for one that the caller may not see.
pub async fn handler(
    State(state): State<AppState>,
    call: V2Call,
    Id(id): Id,
) -> Result<Json<Value>, ApiError> {
    let job = find(&state.service, &call, &id).await?;
    let graph = state.service.graph_of(&job).await?;
    Ok(Json(json!({ "workflow": graph, "format": "api" })))
}
