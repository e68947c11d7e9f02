//! `GET /status/{id}`; `?ttl=` shortens what is left of the job's life (`protocols/async-endpoints.md` §2.4).

use std::time::Duration;

use axum::{extract::State, response::Response};
use darkroom_core::worker::{MAX_TIME_MS, MIN_TTL_MS};

use super::{ClientCall, view};
use crate::{
    protocols::async_endpoints::error::{AsyncError, Refused},
    state::AppState,
};

/// The handler.
///
/// # Errors
/// 404 for a job that is not there (any more) or not the caller's, 400 for a `ttl` out of range.
pub async fn handler(State(state): State<AppState>, call: ClientCall) -> Result<Response, Refused> {
    look(&state, &call).await.map_err(|e| call.refuse(e))
}

async fn look(state: &AppState, call: &ClientCall) -> Result<Response, AsyncError> {
    let ttl = call.number("ttl", MIN_TTL_MS, MAX_TIME_MS)?;
    let job = call.job(state).await?;
    if let Some(ttl) = ttl {
        let rest = Duration::from_millis(ttl);
        let tenant = call.caller.visible_tenant();
        state.service.shorten_life(tenant, job.id, rest).await?;
    }
    Ok(view::answer(&state.service, &call.shown(), &job).await?)
}
