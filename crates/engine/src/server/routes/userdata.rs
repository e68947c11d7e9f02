//! What ComfyUI's web page keeps on the server: settings and files of one user.

use std::path::{Path, PathBuf};

use axum::{
    Json,
    extract::{Path as UrlPath, Query, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    super::{
        Engine,
        body::{BadRequest, JsonBody},
    },
    Shared,
};
use crate::files::inside;

const USER: &str = "default";
const SETTINGS_FILE: &str = "comfy.settings.json";

/// `GET /users`: one user without a name.
pub async fn users() -> Json<Value> {
    Json(json!({"storage": "server", "migrated": false}))
}

/// `GET /settings`
pub async fn settings(State(engine): Shared) -> Json<Map<String, Value>> {
    Json(load(&engine).await)
}

/// `POST /settings`: merged over what is there.
pub async fn change_settings(State(engine): Shared, JsonBody(body): JsonBody) -> Result<(), Response> {
    let Value::Object(changes) = body else {
        return Err(BadRequest("settings must be an object".into()).into_response());
    };
    let mut all = load(&engine).await;
    all.extend(changes);
    save(&engine, all).await
}

/// `GET /settings/{id}`
pub async fn setting(State(engine): Shared, UrlPath(id): UrlPath<String>) -> Json<Value> {
    Json(load(&engine).await.shift_remove(&id).unwrap_or_default())
}

/// `POST /settings/{id}`
pub async fn change_setting(
    State(engine): Shared,
    UrlPath(id): UrlPath<String>,
    JsonBody(value): JsonBody,
) -> Result<(), Response> {
    let mut all = load(&engine).await;
    all.insert(id, value);
    save(&engine, all).await
}

/// Which directory to list, and how.
#[derive(Deserialize)]
pub struct Listing {
    #[serde(default)]
    dir: String,
    #[serde(default)]
    recurse: String,
}

/// `GET /userdata?dir=`
pub async fn list(State(engine): Shared, Query(listing): Query<Listing>) -> Response {
    if listing.dir.is_empty() {
        return (StatusCode::BAD_REQUEST, "Directory not provided").into_response();
    }
    let Some(base) = path(&engine, &listing.dir) else {
        return StatusCode::FORBIDDEN.into_response();
    };
    if !base.is_dir() {
        return (StatusCode::NOT_FOUND, "Directory not found").into_response();
    }
    let recurse = listing.recurse.eq_ignore_ascii_case("true");
    let mut names = Vec::new();
    let mut directories = vec![base.clone()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && recurse {
                directories.push(path);
            } else if path.is_file() {
                names.extend(
                    path.strip_prefix(&base)
                        .ok()
                        .map(|name| name.to_string_lossy().into_owned()),
                );
            }
        }
    }
    names.sort();
    Json(names).into_response()
}

/// `GET /userdata/{file}`
pub async fn read(State(engine): Shared, UrlPath(file): UrlPath<String>) -> Response {
    let Some(path) = path(&engine, &file) else {
        return StatusCode::FORBIDDEN.into_response();
    };
    match tokio::fs::read(path).await {
        Ok(bytes) => bytes.into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

/// Whether an existing file may be replaced.
#[derive(Deserialize)]
pub struct Writing {
    #[serde(default)]
    overwrite: String,
}

/// `POST /userdata/{file}`: answers the file's name.
pub async fn write(
    State(engine): Shared,
    UrlPath(file): UrlPath<String>,
    Query(writing): Query<Writing>,
    body: Bytes,
) -> Response {
    let Some(path) = path(&engine, &file) else {
        return StatusCode::FORBIDDEN.into_response();
    };
    if writing.overwrite == "false" && path.exists() {
        return (StatusCode::CONFLICT, "File already exists").into_response();
    }
    match put(&path, &body).await {
        Ok(()) => Json(file).into_response(),
        Err(error) => BadRequest(format!("cannot write '{file}': {error}")).into_response(),
    }
}

/// `DELETE /userdata/{file}`
pub async fn delete(State(engine): Shared, UrlPath(file): UrlPath<String>) -> StatusCode {
    let Some(path) = path(&engine, &file) else {
        return StatusCode::FORBIDDEN;
    };
    match tokio::fs::remove_file(path).await {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::NOT_FOUND,
    }
}

/// A path below the user's directory.
fn path(engine: &Engine, name: &str) -> Option<PathBuf> {
    inside(&engine.host.directories.user.join(USER), Path::new(name))
}

async fn put(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    if let Some(parent) = path.parent() {
        tokio::fs::create_dir_all(parent).await?;
    }
    tokio::fs::write(path, bytes).await
}

async fn load(engine: &Engine) -> Map<String, Value> {
    let Some(path) = path(engine, SETTINGS_FILE) else {
        return Map::new();
    };
    let bytes = tokio::fs::read(path).await.unwrap_or_default();
    serde_json::from_slice(&bytes).unwrap_or_default()
}

async fn save(engine: &Engine, settings: Map<String, Value>) -> Result<(), Response> {
    let text = Value::Object(settings).to_string();
    let Some(path) = path(engine, SETTINGS_FILE) else {
        return Ok(());
    };
    put(&path, text.as_bytes())
        .await
        .map_err(|error| BadRequest(format!("cannot store the settings: {error}")).into_response())
}
