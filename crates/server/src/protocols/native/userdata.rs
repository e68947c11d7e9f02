//! `/userdata`, `/v2/userdata`: the page's files of a user (workflows, templates, style), kept as blobs.

use std::collections::BTreeSet;

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    call::{NativeCall, param},
    error::Refused,
    settings::{nobody, plain},
};
use crate::{
    http::Ask,
    service::{
        folders::inside,
        userdata::{Kept, PageUser, UserFile},
    },
    state::AppState,
};

/// Which directory to list, and how.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Listing {
    dir: String,
    recurse: String,
    full_info: String,
    split: String,
}

/// Whether an existing file may be replaced, and what to answer.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Writing {
    overwrite: String,
    full_info: String,
}

/// Which directory to walk.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Walk {
    path: String,
}

type Params = Path<Vec<(String, String)>>;

/// The style of the page: the one file that a browser may use as what it is.
const STYLE: &str = "user.css";
/// Groups of nodes that the user keeps; the page asks for them too.
const TEMPLATES: &str = "comfy.templates.json";

/// `GET /userdata?dir=`
///
/// # Errors
/// When the store fails.
pub async fn list(State(state): State<AppState>, call: NativeCall<Listing>) -> Result<Response, Refused> {
    let query = &call.query;
    if query.dir.is_empty() {
        return Ok(plain(StatusCode::BAD_REQUEST, "Directory not provided"));
    }
    let Some(directory) = inside("user", &query.dir) else {
        return Ok(plain(StatusCode::FORBIDDEN, "Invalid directory"));
    };
    let files = match call.page_user() {
        Some(user) => below(&state, &call, &user, &directory).await?,
        None => Vec::new(),
    };
    // A directory is there as long as something is in it. The page (nobody else asks for all about the files) would
    // complain of one that is missing, so for it there is an empty one.
    if files.is_empty() && !yes(&query.full_info) {
        return Ok(plain(StatusCode::NOT_FOUND, "Directory not found"));
    }
    let recurse = yes(&query.recurse);
    let listed = files
        .iter()
        .map(|file| (file, relative(&file.path, &directory)))
        .filter(|(_, path)| recurse || !path.contains('/'));
    let listed: Vec<Value> = listed
        .map(|(file, path)| {
            if yes(&query.full_info) {
                info(file, path)
            } else if yes(&query.split) {
                let parts = std::iter::once(path).chain(path.split('/'));
                json!(parts.collect::<Vec<_>>())
            } else {
                json!(path)
            }
        })
        .collect();
    Ok(Json(listed).into_response())
}

/// `GET /v2/userdata?path=`: files and directories below a directory, directories first.
///
/// # Errors
/// When the store fails.
pub async fn tree(State(state): State<AppState>, call: NativeCall<Walk>) -> Result<Response, Refused> {
    let Some(directory) = inside("user", &call.query.path) else {
        return Ok(plain(StatusCode::BAD_REQUEST, "Invalid path requested"));
    };
    let files = match call.page_user() {
        Some(user) => below(&state, &call, &user, &directory).await?,
        None => Vec::new(),
    };
    if files.is_empty() && !directory.is_empty() {
        return Ok(plain(StatusCode::NOT_FOUND, "Requested path not found"));
    }
    let name = |path: &str| path.rsplit('/').next().unwrap_or(path).to_owned();
    let mut directories = BTreeSet::new();
    for file in &files {
        let within = relative(&file.path, &directory);
        for (slash, _) in within.match_indices('/') {
            let prefix = file.path.len() - within.len();
            directories.insert(&file.path[..prefix + slash]);
        }
    }
    let mut entries: Vec<Value> = directories
        .into_iter()
        .map(|path| json!({ "name": name(path), "path": path, "type": "directory" }))
        .collect();
    entries.extend(files.iter().map(|file| {
        let seconds = file.modified.as_micros() as f64 / 1e6;
        json!({
            "name": name(&file.path), "path": file.path, "type": "file", "size": file.size, "modified": seconds,
        })
    }));
    Ok(Json(entries).into_response())
}

