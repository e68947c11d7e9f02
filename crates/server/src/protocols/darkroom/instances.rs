//! Instances and what they print. Operators only.

use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use http::header;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{call::Call, error::ApiError, views};
use crate::{auth::Scope, state::AppState};

/// The query of a list.
#[derive(Debug, Deserialize)]
pub struct ListParams {
    #[serde(default)]
    all: Option<bool>,
}

/// `GET /instances`; `?all=true` also those that are gone.
///
/// # Errors
/// Without the scope.
pub async fn list(
    State(state): State<AppState>,
    call: Call,
    Query(params): Query<ListParams>,
) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Admin)?;
    let all = params.all.unwrap_or(false);
    let instances = state.service.instances(all).await.map_err(|e| call.fail(e))?;
    Ok(Json(
        json!({ "instances": instances.iter().map(views::instance).collect::<Vec<_>>() }),
    ))
}

/// `GET /instances/{instance}`.
///
/// # Errors
/// 404.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    Path(id): Path<String>,
) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Admin)?;
    let id = call.instance_id(&id)?;
    let record = state.service.instance(id).await.map_err(|e| call.fail(e))?;
    Ok(Json(views::instance(&record)))
}

/// The query of a log.
#[derive(Debug, Deserialize)]
pub struct LogParams {
    #[serde(default)]
    tail: Option<u64>,
}

/// `GET /instances/{instance}/logs?tail=BYTES`: plain text.
///
/// # Errors
/// 404.
pub async fn logs(
    State(state): State<AppState>,
    call: Call,
    Path(id): Path<String>,
    Query(params): Query<LogParams>,
) -> Result<Response, ApiError> {
    call.needs_anywhere(Scope::Admin)?;
    let id = call.instance_id(&id)?;
    let tail = params.tail.unwrap_or(64 * 1024).min(8 * 1024 * 1024);
    let bytes = state
        .service
        .instance_logs(id, tail)
        .await
        .map_err(|e| call.fail(e))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response())
}
