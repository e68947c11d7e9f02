//! `POST /purge-queue`: every job of the caller's that waits is cancelled; those that run are not touched.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::ClientCall;
use crate::{protocols::async_endpoints::error::Refused, state::AppState};

/// The handler.
///
/// # Errors
/// When the store fails; callers without a key may purge only where they may list.
pub async fn handler(State(state): State<AppState>, call: ClientCall) -> Result<Json<Value>, Refused> {
    let may = call.caller.may_list(&call.endpoint.name);
    may.map_err(|e| call.refuse(e))?;
    let tenant = call.caller.visible_tenant();
    let purged = state.service.purge_queue(tenant, &call.endpoint.name).await;
    let removed = purged.map_err(|e| call.refuse(e))?;
    Ok(Json(json!({ "removed": removed, "status": "completed" })))
}
