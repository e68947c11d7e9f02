//! Workflows as files: out of one server, into another.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::{body::read_json, call::Call, error::ApiError};
use crate::{auth::Scope, service::published::WholeWorkflow, state::AppState};

/// `GET /workflows/{workflow}/export`: every version and alias.
///
/// # Errors
/// 404; for publishers only.
pub async fn export(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let record = call.workflow(&state.service, &workflow).await?;
    for version in state
        .service
        .workflow_versions(&record.key)
        .await
        .map_err(|e| call.fail(e))?
    {
        call.needs(Scope::Publish, &version.endpoint)?;
    }
    call.publisher()?;
    let file = state
        .service
        .export_workflow(&record.key)
        .await
        .map_err(|e| call.fail(e))?;
    Ok(Json(file))
}

/// The body of an import.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Import {
    /// What an export gave.
    file: WholeWorkflow,
    /// Another id.
    #[serde(default)]
    workflow_id: Option<String>,
    /// Another endpoint for all versions.
    #[serde(default)]
    endpoint: Option<String>,
}

/// `POST /workflows/import`: 201 with the new versions.
///
/// # Errors
/// For what is no export, endpoints that are not here, and without the scope on them.
pub async fn import(
    State(state): State<AppState>,
    call: Call,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    call.publisher()?;
    let read = read_json::<Import>(&call, &state.service.memory, &headers, body).await?;
    let Import {
        file,
        workflow_id,
        endpoint,
    } = read.parsed;
    let key = call.new_workflow_key(workflow_id.as_deref().unwrap_or(file.workflow_id()))?;
    let endpoint = endpoint.as_deref().map(|name| call.endpoint(name)).transpose()?;
    match &endpoint {
        Some(endpoint) => call.needs(Scope::Publish, endpoint)?,
        None => file
            .endpoints()
            .try_for_each(|endpoint| call.needs(Scope::Publish, endpoint))?,
    }
    let imported = state
        .service
        .import_workflow(&key, file, endpoint.as_ref(), &call.by())
        .await;
    let imported = imported.map_err(|e| call.fail(e))?;
    let view = json!({
        "workflow_id": key.id,
        "version": imported.versions.last(),
        "versions": imported.versions,
        "aliases": imported.aliases,
    });
    Ok((StatusCode::CREATED, Json(view)))
}
