//! Workflows as files: out of one server, into another.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::{
    super::{body::read_json, call::Call, error::ApiError},
    views,
};
use crate::{
    service::published::{self, Brought, WholeWorkflow},
    state::AppState,
};

/// `GET /workflows/{workflow}/export`: every version and alias.
///
/// # Errors
/// 404; 403 where a version runs on an endpoint that the key may not publish on.
pub async fn export(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
) -> Result<Response, ApiError> {
    call.publisher()?;
    let key = call.workflow_key(&workflow)?;
    let file = state.service.export_workflow(&call.actor(), &key).await;
    let file = file.map_err(|e| call.denied(e))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], Body::from(file)).into_response())
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
    /// Also where nodes, models or files that it needs are not here.
    #[serde(default)]
    force: bool,
}

/// `POST /workflows/import`: 201 with the new versions; 422 with the findings when some are errors, and nothing is brought in.
///
/// # Errors
/// For what is no export, endpoints that are not here, and without the scope on them.
pub async fn import(
    State(state): State<AppState>,
    call: Call,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    call.publisher()?;
    let read = read_json::<Import>(&call, &state.service.memory, &headers, body).await?;
    let (body, size, _held) = (read.parsed, read.size, read.held);
    let key = call.new_workflow_key(body.workflow_id.as_deref().unwrap_or(body.file.workflow_id()))?;
    let endpoint = body.endpoint.as_deref().map(|name| call.endpoint(name));
    let import = published::Import {
        file: body.file,
        endpoint: endpoint.transpose()?,
        force: body.force,
        size,
    };
    let brought = state.service.import_workflow(&call.actor(), &key, import).await;
    match brought.map_err(|e| call.denied(e))? {
        Brought::In { imported, findings } => {
            let view = json!({
                "workflow_id": key.id,
                "version": imported.versions.last(),
                "versions": imported.versions,
                "aliases": imported.aliases,
                "findings": findings,
            });
            Ok((StatusCode::CREATED, Json(view)).into_response())
        }
        Brought::Refused(findings) => Ok(views::refused("imported", &findings, &call)),
    }
}