/// `GET /userdata/{file}`: to be saved, not to be shown; but for the page's style.
///
/// # Errors
/// When the store fails.
pub async fn read(
    State(state): State<AppState>,
    call: NativeCall,
    Path(params): Params,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refused> {
    let Some(path) = path(&params, "file") else {
        return Ok(StatusCode::FORBIDDEN.into_response());
    };
    let found = match call.page_user() {
        Some(user) => state.service.user_file(&user, &path).await,
        None => Ok(None),
    };
    let Some(found) = found.map_err(|e| call.refuse(e))? else {
        // A page without a style of its own asks for it all the same.
        return Ok(match path.as_str() {
            STYLE => ([(header::CONTENT_TYPE, "text/css")], "").into_response(),
            TEMPLATES => Json(json!([])).into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        });
    };
    let ask = Ask {
        method: &method,
        headers: &headers,
        file_name: &found.name,
        cache: "private, no-cache",
    };
    let Some(mut response) = state.blobs.send(&found.key, ask).await else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let (kind, media_type) = match path.as_str() {
        STYLE => ("inline", Some("text/css")),
        _ => ("attachment", None),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::from_static(kind));
    if let Some(media_type) = media_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    }
    Ok(response)
}

/// `POST /userdata/{file}`: the body is the file. Answers its path, or all about it.
///
/// # Errors
/// For callers without a key, what is too large, and when a store fails.
pub async fn write(
    State(state): State<AppState>,
    call: NativeCall<Writing>,
    Path(params): Params,
    body: Body,
) -> Result<Response, Refused> {
    let Some(path) = path(&params, "file") else {
        return Ok(StatusCode::FORBIDDEN.into_response());
    };
    let user = call.page_user().ok_or_else(|| call.refuse(nobody()))?;
    let bytes = body.into_data_stream().map_err(std::io::Error::other).boxed();
    let written = state
        .service
        .write_user_file(&user, &path, bytes, call.query.overwrite != "false")
        .await;
    written
        .map(|kept| kept_answer(kept, &call.query))
        .map_err(|e| call.refuse(e))
}

/// `POST /userdata/{file}/move/{dest}`
///
/// # Errors
/// For callers without a key, and when the store fails.
pub async fn rename(
    State(state): State<AppState>,
    call: NativeCall<Writing>,
    Path(params): Params,
) -> Result<Response, Refused> {
    let (Some(from), Some(to)) = (path(&params, "file"), path(&params, "dest")) else {
        return Ok(StatusCode::FORBIDDEN.into_response());
    };
    let user = call.page_user().ok_or_else(|| call.refuse(nobody()))?;
    let moved = state
        .service
        .move_user_file(&user, &from, &to, call.query.overwrite != "false")
        .await;
    moved
        .map(|kept| kept_answer(kept, &call.query))
        .map_err(|e| call.refuse(e))
}

/// `DELETE /userdata/{file}`
///
/// # Errors
/// For callers without a key, and when the store fails.
pub async fn remove(
    State(state): State<AppState>,
    call: NativeCall,
    Path(params): Params,
) -> Result<StatusCode, Refused> {
    let Some(path) = path(&params, "file") else {
        return Ok(StatusCode::FORBIDDEN);
    };
    let user = call.page_user().ok_or_else(|| call.refuse(nobody()))?;
    match state.service.remove_user_file(&user, &path).await {
        Ok(true) => Ok(StatusCode::NO_CONTENT),
        Ok(false) => Ok(StatusCode::NOT_FOUND),
        Err(error) => Err(call.refuse(error)),
    }
}

async fn below<Q>(
    state: &AppState,
    call: &NativeCall<Q>,
    user: &PageUser,
    directory: &str,
) -> Result<Vec<UserFile>, Refused> {
    let files = state.service.user_files(user, directory).await;
    files.map_err(|e| call.refuse(e))
}

fn kept_answer(kept: Kept, asked: &Writing) -> Response {
    match kept {
        Kept::Taken => plain(StatusCode::CONFLICT, "File already exists"),
        Kept::Done(file) if yes(&asked.full_info) => Json(info(&file, &file.path)).into_response(),
        Kept::Done(file) => Json(file.path).into_response(),
    }
}

fn info(file: &UserFile, path: &str) -> Value {
    let millis = file.modified.as_micros() / 1000;
    json!({ "path": path, "size": file.size, "modified": millis, "created": millis })
}

/// A path of the URL, below the user's root; not the root itself.
fn path(params: &[(String, String)], name: &str) -> Option<String> {
    inside("user", param(params, name)).filter(|path| !path.is_empty())
}

fn relative<'a>(path: &'a str, directory: &str) -> &'a str {
    path.strip_prefix(directory)
        .unwrap_or(path)
        .trim_start_matches('/')
}

fn yes(text: &str) -> bool {
    text.eq_ignore_ascii_case("true")
}
