//! `PUT` and `GET /uploads/{name}?…`: files by signed address. Whoever has the address may use it; no other credential is
//! asked for. `POST /uploads` makes one.

use axum::{
    Json,
    body::Body,
    extract::{Path, Request, State, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use darkroom_core::BlobKey;
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, StatusCode, Uri, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{call::Call, error::ApiError, views::time};
use crate::{
    auth::Scope,
    http::{Ask, RequestId, drain_body, error_response},
    service::{Error, signed_uploads::UploadError},
    state::{AppState, BaseUrl},
};

/// The body of a wish to upload.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    filename: String,
    content_type: String,
    /// How long it will be, in bytes.
    #[serde(default)]
    size: Option<u64>,
}

/// `POST /uploads`: 201 with the address to put the file to, and the asset that calls of workflows name then.
///
/// # Errors
/// For names and types that are none, and files that are too large.
pub async fn sign(
    State(state): State<AppState>,
    call: Call,
    BaseUrl(base): BaseUrl,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    call.needs_anywhere(Scope::Client)?;
    let Json(wanted) = body.map_err(|e| call.fail(Error::Invalid(e.body_text())))?;
    let signed = state
        .service
        .sign_upload(
            &call.caller.tenant,
            &wanted.filename,
            &wanted.content_type,
            wanted.size,
        )
        .map_err(|e| call.fail(e))?;
    let view = json!({
        "asset": signed.object_key,
        "upload_url": format!("{base}{}", signed.upload_path),
        "url": format!("{base}{}", signed.access_path),
        "content_type": wanted.content_type,
        "max_bytes": signed.max_bytes,
        "expires_at": time(Some(signed.expires_at)),
    });
    Ok((StatusCode::CREATED, Json(view)))
}

/// `PUT /uploads/{name}`: 200 once the bytes are stored.
pub async fn put(
    State(state): State<AppState>,
    Path(name): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    request_id: RequestId,
    body: Body,
) -> Response {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let announced = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    let Ok(key) = name.parse::<BlobKey>() else {
        return not_found(&request_id);
    };
    // It goes to the blob store as it comes: memory does not grow with it.
    let mut stream = body.into_data_stream().map_err(std::io::Error::other).boxed();
    let query = uri.query().unwrap_or_default();
    let received = state
        .service
        .receive_signed(&key, query, content_type, announced, (&mut stream).boxed())
        .await;
    match received {
        Ok(()) => (StatusCode::OK, Json(json!({ "name": key.file_name() }))).into_response(),
        Err(error) => {
            // A client that is still sending would see its connection reset instead of our answer.
            drain_body(Body::from_stream(stream)).await;
            refused(error, &request_id)
        }
    }
}

/// `GET /uploads/{name}`: the file, to who was given its address.
pub async fn get(
    State(state): State<AppState>,
    Path(name): Path<String>,
    request_id: RequestId,
    request: Request,
) -> Response {
    let Ok(key) = name.parse::<BlobKey>() else {
        return not_found(&request_id);
    };
    match state
        .service
        .signed_upload(&key, request.uri().query().unwrap_or_default())
        .await
    {
        Ok(Some(blob)) => {
            let ask = Ask {
                method: request.method(),
                headers: request.headers(),
                file_name: key.file_name(),
                cache: "private, max-age=3600",
            };
            state
                .blobs
                .send(&blob, ask)
                .await
                .unwrap_or_else(|| not_found(&request_id))
        }
        Ok(None) => not_found(&request_id),
        Err(error) => refused(error, &request_id),
    }
}

fn not_found(request_id: &RequestId) -> Response {
    error_response(
        StatusCode::NOT_FOUND,
        "not_found",
        "there is no such file",
        request_id,
    )
}

fn refused(error: UploadError, request_id: &RequestId) -> Response {
    let (status, code) = match &error {
        UploadError::Link(_) => (StatusCode::FORBIDDEN, "bad_address"),
        UploadError::Used => (StatusCode::CONFLICT, "address_used"),
        UploadError::TooLarge(_) => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
        UploadError::Service(_) => {
            let UploadError::Service(error) = error else {
                unreachable!("matched just now")
            };
            return ApiError::service(error, request_id).into_response();
        }
    };
    error_response(status, code, &error.to_string(), request_id)
}
