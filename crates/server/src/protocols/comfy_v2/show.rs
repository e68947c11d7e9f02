//! `GET /jobs/{id}`: what the SDKs poll. Never refused for its rate.

use axum::{Json, extract::State};
use serde_json::Value;

use super::{
    call::{Id, V2Call},
    error::ApiError,
    found::find,
    view,
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
    let view = view::job(&state.service, &call, &job).await?;
    Ok(Json(view))
}
