//! Errors of our own API: `{"error": {"code", "message", "request_id", "details"?}}`.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    auth::{self, auth_error_response},
    http::RequestId,
    service,
};

/// An error and the request it answers.
#[derive(Debug)]
pub struct ApiError {
    kind: Kind,
    request_id: RequestId,
}

#[derive(Debug)]
enum Kind {
    Service(service::Error),
    Access(auth::Error),
}

impl ApiError {
    /// From an error of the service.
    pub fn service(error: service::Error, request_id: &RequestId) -> ApiError {
        ApiError {
            kind: Kind::Service(error),
            request_id: request_id.clone(),
        }
    }

    /// From a refusal of access.
    pub fn access(error: auth::Error, request_id: &RequestId) -> ApiError {
        ApiError {
            kind: Kind::Access(error),
            request_id: request_id.clone(),
        }
    }
}

impl From<auth::Rejection> for ApiError {
    fn from(rejection: auth::Rejection) -> Self {
        ApiError {
            kind: Kind::Access(rejection.error),
            request_id: rejection.request_id,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        match self.kind {
            Kind::Access(error) => auth_error_response(&error, &self.request_id),
            Kind::Service(error) => of_service(error, &self.request_id),
        }
    }
}

fn of_service(error: service::Error, request_id: &RequestId) -> Response {
    use service::Error;
    let code = error.code();
    let message = error.to_string();
    let mut retry_after = None;
    let mut details = None;
    let status = match error {
        Error::NotFound { .. } => StatusCode::NOT_FOUND,
        Error::Invalid(_) | Error::InputUnavailable(_) => StatusCode::BAD_REQUEST,
        Error::InvalidGraph(refusal) => {
            details = Some(json!({ "error": refusal.error, "node_errors": refusal.node_errors }));
            StatusCode::BAD_REQUEST
        }
        Error::Duplicate { job, .. } => {
            details = Some(json!({ "job": job }));
            StatusCode::CONFLICT
        }
        Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::QueueFull { .. } => {
            retry_after = Some(1);
            StatusCode::TOO_MANY_REQUESTS
        }
        Error::Unavailable {
            retry_after: after, ..
        } => {
            retry_after = Some(after.as_secs().max(1));
            StatusCode::SERVICE_UNAVAILABLE
        }
        Error::Internal(cause) => {
            tracing::error!(error = ?cause, request.id = %request_id, "a call failed");
            StatusCode::INTERNAL_SERVER_ERROR
        }
    };
    let mut body =
        json!({ "error": { "code": code, "message": message, "request_id": request_id.as_str() } });
    if let Some(details) = details {
        body["error"]["details"] = Value::clone(&details);
    }
    let mut response = (status, axum::Json(body)).into_response();
    if let Some(seconds) = retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}
