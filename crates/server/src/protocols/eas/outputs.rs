//! `GET /api/predict/{service}/output/{name}`: the file that a result names, by way of its signed address.

use axum::{
    extract::{Path, State},
    response::{IntoResponse, Redirect, Response},
};

use super::{call::EasCall, error::Refused};
use crate::state::AppState;

/// The handler.
///
/// # Errors
/// 404, also for another tenant's.
pub async fn handler(
    State(state): State<AppState>,
    call: EasCall,
    Path((_, name)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let signed = state
        .service
        .result_file(&call.caller.tenant, &call.endpoint.name, &name)
        .await
        .map_err(|e| call.refuse(e))?;
    let url = format!("{}{}", call.base_url, signed.path_and_query);
    Ok(Redirect::temporary(&url).into_response())
}
