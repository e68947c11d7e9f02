//! Errors as `{"error": {code, message, details}}` with the protocol's codes (`protocols/comfy-v2.md` §7).

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::references::missing_asset;
use crate::{auth, http::BodyError, service};

/// When a submit that found the queue full may come again, in seconds: the SDKs try for a minute (§9).
const QUEUE_AGAIN_S: u64 = 2;

/// An error on its way to the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError(Box<Parts>);

#[derive(Debug, Clone, PartialEq)]
struct Parts {
    status: StatusCode,
    code: &'static str,
    message: String,
    details: Value,
    retry_after_s: Option<u64>,
}

impl ApiError {
    /// An error of a code.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError(Box::new(Parts {
            status,
            code,
            message: message.into(),
            details: Value::Null,
            retry_after_s: None,
        }))
    }

    /// The request cannot be read.
    pub fn invalid(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// The request can be read and makes no sense.
    pub fn unprocessable(code: &'static str, message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// Nobody may know whether it is somebody else's.
    pub fn not_found(what: &str) -> Self {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "not_found",
            format!("there is no such {what}"),
        )
    }

    /// With more for programs.
    pub fn with_details(mut self, details: Value) -> Self {
        self.0.details = details;
        self
    }

    /// To be tried again after so many seconds.
    pub fn later(mut self, seconds: u64) -> Self {
        self.0.retry_after_s = Some(seconds.max(1));
        self
    }

    /// What a submit was refused for. What passes is 429, from which the SDKs recover with the same key.
    pub fn of_submit(error: service::Error) -> Self {
        use service::Error;
        let message = error.to_string();
        match error {
            Error::InputUnavailable(why) if !why.missing_assets.is_empty() => {
                missing_asset(&why.missing_assets)
            }
            Error::Invalid(_) | Error::InputUnavailable(_) => {
                ApiError::unprocessable("invalid_workflow", message)
            }
            Error::Duplicate { .. } => ApiError::unprocessable(
                "idempotency_key_reuse",
                "the Idempotency-Key was used for another submit; each is good once",
            ),
            Error::Unavailable { retry_after, .. } => {
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message)
                    .later(retry_after.as_secs())
            }
            other => other.into(),
        }
    }
}

impl From<service::Error> for ApiError {
    fn from(error: service::Error) -> Self {
        use service::Error;
        let message = error.to_string();
        match error {
            Error::NotFound { what, .. } => ApiError::not_found(what),
            Error::Invalid(_) | Error::InputUnavailable(_) => {
                ApiError::unprocessable("invalid_request", message)
            }
            Error::InvalidGraph(refusal) => ApiError::unprocessable("invalid_workflow", message)
                .with_details(json!({ "node_errors": refusal.node_errors, "error": refusal.error })),
            Error::Duplicate { .. } => ApiError::unprocessable("idempotency_key_reuse", message),
            Error::TooLarge { .. } => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
            }
            Error::QueueFull { .. } => {
                ApiError::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).later(QUEUE_AGAIN_S)
            }
            Error::Unavailable { retry_after, .. } => {
                ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_unreachable", message)
                    .later(retry_after.as_secs())
            }
            Error::Internal(cause) => {
                tracing::error!(error = ?cause, "a call of Comfy API v2 failed");
                ApiError::new(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "upstream_error",
                    "the server failed to answer",
                )
            }
        }
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let message = error.to_string();
        match error {
            BodyError::TooLarge { .. } => {
                ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large", message)
            }
            BodyError::Broken | BodyError::Slow => ApiError::invalid(message),
            BodyError::Exhausted(exhausted) => ApiError::of_submit(exhausted.into()),
        }
    }
}

impl From<auth::Error> for ApiError {
    fn from(error: auth::Error) -> Self {
        let code = match (&error, error.status()) {
            (auth::Error::ForeignHost { .. } | auth::Error::ForeignOrigin { .. }, _) => "forbidden_origin",
            (_, StatusCode::UNAUTHORIZED) => "unauthorized",
            _ => "forbidden",
        };
        ApiError::new(error.status(), code, error.to_string())
    }
}

impl From<auth::Rejection> for ApiError {
    fn from(rejection: auth::Rejection) -> Self {
        rejection.error.into()
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Parts {
            status,
            code,
            message,
            details,
            retry_after_s,
        } = *self.0;
        let body = json!({ "error": { "code": code, "message": message, "details": details } });
        let mut response = (status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_passes_is_429_for_a_submit_and_503_for_a_question() {
        let busy = || service::Error::Unavailable {
            reason: "busy".into(),
            retry_after: Duration::from_millis(200),
        };
        let submit = ApiError::of_submit(busy()).into_response();
        assert_eq!(submit.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(submit.headers()[header::RETRY_AFTER], "1");
        let question = ApiError::from(busy()).into_response();
        assert_eq!(question.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(question.headers()[header::RETRY_AFTER], "1");
    }

    #[test]
    fn what_broke_is_not_told() {
        let broken = service::Error::Internal(anyhow::anyhow!("the password is hunter2"));
        let error = ApiError::from(broken);
        assert_eq!((error.0.status.as_u16(), error.0.code), (500, "upstream_error"));
        assert!(!error.0.message.contains("hunter2"));
    }
}
