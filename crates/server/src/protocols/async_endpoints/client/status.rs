//! `GET /status/{id}`; `?ttl=` shortens what is left of the job's life (`protocols/async-endpoints.md` §2.4), `?wait=` (ours)
//! holds the answer until the job has ended.

use std::time::Duration;

use axum::{extract::State, response::Response};
use darkroom_core::worker::{MAX_TIME_MS, MIN_TTL_MS};

use super::{
    ClientCall,
    runsync::{LEAST_WAIT_MS, MOST_WAIT_MS, ended_within},
    view,
};
use crate::{
    protocols::async_endpoints::error::{AsyncError, Refused},
    state::AppState,
};

/// The handler.
///
/// # Errors
/// 404 for a job that is not there (any more) or not the caller's, 400 for a `ttl` or `wait` out of range.
pub async fn handler(State(state): State<AppState>, call: ClientCall) -> Result<Response, Refused> {
    look(&state, &call).await.map_err(|e| call.refuse(e))
}

async fn look(state: &AppState, call: &ClientCall) -> Result<Response, AsyncError> {
    let ttl = call.number("ttl", MIN_TTL_MS, MAX_TIME_MS)?;
    let wait = call.number("wait", LEAST_WAIT_MS, MOST_WAIT_MS)?;
    let mut job = call.job(state).await?;
    if let Some(ttl) = ttl {
        let rest = Duration::from_millis(ttl);
        let tenant = call.caller.visible_tenant();
        state.service.shorten_life(tenant, job.id, rest).await?;
    }
    if let Some(wait) = wait
        && !job.state.is_final()
    {
        let mut ending = state.service.ending(job.id);
        job = match ended_within(state, Duration::from_millis(wait), &mut ending).await {
            Some(ended) => ended?,
            None => call.job(state).await?,
        };
    }
    Ok(view::answer(&state.service, &call.shown(), &job).await?)
}
