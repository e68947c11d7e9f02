//! `GET /darkroom/openapi.json`: an operation for each workflow that the caller may call, as its alias `main` stands now.

use axum::{Json, extract::State};
use serde_json::{Map, Value, json};

use super::{
    super::{call::Call, error::ApiError},
    show::{Which, load},
};
use crate::{
    service::published::Loaded,
    state::{AppState, BaseUrl},
};

/// Workflows described at once.
const MAX_WORKFLOWS: u32 = 1000;

/// The document.
///
/// # Errors
/// Without a key, where one is needed.
pub async fn document(
    State(state): State<AppState>,
    call: Call,
    BaseUrl(base): BaseUrl,
) -> Result<Json<Value>, ApiError> {
    let page = state
        .service
        .workflows(&call.caller.tenant, None, MAX_WORKFLOWS)
        .await
        .map_err(|e| call.fail(e))?;
    let mut paths = Map::new();
    for record in page {
        // One that only has versions, or runs where the caller may not, is none to be called.
        let Ok(loaded) = load(&state, &call, record.key.id.as_str(), &Which::default()).await else {
            continue;
        };
        let id = record.key.id.as_str();
        paths.insert(
            format!("/darkroom/v1/workflows/{id}/run"),
            json!({ "post": operation(id, &loaded) }),
        );
    }
    Ok(Json(json!({
        "openapi": "3.1.0",
        "info": { "title": "Darkroom: published workflows", "version": env!("CARGO_PKG_VERSION") },
        "servers": [{ "url": base }],
        "paths": paths,
        "components": {
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
        "security": [{ "key": [] }],
    })))
}

fn operation(id: &str, loaded: &Loaded) -> Value {
    let published = &loaded.definition.published;
    let outputs: Map<String, Value> = published
        .outputs
        .iter()
        .map(|output| {
            let schema = json!({ "type": "array", "description": output.description,
                "items": { "$ref": "#/components/schemas/Output" } });
            (output.name.clone(), schema)
        })
        .collect();
    let run = json!({ "allOf": [
        { "$ref": "#/components/schemas/Run" },
        { "type": "object", "properties": { "outputs": { "type": "object", "properties": outputs } } },
    ]});
    json!({
        "operationId": format!("run_{}", id.replace(|c: char| !c.is_ascii_alphanumeric(), "_")),
        "summary": format!("Run {id}"),
        "description": loaded.definition.description,
        "parameters": [{ "name": "mode", "in": "query", "required": false,
            "description": "sync waits for the end, async answers at once, stream sends events",
            "schema": { "enum": ["sync", "async", "stream"], "default": "sync" } }],
        "requestBody": { "required": true, "content": { "application/json": { "schema": {
            "type": "object",
            "properties": {
                "inputs": published.schema(),
                "version": { "type": "string", "pattern": "^v[1-9][0-9]*$" },
                "alias": { "type": "string", "default": "main" },
                "randomise_seeds": { "type": "boolean", "default": false },
                "return_temp_files": { "type": "boolean", "default": false },
                "resource": { "type": "string" },
                "priority": { "type": "integer", "minimum": -100, "maximum": 100, "default": 0 },
                "reference": { "type": "string", "maxLength": 200 },
                "webhook": { "type": "string", "format": "uri" },
            },
            "additionalProperties": false,
        }}}},
        "responses": {
            "200": { "description": "the run and its outputs, or (mode=stream) its events", "content": {
                "application/json": { "schema": run }, "text/event-stream": { "schema": { "type": "string" } } } },
            "202": { "description": "mode=async: the run, which goes on", "content": {
                "application/json": { "schema": { "$ref": "#/components/schemas/Run" } } } },
            "4XX": { "description": "refused, or the job failed", "content": {
                "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } } },
        },
    })
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    json!({
        "Output": { "type": "object", "properties": {
            "url": text, "filename": text, "content_type": text, "size": { "type": "integer" }, "blake3": text, "text": text,
        }},
        "Run": { "type": "object", "properties": {
            "job": text, "workflow_id": text, "version": text, "endpoint": text,
            "state": { "enum": ["queued", "running", "succeeded", "failed", "cancelled", "expired"] },
            "outputs": { "type": "object", "additionalProperties": {
                "type": "array", "items": { "$ref": "#/components/schemas/Output" } } },
            "failure": { "type": ["object", "null"] },
        }, "required": ["job", "state", "outputs"] },
        "Error": { "type": "object", "properties": { "error": { "type": "object", "properties": {
            "code": text, "message": text, "request_id": text, "details": {},
        }, "required": ["code", "message"] }}},
    })
}
