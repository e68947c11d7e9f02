//! `POST /scc/sp_create_temp_file_upload_sign`: where the SDK puts a file before it names it (`protocols/speedpix.md` §7).

use axum::{
    Json,
    extract::{Request, State},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    call::SpeedpixCall,
    envelope::{OK, envelope},
    error::Failed,
};
use crate::{auth::Scope, service::Error, state::AppState};

#[derive(Debug, Deserialize)]
struct Wanted {
    #[serde(default, rename = "contentType", alias = "content_type")]
    content_type: Option<String>,
    #[serde(default, rename = "originalFilename", alias = "original_filename")]
    original_filename: Option<String>,
    /// The Java SDK's.
    #[serde(default)]
    size: Option<u64>,
}

/// The handler.
///
/// # Errors
/// An envelope with what is wrong; an HTTP error for a signature that is.
pub async fn handler(State(state): State<AppState>, request: Request) -> Result<Json<Value>, Failed> {
    let call = SpeedpixCall::read(&state, request).await?;
    let wanted: Wanted = call.json().await?;
    if call.caller.may_anywhere(Scope::Client).is_err() {
        return Err(call
            .refuse(Error::Invalid(
                "the application may not upload: its key lacks the scope 'client'".into(),
            ))
            .into());
    }
    let content_type = wanted
        .content_type
        .as_deref()
        .unwrap_or("application/octet-stream");
    let name = wanted.original_filename.as_deref().unwrap_or("file");
    let signed = state
        .service
        .sign_upload(&call.caller.tenant, name, content_type, wanted.size)
        .map_err(|e| call.refuse(e))?;
    let data = json!({
        "uploadUrl": format!("{}{}", call.base_url, signed.upload_path),
        "accessUrl": format!("{}{}", call.base_url, signed.access_path),
        "objectKey": signed.object_key,
        "path": signed.object_key,
        "expireTime": signed.expires_at.as_millis(),
        "maxSize": signed.max_bytes,
    });
    Ok(Json(envelope(OK, None, data, &call.caller.request_id)))
}
