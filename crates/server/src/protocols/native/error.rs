//! Errors in the shape of ComfyUI's `POST /prompt`: `{"error": {type, message, details, extra_info}, "node_errors": {}}`
//! (`comfyui/behaviour.md` §3). ComfyUI answers many faults with a plain-text 500; here each is a 4xx of this shape, so
//! that clients which show `error.message` show something.

use axum::{
    Json,
    extract::rejection::QueryRejection,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    auth,
    http::{BodyError, RequestId},
    service,
};

/// An error on its way to the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct NativeError(Box<Parts>);

#[derive(Debug, Clone, PartialEq)]
struct Parts {
    status: StatusCode,
    error: Value,
    node_errors: Value,
    retry_after_s: Option<u64>,
}

impl NativeError {
    /// An error of a kind, with one line for a person and what it is about.
    pub fn new(status: StatusCode, kind: &str, message: &str, details: impl Into<String>) -> Self {
        let error = json!({ "type": kind, "message": message, "details": details.into(), "extra_info": {} });
        NativeError(Box::new(Parts {
            status,
            error,
            node_errors: json!({}),
            retry_after_s: None,
        }))
    }

    /// The request makes no sense.
    pub fn invalid(kind: &str, message: &str, details: impl Into<String>) -> Self {
        NativeError::new(StatusCode::BAD_REQUEST, kind, message, details)
    }

    fn later(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds.max(1));
        self
    }
}

impl From<service::Error> for NativeError {
    fn from(error: service::Error) -> Self {
        use service::Error;
        let code = error.code();
        let message = error.to_string();
        let plain = |status| NativeError::new(status, code, &message, "");
        match error {
            Error::NotFound { .. } => plain(StatusCode::NOT_FOUND),
            Error::Invalid(_) | Error::InputUnavailable(_) => plain(StatusCode::BAD_REQUEST),
            Error::InvalidGraph(refusal) => NativeError(Box::new(Parts {
                status: StatusCode::BAD_REQUEST,
                error: refusal.error,
                node_errors: refusal.node_errors,
                retry_after_s: None,
            })),
            Error::Duplicate { .. } => plain(StatusCode::CONFLICT),
            Error::TooLarge { .. } => plain(StatusCode::PAYLOAD_TOO_LARGE),
            Error::QueueFull { .. } => plain(StatusCode::TOO_MANY_REQUESTS).later(1),
            Error::Unavailable { retry_after, .. } => {
                plain(StatusCode::SERVICE_UNAVAILABLE).later(retry_after.as_secs())
            }
            Error::Internal(cause) => {
                tracing::error!(error = ?cause, "a call of the native API failed");
                plain(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl From<BodyError> for NativeError {
    fn from(error: BodyError) -> Self {
        let message = error.to_string();
        match error {
            BodyError::TooLarge { .. } => {
                NativeError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", &message, "")
            }
            BodyError::Broken | BodyError::Slow => NativeError::invalid("invalid_request", &message, ""),
            BodyError::Exhausted(exhausted) => service::Error::from(exhausted).into(),
        }
    }
}

impl From<QueryRejection> for NativeError {
    fn from(rejection: QueryRejection) -> Self {
        NativeError::invalid(
            "invalid_request",
            "the query cannot be read",
            rejection.body_text(),
        )
    }
}

impl From<auth::Error> for NativeError {
    fn from(error: auth::Error) -> Self {
        NativeError::new(error.status(), error.code(), &error.to_string(), "")
    }
}

/// An error and the request it answers: what handlers return.
#[derive(Debug)]
pub struct Refused {
    error: NativeError,
    request_id: RequestId,
}

impl Refused {
    /// An error, answered under a request id.
    pub fn new(error: impl Into<NativeError>, request_id: &RequestId) -> Self {
        Refused {
            error: error.into(),
            request_id: request_id.clone(),
        }
    }
}

impl Refused {
    /// Whether a key would help.
    pub fn is_unauthenticated(&self) -> bool {
        self.error.0.status == StatusCode::UNAUTHORIZED
    }
}

impl From<auth::Rejection> for Refused {
    fn from(rejection: auth::Rejection) -> Self {
        Refused::new(rejection.error, &rejection.request_id)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Parts {
            status,
            error,
            node_errors,
            retry_after_s,
        } = *self.error.0;
        let body = json!({ "error": error, "node_errors": node_errors });
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if status.is_server_error() {
            tracing::debug!(request.id = %self.request_id, "a call of the native API was refused");
        }
        response
    }
}
