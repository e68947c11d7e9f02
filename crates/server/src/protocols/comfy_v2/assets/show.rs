//! `GET /assets/{id}`.

use axum::{Json, extract::State};
use serde_json::Value;

use super::{
    super::{
        call::{Id, V2Call},
        error::ApiError,
    },
    find, shown,
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
    let held = find(&state.service, &call, &id).await?;
    Ok(Json(shown(&state.service, &call, &held)))
}
