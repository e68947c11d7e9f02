//! `GET /prompt`: how many prompts wait or run.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{call::NativeCall, error::Refused};
use crate::state::AppState;

/// The handler.
///
/// # Errors
/// Refusals in this protocol's shape.
pub async fn handler(State(state): State<AppState>, call: NativeCall) -> Result<Json<Value>, Refused> {
    let remaining = state.service.queue_remaining(&call.endpoint.name).await;
    Ok(Json(exec_info(remaining.map_err(|e| call.refuse(e))?)))
}

/// `{"exec_info": {"queue_remaining": n}}`, as here and in `status` messages.
pub fn exec_info(queue_remaining: u64) -> Value {
    json!({ "exec_info": { "queue_remaining": queue_remaining } })
}
