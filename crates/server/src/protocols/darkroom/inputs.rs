//! Files that callers bring for graphs of an endpoint: put, listed, removed. They belong to the caller's tenant.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
};
use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use serde_json::{Value, json};

use super::{call::Call, error::ApiError, page::PageParams, views};
use crate::{auth::Scope, state::AppState};

/// `PUT /endpoints/{endpoint}/inputs/{name}`: the body is a file that graphs of this endpoint can name.
///
/// # Errors
/// For a bad name, or a body that is too large.
pub async fn upload(
    State(state): State<AppState>,
    call: Call,
    Path((endpoint, name)): Path<(String, String)>,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let endpoint = call.endpoint(&endpoint)?;
    call.needs(Scope::Client, &endpoint)?;
    state.service.endpoint(&endpoint).map_err(|e| call.fail(e))?;
    // It goes to the blob store as it comes: memory does not grow with it.
    let body = body.into_data_stream().map_err(std::io::Error::other).boxed();
    state
        .service
        .upload(
            &call.caller.tenant,
            &endpoint,
            &name,
            body,
            super::MAX_BODY_BYTES as u64,
        )
        .await
        .map_err(|e| call.fail(e))?;
    Ok((StatusCode::CREATED, Json(json!({ "name": name }))))
}

/// `GET /endpoints/{endpoint}/inputs`: by name; `after` is the last name of the page before. An endpoint that is not
/// configured any more still has its uploads.
///
/// # Errors
/// Without a key that may list, for names that are none.
pub async fn list(
    State(state): State<AppState>,
    call: Call,
    Path(endpoint): Path<String>,
    Query(page): Query<PageParams>,
) -> Result<Json<Value>, ApiError> {
    let endpoint = call.endpoint(&endpoint)?;
    call.needs_list(&endpoint)?;
    let uploads = state
        .service
        .uploads(&call.caller.tenant, &endpoint, page.after(), page.limit())
        .await
        .map_err(|e| call.fail(e))?;
    let next = page.next(&uploads, |upload| upload.name.clone());
    let uploads: Vec<Value> = uploads
        .iter()
        .map(|u| {
            json!({
                "name": u.name,
                "size": u.size,
                "content_type": u.content_type,
                "created_at": views::time(Some(u.created_at)),
            })
        })
        .collect();
    Ok(Json(json!({ "inputs": uploads, "next": next })))
}

/// `DELETE /endpoints/{endpoint}/inputs/{name}`: graphs cannot name it any more. Jobs that were accepted with it keep it
/// until they are swept.
///
/// # Errors
/// 404, also for another tenant's. Callers without a key share one tenant, so they need the right to list.
pub async fn remove(
    State(state): State<AppState>,
    call: Call,
    Path((endpoint, name)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let endpoint = call.endpoint(&endpoint)?;
    call.needs_list(&endpoint)?;
    state
        .service
        .remove_upload(&call.caller.tenant, &endpoint, &name)
        .await
        .map_err(|e| call.fail(e))?;
    Ok(StatusCode::NO_CONTENT)
}
