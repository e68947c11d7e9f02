//! The error shape of our own API: `{"error":{"code","message","request_id"}}`.

use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::json;

use super::RequestId;

/// An error answer of our own API. `code` is stable, `message` is for people.
pub fn error_response(status: StatusCode, code: &str, message: &str, request_id: &RequestId) -> Response {
    let body = json!({ "error": { "code": code, "message": message, "request_id": request_id.as_str() } });
    (status, axum::Json(body)).into_response()
}
