//! What the endpoint is: versions and devices, features, scripts of custom nodes. Answered from what its instances told
//! last, so that nothing is started for it.

use axum::{Json, body::Body, extract::State};
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{
    body::{MAX_SMALL_BYTES, read_json, truthy},
    call::NativeCall,
    error::Refused,
};
use crate::{
    service::{facts::Facts, resources::Free, uploads::MAX_UPLOAD_BYTES},
    state::AppState,
};

/// `GET /system_stats`: as of when an instance last told; zeros before that.
///
/// # Errors
/// When the store fails.
pub async fn stats(State(state): State<AppState>, call: NativeCall) -> Result<Json<Value>, Refused> {
    let facts = facts(&state, &call).await?;
    Ok(Json(facts.stats_for_clients()))
}

/// `GET /features`
///
/// # Errors
/// None of its own.
pub async fn features(_: NativeCall) -> Json<Value> {
    Json(feature_flags())
}

/// What this server can do: also the answer to a client's `feature_flags`.
pub fn feature_flags() -> Value {
    json!({ "supports_preview_metadata": true, "max_upload_size": MAX_UPLOAD_BYTES, "assets": false })
}

/// `POST /free`: passed on to each ComfyUI of the endpoint that runs here, for its operators. One client must not unload what
/// another's next job needs, so that of others it is taken as ComfyUI takes it, and goes no further: always 200, nothing
/// confirmed.
///
/// # Errors
/// For a body that is no JSON, or above a megabyte.
pub async fn free(
    State(state): State<AppState>,
    call: NativeCall,
    headers: HeaderMap,
    body: Body,
) -> Result<(), Refused> {
    let read = read_json(&headers, body, MAX_SMALL_BYTES, &state.service.memory)
        .await
        .map_err(|e| call.refuse(e))?;
    let wants = |key: &str| read.json.get(key).is_some_and(truthy);
    let what = Free {
        unload_models: wants("unload_models"),
        free_memory: wants("free_memory"),
    };
    if (what.unload_models || what.free_memory) && call.caller.operates(&call.endpoint.name) {
        state.service.free(&call.endpoint.name, what);
    }
    Ok(())
}

/// `GET /extensions`: the scripts that the page loads beside its own.
///
/// # Errors
/// When the store fails.
pub async fn extensions(State(state): State<AppState>, call: NativeCall) -> Result<Json<Value>, Refused> {
    let facts = facts(&state, &call).await?;
    Ok(Json(json!(facts.extensions)))
}

/// `GET /workflow_templates`
///
/// # Errors
/// When the store fails.
pub async fn workflow_templates(
    State(state): State<AppState>,
    call: NativeCall,
) -> Result<Json<Value>, Refused> {
    Ok(object(&facts(&state, &call).await?.workflow_templates))
}

/// `GET /i18n`
///
/// # Errors
/// When the store fails.
pub async fn i18n(State(state): State<AppState>, call: NativeCall) -> Result<Json<Value>, Refused> {
    Ok(object(&facts(&state, &call).await?.i18n))
}

/// `GET /node_replacements`
///
/// # Errors
/// When the store fails.
pub async fn node_replacements(
    State(state): State<AppState>,
    call: NativeCall,
) -> Result<Json<Value>, Refused> {
    Ok(object(&facts(&state, &call).await?.node_replacements))
}

/// `GET /global_subgraphs`
///
/// # Errors
/// When the store fails.
pub async fn global_subgraphs(
    State(state): State<AppState>,
    call: NativeCall,
) -> Result<Json<Value>, Refused> {
    Ok(object(&facts(&state, &call).await?.global_subgraphs))
}

/// `GET /global_subgraphs/{id}`: what is in one lies on the instance.
pub async fn global_subgraph(_: NativeCall) -> StatusCode {
    StatusCode::NOT_FOUND
}

async fn facts(state: &AppState, call: &NativeCall) -> Result<std::sync::Arc<Facts>, Refused> {
    let facts = state.service.facts(&call.endpoint.name).await;
    facts.map_err(|e| call.refuse(e))
}

fn object(told: &Value) -> Json<Value> {
    Json(match told {
        Value::Null => json!({}),
        told => told.clone(),
    })
}
