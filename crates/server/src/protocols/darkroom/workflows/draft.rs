//! The draft of a workflow. `POST /workflows` without a graph publishes it.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::super::{body::read_json, call::Call, error::ApiError, views::time};
use crate::{service::published::Publication, state::AppState};

/// `PUT /workflows/{workflow}/draft`: kept also with mistakes in it, which are told.
///
/// # Errors
/// 403 without the right to publish on all its endpoints.
pub async fn keep(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    call.publisher()?;
    let key = call.new_workflow_key(&workflow)?;
    let read = read_json::<Publication>(&call, &state.service.memory, &headers, body).await?;
    let findings = state
        .service
        .put_draft(&call.actor(), &key, read.parsed, read.size)
        .await
        .map_err(|e| call.denied(e))?;
    Ok(Json(json!({ "workflow_id": key.id, "findings": findings })))
}

/// `GET /workflows/{workflow}/draft`.
///
/// # Errors
/// 404.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
) -> Result<Json<Value>, ApiError> {
    call.publisher()?;
    let key = call.workflow_key(&workflow)?;
    let draft = state.service.draft(&call.actor(), &key).await;
    let (at, draft) = draft.map_err(|e| call.denied(e))?;
    Ok(Json(
        json!({ "workflow_id": key.id, "written_at": time(Some(at)), "draft": draft }),
    ))
}

/// `DELETE /workflows/{workflow}/draft`.
///
/// # Errors
/// 404.
pub async fn remove(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
) -> Result<StatusCode, ApiError> {
    call.publisher()?;
    let key = call.workflow_key(&workflow)?;
    let removed = state.service.remove_draft(&call.actor(), &key).await;
    removed.map_err(|e| call.denied(e))?;
    Ok(StatusCode::NO_CONTENT)
}
