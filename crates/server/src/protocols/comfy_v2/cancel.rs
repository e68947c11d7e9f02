//! `POST /jobs/{id}/cancel`: safe to repeat; of a job that has ended it changes nothing.

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
    let service = &state.service;
    let job = find(service, &call, &id).await?;
    let tenant = Some(&call.caller.tenant);
    service.cancel(tenant, job.id).await?;
    let now = service.job(tenant, job.id).await?;
    Ok(Json(view::job(service, &call, &now).await?))
}
