//! `GET /health`: open to everybody; says nothing of the endpoint's instances, which are started when there is work.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use crate::state::{AppState, BaseUrl};

/// The handler.
pub async fn handler(State(_): State<AppState>, BaseUrl(base): BaseUrl) -> Json<Value> {
    Json(json!({ "status": "healthy", "upstream": base }))
}
