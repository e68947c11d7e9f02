//! What files take, by whose they are, of which endpoint, and how old.

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{call::Call, error::ApiError};
use crate::{auth::Scope, state::AppState};

/// What the ages are called, youngest first.
const AGES: [&str; 4] = ["day", "week", "month", "older"];

/// `GET /storage`: every blob that something refers to, counted once. Operators only.
///
/// # Errors
/// Without the scope.
pub async fn show(State(state): State<AppState>, call: Call) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Admin)?;
    let usage = state.service.usage().await.map_err(|e| call.fail(e))?;
    let rows: Vec<Value> = usage
        .iter()
        .map(|one| {
            json!({
                "tenant": one.tenant,
                "endpoint": one.endpoint,
                "age": AGES.get(one.age),
                "files": one.blobs,
                "bytes": one.bytes,
            })
        })
        .collect();
    let sum = |of: fn(&crate::service::jobs::Usage) -> u64| usage.iter().map(of).sum::<u64>();
    Ok(Json(json!({
        "files": sum(|one| one.blobs),
        "bytes": sum(|one| one.bytes),
        "usage": rows,
    })))
}
