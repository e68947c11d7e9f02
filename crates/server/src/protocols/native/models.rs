//! `GET /models…`, `/embeddings`: which models the endpoint's boxes have. Where they lie on those boxes is not told.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    call::{NativeCall, param},
    error::Refused,
};
use crate::{service::models::ModelFile, state::AppState};

/// `GET /embeddings`: names without their extensions.
///
/// # Errors
/// When the store fails.
pub async fn embeddings(State(state): State<AppState>, call: NativeCall) -> Result<Json<Value>, Refused> {
    let facts = state.service.facts(&call.endpoint.name).await;
    let facts = facts.map_err(|e| call.refuse(e))?;
    Ok(Json(json!(facts.embeddings)))
}

/// `GET /models`
///
/// # Errors
/// When the store fails.
pub async fn folders(State(state): State<AppState>, call: NativeCall) -> Result<Json<Vec<String>>, Refused> {
    let folders = state.service.model_folders(&call.endpoint.name).await;
    folders.map(Json).map_err(|e| call.refuse(e))
}

/// `GET /models/{folder}`: 404 for an unknown one.
///
/// # Errors
/// When the store fails.
pub async fn files(
    State(state): State<AppState>,
    call: NativeCall,
    Path(params): Path<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    let files = names(&state, &call, &params).await?;
    Ok(match files {
        Some(files) => Json(files).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

/// `GET /experiment/models`
///
/// # Errors
/// When the store fails.
pub async fn detailed_folders(
    State(state): State<AppState>,
    call: NativeCall,
) -> Result<Json<Value>, Refused> {
    let folders = state.service.model_folders(&call.endpoint.name).await;
    let folders = folders.map_err(|e| call.refuse(e))?;
    let no_models = ["configs", "custom_nodes"];
    let detailed = folders.iter().filter(|name| !no_models.contains(&name.as_str()));
    let detailed: Vec<Value> = detailed
        .map(|name| json!({ "name": name, "folders": [] }))
        .collect();
    Ok(Json(json!(detailed)))
}

/// `GET /experiment/models/{folder}`
///
/// # Errors
/// When the store fails.
pub async fn detailed_files(
    State(state): State<AppState>,
    call: NativeCall,
    Path(params): Path<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    let files = names(&state, &call, &params).await?;
    Ok(match files {
        Some(files) => {
            let detailed = files.iter().map(|name| json!({ "name": name, "pathIndex": 0 }));
            Json(detailed.collect::<Vec<_>>()).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    })
}

/// The query of [`metadata`].
#[derive(Debug, Default, Deserialize)]
pub struct FileQuery {
    #[serde(default)]
    filename: String,
}

/// `GET /view_metadata/{folder}?filename=`: what the model's file says of itself, from an instance that runs or once told; 404
/// where nobody knows. It wakes none.
///
/// # Errors
/// None of its own.
pub async fn metadata(
    State(state): State<AppState>,
    call: NativeCall<FileQuery>,
    Path(params): Path<Vec<(String, String)>>,
) -> Response {
    let file = ModelFile::new(param(&params, "folder"), &call.query.filename);
    let told = match &file {
        Some(file) => state.service.model_metadata(&call.endpoint.name, file).await,
        None => None,
    };
    told.map_or_else(
        || StatusCode::NOT_FOUND.into_response(),
        |told| Json(told).into_response(),
    )
}

async fn names(
    state: &AppState,
    call: &NativeCall,
    params: &[(String, String)],
) -> Result<Option<Vec<String>>, Refused> {
    let folder = param(params, "folder");
    let files = state.service.models(&call.endpoint.name, folder).await;
    files.map_err(|e| call.refuse(e))
}
