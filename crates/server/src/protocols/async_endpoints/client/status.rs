//! `GET /status/{id}`.

use axum::{extract::State, response::Response};

use super::{ClientCall, view};
use crate::{
    protocols::async_endpoints::error::{AsyncError, Refused},
    state::AppState,
};

/// The handler.
///
/// # Errors
/// 404 for a job that is not there or not the caller's.
pub async fn handler(State(state): State<AppState>, call: ClientCall) -> Result<Response, Refused> {
    look(&state, &call).await.map_err(|e| call.refuse(e))
}

async fn look(state: &AppState, call: &ClientCall) -> Result<Response, AsyncError> {
    let job = call.job(state).await?;
    Ok(view::answer(&state.service, &call.shown(), &job).await?)
}
