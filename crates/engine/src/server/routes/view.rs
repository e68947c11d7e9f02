//! `/view`: a file of the instance, as it is or converted.

mod convert;
mod file;

use std::path::Path;

use axum::{
    extract::{Query, State},
    response::{IntoResponse, Response},
};
use darkroom_comfy::wire::Conversion;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;

use super::{super::body::BadRequest, Shared};
use crate::files::{Folder, inside, split_annotation};

/// The query.
#[derive(Deserialize)]
pub struct Wanted {
    filename: Option<String>,
    #[serde(rename = "type")]
    folder: Option<String>,
    subfolder: Option<String>,
    preview: Option<String>,
    channel: Option<String>,
}

/// `GET /view`
pub async fn view(State(engine): Shared, Query(wanted): Query<Wanted>, headers: HeaderMap) -> Response {
    let Some(filename) = &wanted.filename else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let (name, annotated) = split_annotation(filename);
    if name.is_empty() || name.starts_with('/') || name.contains("..") || name.contains('\0') {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let Some(folder) = annotated.or_else(|| Folder::parse(wanted.folder.as_deref().unwrap_or("output")))
    else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let base = engine.host.directories.path(folder);
    let Some(directory) = inside(base, Path::new(wanted.subfolder.as_deref().unwrap_or_default())) else {
        return StatusCode::FORBIDDEN.into_response();
    };
    let Some(name) = Path::new(name).file_name() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let path = directory.join(name);
    if !tokio::fs::metadata(&path).await.is_ok_and(|meta| meta.is_file()) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let disposition = disposition(&name.to_string_lossy());
    let conversion = Conversion::choose(wanted.preview.as_deref(), wanted.channel.as_deref());
    match conversion {
        None => file::serve(&path, disposition, &headers).await,
        Some(conversion) => match convert::convert(path, conversion).await {
            Ok((content_type, bytes)) => {
                let headers = [
                    (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
                    (header::CONTENT_DISPOSITION, disposition),
                ];
                (headers, bytes).into_response()
            }
            Err(error) => BadRequest(error.to_string()).into_response(),
        },
    }
}

/// `filename="..."`; what would end the text or the header early becomes an underscore.
fn disposition(name: &str) -> HeaderValue {
    let name: String = name
        .chars()
        .map(|c| {
            if c == '"' || c == '\\' || c.is_control() {
                '_'
            } else {
                c
            }
        })
        .collect();
    HeaderValue::from_bytes(format!("filename=\"{name}\"").as_bytes())
        .unwrap_or_else(|_| HeaderValue::from_static("filename=\"file\""))
}
