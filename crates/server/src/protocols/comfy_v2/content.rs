//! `GET /assets/{id}` and `GET /assets/{id}/content` of what jobs made.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use darkroom_core::output::{Output, OutputBody};
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use super::{
    call::{Id, V2Call},
    error::ApiError,
    found::find,
    ids::{OutputId, job_id},
    outputs::{Shown, TEXT},
    time::time,
};
use crate::{http::Ask, service::jobs::JobRecord, state::AppState};

/// `GET /assets/{id}`.
///
/// # Errors
/// 404, also for one that the caller may not see.
pub async fn describe(
    State(state): State<AppState>,
    call: V2Call,
    Id(id): Id,
) -> Result<Json<Value>, ApiError> {
    let (job, index) = output_of(&state, &call, &id).await?;
    let shown = Shown::new(&state.service, &call, &job, index, &job.outputs[index]);
    Ok(Json(json!({
        "id": shown.id.to_string(),
        "hash": shown.hash,
        "size_bytes": shown.size,
        "content_type": shown.content_type,
        "file_path": shown.name,
        "created_at": time(job.finished_at.unwrap_or(job.created_at)),
        "url": shown.url,
        "url_expires_at": time(shown.url_expires_at),
        "expires_at": time(super::view::expires_at(&job, &call.endpoint)),
        "job_id": job_id(&job),
    })))
}

/// `GET /assets/{id}/content`: whole, or a range of it.
///
/// # Errors
/// 404, also for one that the caller may not see.
pub async fn handler(
    State(state): State<AppState>,
    call: V2Call,
    Id(id): Id,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (job, index) = output_of(&state, &call, &id).await?;
    let Output { body, raw, .. } = &job.outputs[index];
    match body {
        OutputBody::Text { text } => Ok(([(header::CONTENT_TYPE, TEXT)], text.clone()).into_response()),
        OutputBody::File { key, .. } => {
            let named = raw.get("filename").and_then(Value::as_str);
            let ask = Ask {
                method: &method,
                headers: &headers,
                file_name: named.unwrap_or(key.file_name()),
                cache: "private, no-cache",
            };
            state.blobs.send(key, ask).await.ok_or_else(|| {
                ApiError::new(
                    StatusCode::NOT_FOUND,
                    "output_unavailable",
                    "the bytes of this output are gone",
                )
            })
        }
    }
}

/// The output that an id means, as its job and its place there.
async fn output_of(state: &AppState, call: &V2Call, id: &str) -> Result<(JobRecord, usize), ApiError> {
    let unknown = || ApiError::not_found("asset");
    let id = OutputId::parse(id).ok_or_else(unknown)?;
    let job = find(&state.service, call, &id.job.to_string()).await;
    let job = job.map_err(|error| if error.is_not_found() { unknown() } else { error })?;
    match job.id == id.job && id.index < job.outputs.len() {
        true => Ok((job, id.index)),
        false => Err(unknown()),
    }
}
