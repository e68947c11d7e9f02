//! `GET /requests`: the caller's jobs of an endpoint, newest first, a page at a time: `?limit=` and `?after=<id>`.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{ClientCall, view};
use crate::{
    protocols::async_endpoints::error::{AsyncError, Refused},
    service::jobs::{JobFilter, Page},
    state::AppState,
};

/// Jobs of a page where the caller does not say.
const PAGE: u32 = 100;
/// And at most.
const MOST: u64 = 1000;

/// The handler.
///
/// # Errors
/// 400 for bad parameters; callers without a key list only where the endpoint allows it.
pub async fn handler(State(state): State<AppState>, call: ClientCall) -> Result<Json<Value>, Refused> {
    let may = call.caller.may_list(&call.endpoint.name);
    may.map_err(|e| call.refuse(e))?;
    list(&state, &call).await.map(Json).map_err(|e| call.refuse(e))
}

async fn list(state: &AppState, call: &ClientCall) -> Result<Value, AsyncError> {
    let limit = call.number("limit", 1, MOST)?;
    let limit = limit.and_then(|n| u32::try_from(n).ok()).unwrap_or(PAGE);
    let after = match call.text("after") {
        Some(id) => Some(
            id.parse()
                .map_err(|_| AsyncError::invalid("after must be the id of a job"))?,
        ),
        None => None,
    };
    let filter = JobFilter {
        tenant: call.caller.visible_tenant().cloned(),
        endpoint: Some(call.endpoint.name.clone()),
        ..JobFilter::default()
    };
    let jobs = state.service.jobs(filter, Page { limit, after }).await?;
    let next = (jobs.len() == limit as usize)
        .then(|| jobs.last().map(|job| job.id))
        .flatten();
    let now = state.service.now();
    let mut requests = Vec::with_capacity(jobs.len());
    // One whose time is over is nobody's any more, also before it is swept.
    for job in jobs.iter().filter(|job| job.delete_at.is_none_or(|at| now < at)) {
        requests.push(view::facts(&state.service, &call.shown(), job).await?);
    }
    Ok(json!({ "requests": requests, "next": next }))
}
