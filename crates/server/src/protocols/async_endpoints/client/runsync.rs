//! `POST /runsync`: accepts a job and waits for its end, as long as the caller wants to (`protocols/runpod.md` §2).
//!
//! A caller that goes away does not end its job.

use std::time::Duration;

use axum::{body::Body, extract::State, response::Response};
use http::HeaderMap;

use super::{ClientCall, run, view};
use crate::{
    protocols::async_endpoints::error::Refused,
    service::{Error, follow::Ending, jobs::JobRecord},
    state::AppState,
};

/// How long it waits where the caller does not say, in milliseconds.
const WAIT_MS: u64 = 90_000;
/// The least that can be asked for, in milliseconds.
pub const LEAST_WAIT_MS: u64 = 1_000;
/// The most, in milliseconds.
pub const MOST_WAIT_MS: u64 = 300_000;
/// Largest body where the vendors' limits are not asked for, in bytes.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// The handler.
///
/// # Errors
/// Every refusal, in this protocol's shape.
pub async fn handler(
    State(state): State<AppState>,
    call: ClientCall,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let wait = call
        .number("wait", LEAST_WAIT_MS, MOST_WAIT_MS)
        .map_err(|e| call.refuse(e))?;
    let limit = match call.endpoint.limits.vendor_limits {
        true => call.family.sync_body_bytes,
        false => MAX_BODY_BYTES,
    };
    let mut ending = run::submit(&state, &call, &headers, body, limit, true)
        .await
        .map_err(|e| call.refuse(e))?;
    let wait = Duration::from_millis(wait.unwrap_or(WAIT_MS));
    let job = match ended_within(&state, wait, &mut ending).await {
        Some(ended) => ended,
        None => state.service.job(Some(&call.caller.tenant), ending.job()).await,
    };
    let job = job.map_err(|e| call.refuse(e))?;
    view::answer(&state.service, &call.shown(), &job)
        .await
        .map_err(|e| call.refuse(e))
}

/// Waits for a job's end; `None` where it does not come in that time, or the server is about to close its connections: the
/// job goes on, and its caller looks for it as after any wait.
pub async fn ended_within(
    state: &AppState,
    wait: Duration,
    ending: &mut Ending,
) -> Option<Result<JobRecord, Error>> {
    tokio::select! {
        ended = ending.wait() => Some(ended),
        () = tokio::time::sleep(wait) => None,
        () = state.closing.cancelled() => None,
    }
}
