//! `GET /darkroom/openapi.json`: an operation for each workflow that the caller may call, as its alias `main` stands now.

use std::collections::BTreeSet;

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
    let (page, _) = state
        .service
        .workflows(&call.actor(), &call.caller.tenant, None, MAX_WORKFLOWS)
        .await
        .map_err(|e| call.fail(e))?;
    let (mut paths, mut ids) = (Map::new(), BTreeSet::new());
    for record in page {
        // One that only has versions, or runs where the caller may not, is none to be called.
        let Ok(loaded) = load(&state, &call, record.key.id.as_str(), &Which::default()).await else {
            continue;
        };
        let id = record.key.id.as_str();
        paths.insert(
            format!("/darkroom/v1/workflows/{id}/run"),
            json!({ "post": operation(id, operation_id(id, &mut ids), &loaded) }),
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

/// A name for programs that are generated from the document: letters, digits and `_` of ASCII alone, none twice.
fn operation_id(workflow: &str, taken: &mut BTreeSet<String>) -> String {
    let plain = workflow.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let mut id = match plain == workflow {
        true => format!("run_{plain}"),
        // Others become the same: `a.b` and `a-b`, and any two names of two characters in another script.
        false => {
            let hash = blake3::hash(workflow.as_bytes()).to_hex();
            format!("run_{}_{}", plain.trim_matches('_'), &hash[..8])
        }
    };
    while !taken.insert(id.clone()) {
        id.push('_');
    }
    id
}

fn operation(id: &str, operation_id: String, loaded: &Loaded) -> Value {
    let published = &loaded.definition.published;
    let inputs = published.schema();
    let needs_inputs = inputs["required"]
        .as_array()
        .is_some_and(|names| !names.is_empty());
    let required: &[&str] = if needs_inputs { &["inputs"] } else { &[] };
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
        "operationId": operation_id,
        "summary": format!("Run {id}"),
        "description": loaded.definition.description,
        "parameters": [{ "name": "mode", "in": "query", "required": false,
            "description": "sync waits for the end, async answers at once, stream sends events",
            "schema": { "enum": ["sync", "async", "stream"], "default": "sync" } }],
        "requestBody": { "required": needs_inputs, "content": { "application/json": { "schema": {
            "type": "object",
            "properties": {
                "inputs": inputs,
                "version": { "type": "string", "pattern": "^v[1-9][0-9]*$" },
                "alias": { "type": "string", "default": "main" },
                "randomise_seeds": { "type": "boolean", "default": false },
                "return_temp_files": { "type": "boolean", "default": false },
                "resource": { "type": "string" },
                "priority": { "type": "integer", "minimum": -100, "maximum": 100, "default": 0 },
                "reference": { "type": "string", "maxLength": 200 },
                "webhook": { "type": "string", "format": "uri" },
            },
            "required": required,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_have_names_of_their_own_whatever_workflows_are_called() {
        let mut taken = BTreeSet::new();
        let names = ["poster", "a_b", "a-b", "a.b", "海报", "图片", "一-二", "run"];
        let ids: Vec<String> = names.iter().map(|name| operation_id(name, &mut taken)).collect();
        let all: BTreeSet<&String> = ids.iter().collect();
        assert_eq!(all.len(), names.len(), "{ids:?}");
        assert_eq!((ids[0].as_str(), ids[1].as_str()), ("run_poster", "run_a_b"));
        assert!(
            ids.iter()
                .all(|id| id.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')),
            "{ids:?}"
        );
        // The same in every document, whatever else is in it.
        assert_eq!(operation_id("海报", &mut BTreeSet::new()), ids[4]);
        assert_ne!(operation_id("poster", &mut taken), "run_poster");
    }
}
