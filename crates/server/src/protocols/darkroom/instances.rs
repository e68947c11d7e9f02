//! Instances of the endpoints that a caller may use. Their processes, addresses, and what they print: operators only.

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
    call.needs_anywhere(Scope::Client)?;
    let all = params.all.unwrap_or(false);
    let instances = state.service.instances(all).await.map_err(|e| call.fail(e))?;
    let visible = instances
        .iter()
        .filter(|i| call.caller.may(Scope::Client, &i.endpoint).is_ok());
    let views: Vec<Value> = visible
        .map(|i| views::instance(&state.service, &call.caller, i))
        .collect();
    Ok(Json(json!({ "instances": views })))
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
    let record = call.instance(&state.service, Scope::Client, &id).await?;
    Ok(Json(views::instance(&state.service, &call.caller, &record)))
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
    let id = call.instance(&state.service, Scope::Admin, &id).await?.id;
    let tail = params.tail.unwrap_or(64 * 1024).min(8 * 1024 * 1024);
    let bytes = state
        .service
        .instance_logs(id, tail)
        .await
        .map_err(|e| call.fail(e))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], bytes).into_response())
}
