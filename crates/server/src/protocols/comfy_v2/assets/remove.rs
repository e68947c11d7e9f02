//! `DELETE /assets/{id}`: the record goes; its bytes stay as long as anything else has them, be it a job that waits.

use axum::extract::State;
use http::StatusCode;

use super::{
    super::{
        call::{Id, V2Call},
        error::ApiError,
    },
    find,
};
use crate::state::AppState;

/// The handler.
///
/// # Errors
/// 404, also for one that the caller may not see; 409 for what a job made, which goes with its job.
pub async fn handler(
    State(state): State<AppState>,
    call: V2Call,
    Id(id): Id,
) -> Result<StatusCode, ApiError> {
    let held = find(&state.service, &call, &id).await?;
    if held.job.is_some() {
        let message = "the asset is held";
        return Err(ApiError::new(StatusCode::CONFLICT, "asset_in_use", message));
    }
    state
        .service
        .delete_asset(&call.caller.tenant, held.asset.id)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
