//! What is no route, and what is no method of one.

use http::{Method, StatusCode, Uri};

use super::error::ApiError;

/// Any other path below `/api/v2`.
pub async fn no_route(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(80).collect();
    let message = format!("there is no route {path} in Comfy API v2");
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// Any other method of a path.
pub async fn no_method(method: Method) -> ApiError {
    let message = format!("this route takes no {method}");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "invalid_request", message)
}
