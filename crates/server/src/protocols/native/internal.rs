//! `/internal/*`: what only ComfyUI's own page asks for. Paths of the machine are not told.

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Value, json};

use super::{
    call::{NativeCall, param},
    error::Refused,
};
use crate::{service::folders::Folder, state::AppState};

/// Files that a list tells.
const MOST_FILES: u32 = 2_000;

/// `GET /internal/logs`: instances' logs are their operator's (`darkroom logs`).
pub async fn logs(_: NativeCall) -> Json<&'static str> {
    Json("")
}

/// `GET /internal/logs/raw`
pub async fn raw_logs(_: NativeCall) -> Json<Value> {
    Json(json!({ "entries": [], "size": { "cols": 80, "rows": 24 } }))
}

/// `PATCH /internal/logs/subscribe`: there is nothing to come.
pub async fn subscribe(_: NativeCall) -> StatusCode {
    StatusCode::OK
}

/// `GET /internal/folder_paths`
pub async fn folder_paths(_: NativeCall) -> Json<Value> {
    Json(json!({}))
}

/// `GET /internal/files/{folder}`: the caller's uploads, or what its newest jobs made.
///
/// # Errors
/// When the store fails.
pub async fn files(
    State(state): State<AppState>,
    call: NativeCall,
    Path(params): Path<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    call.may_list()?;
    let (service, endpoint) = (&state.service, &call.endpoint.name);
    let names = match Folder::parse(param(&params, "folder")) {
        Some(Folder::Input) => {
            let uploads = service
                .uploads(&call.caller.tenant, endpoint, None, MOST_FILES)
                .await;
            uploads.map(|uploads| {
                uploads
                    .into_iter()
                    .map(|u| format!("{} [input]", u.name))
                    .collect()
            })
        }
        Some(Folder::Output) => {
            let made = service
                .newest_outputs(call.caller.visible_tenant(), endpoint)
                .await;
            made.map(|names| names.into_iter().map(|name| format!("{name} [output]")).collect())
        }
        Some(Folder::Temp) => Ok(Vec::<String>::new()),
        None => return Ok((StatusCode::BAD_REQUEST, "Invalid directory type").into_response()),
    };
    names
        .map(|names| Json(names).into_response())
        .map_err(|e| call.refuse(e))
}
