//! Request bodies: their limit, and JSON whatever the content type says.

use std::sync::Arc;

use axum::{
    extract::{FromRequest, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use darkroom_comfy::graph::validate::Rejected;
use http::{StatusCode, header};
use serde_json::{Value as Json, json};

use super::Engine;

/// A JSON body of any content type; ComfyUI does not look at it either.
pub struct JsonBody(pub Json);

/// A refused request in ComfyUI's error shape.
pub struct BadRequest(pub String);

/// Refuses a body above the limit by its declared length, in ComfyUI's words; an undeclared length is caught while reading.
pub async fn limit(State(engine): State<Arc<Engine>>, request: Request, next: Next) -> Response {
    let declared = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > engine.max_upload_bytes as u64) {
        return too_large(engine.max_upload_bytes);
    }
    next.run(request).await
}

/// The answer to a body above the limit.
pub fn too_large(limit: usize) -> Response {
    (
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("Maximum request body size {limit} exceeded."),
    )
        .into_response()
}

impl JsonBody {
    /// Whether everything is to be forgotten (`clear`).
    pub fn clears(&self) -> bool {
        self.0.get("clear").and_then(Json::as_bool) == Some(true)
    }

    /// The ids to be forgotten (`delete`); what is no text is none.
    pub fn deletes(&self) -> impl Iterator<Item = &str> {
        let ids = self.0.get("delete").and_then(Json::as_array);
        ids.into_iter().flatten().filter_map(Json::as_str)
    }
}

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(IntoResponse::into_response)?;
        match serde_json::from_slice(&bytes) {
            Ok(json) => Ok(JsonBody(json)),
            Err(error) => Err(BadRequest(format!("the body is not JSON: {error}")).into_response()),
        }
    }
}

impl IntoResponse for BadRequest {
    fn into_response(self) -> Response {
        let error = json!({
            "type": "invalid_request", "message": "The request is not valid", "details": self.0, "extra_info": {},
        });
        (
            StatusCode::BAD_REQUEST,
            axum::Json(json!({"error": error, "node_errors": {}})),
        )
            .into_response()
    }
}

/// A refused graph with status 400.
pub fn rejected(rejected: &Rejected) -> Response {
    (StatusCode::BAD_REQUEST, axum::Json(rejected)).into_response()
}
