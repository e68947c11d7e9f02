//! `HEAD /assets/by-hash/{hash}`: whether `POST /assets/from-hash` would find these bytes, now and for an hour at least.

use axum::extract::State;
use http::StatusCode;

use super::{
    super::{
        call::{Id, V2Call},
        error::ApiError,
    },
    no_blob,
};
use crate::state::AppState;

/// The handler.
///
/// # Errors
/// 404 for bytes that are not here, or not the caller's, and for what is no hash.
pub async fn handler(
    State(state): State<AppState>,
    call: V2Call,
    Id(hash): Id,
) -> Result<StatusCode, ApiError> {
    let hash = hash.parse().map_err(|_| no_blob())?;
    match state.service.has_bytes(&call.caller.tenant, hash).await? {
        true => Ok(StatusCode::OK),
        false => Err(no_blob()),
    }
}
