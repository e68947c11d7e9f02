//! Assets that come in pieces: begun, gone on with where they ended, completed.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use futures::{StreamExt, TryStreamExt};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    assets::{Terms, answer},
    call::Call,
    error::ApiError,
    views::time,
};
use crate::{
    auth::Scope,
    http::drain_body,
    service::{
        Error,
        assets::{
            AssetError, AssetId,
            resumed::{AssetUpload, ResumeError},
        },
    },
    state::{AppState, BaseUrl},
};

/// `POST /assets/uploads`: 201 with the id of an upload.
///
/// # Errors
/// For a path or a hash that is none.
pub async fn begin(
    State(state): State<AppState>,
    call: Call,
    body: Result<Json<Terms>, JsonRejection>,
) -> Result<Response, ApiError> {
    call.needs_anywhere(Scope::Client)?;
    let Json(terms) = body.map_err(|e| call.fail(Error::Invalid(e.body_text())))?;
    let terms = terms.read(&call)?;
    match state.service.begin_resumed(&call.caller.tenant, &terms).await {
        Ok(upload) => Ok((StatusCode::CREATED, Json(view(&upload))).into_response()),
        Err(AssetError::Service(error)) => Err(call.fail(error)),
        Err(error) => Err(call.fail(Error::Invalid(error.to_string()))),
    }
}

/// `GET /assets/uploads/{upload}`: how far it is.
///
/// # Errors
/// 404, also for another tenant's.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = own(&call, &id)?;
    match state.service.resumed(&call.caller.tenant, id).await {
        Ok(upload) => Ok(Json(view(&upload)).into_response()),
        Err(error) => refused(&call, id, error),
    }
}

/// Where a body goes on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Offset {
    offset: u64,
}

/// `PUT /assets/uploads/{upload}?offset=…`: the body goes on there. What came of one that breaks off stays.
///
/// # Errors
/// 409 with how far it is, where it goes on elsewhere.
pub async fn resume(
    State(state): State<AppState>,
    call: Call,
    Path(id): Path<String>,
    Query(Offset { offset }): Query<Offset>,
    body: Body,
) -> Result<Response, ApiError> {
    let id = own(&call, &id)?;
    // It goes to the blob store as it comes: memory does not grow with it.
    let mut stream = body.into_data_stream().map_err(std::io::Error::other).boxed();
    let resumed = state
        .service
        .resume_upload(&call.caller.tenant, id, offset, (&mut stream).boxed())
        .await;
    match resumed {
        Ok(upload) => Ok(Json(view(&upload)).into_response()),
        Err(error) => {
            // A client that is still sending would see its connection reset instead of our answer.
            drain_body(Body::from_stream(stream)).await;
            refused(&call, id, error)
        }
    }
}

/// `POST /assets/uploads/{upload}/complete`: the asset, as `POST /assets` answers.
///
/// # Errors
/// 409 for other bytes than the hash said; the upload stays then.
pub async fn complete(
    State(state): State<AppState>,
    call: Call,
    BaseUrl(base): BaseUrl,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = own(&call, &id)?;
    match state.service.complete_resumed(&call.caller.tenant, id).await {
        Ok(created) => answer(&call, &state.service, &base, Ok(created)),
        Err(ResumeError::Asset(error)) => answer(&call, &state.service, &base, Err(error)),
        Err(error) => refused(&call, id, error),
    }
}

/// `DELETE /assets/uploads/{upload}`: gives it up.
///
/// # Errors
/// As [`show`].
pub async fn forget(
    State(state): State<AppState>,
    call: Call,
    Path(id): Path<String>,
) -> Result<Response, ApiError> {
    let id = own(&call, &id)?;
    match state.service.forget_resumed(&call.caller.tenant, id).await {
        Ok(()) => Ok(StatusCode::NO_CONTENT.into_response()),
        Err(error) => refused(&call, id, error),
    }
}

fn own(call: &Call, id: &str) -> Result<AssetId, ApiError> {
    call.needs_anywhere(Scope::Client)?;
    id.parse().map_err(|_| call.fail(Error::not_found("upload", id)))
}

fn refused(call: &Call, id: AssetId, error: ResumeError) -> Result<Response, ApiError> {
    let message = error.to_string();
    match error {
        ResumeError::NoUpload => Err(call.fail(Error::not_found("upload", id))),
        ResumeError::Asset(AssetError::Service(error)) => Err(call.fail(error)),
        ResumeError::Asset(error) => Err(call.fail(Error::Invalid(error.to_string()))),
        ResumeError::Elsewhere { received, .. } => {
            let body = json!({ "error": {
                "code": "wrong_offset",
                "message": message,
                "request_id": call.caller.request_id.as_str(),
                "details": { "received": received },
            }});
            Ok((StatusCode::CONFLICT, Json(body)).into_response())
        }
    }
}

fn view(upload: &AssetUpload) -> Value {
    json!({
        "id": upload.id,
        "received": upload.received,
        "expires_at": time(Some(upload.expires_at)),
    })
}
