//! Errors of these protocols: a status that the SDKs act on, and `{"error": …}` for whoever looks with curl
//! (`protocols/async-endpoints.md` §2.2: the SDKs never show the body).

use axum::{
    Json,
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
pub struct AsyncError {
    status: StatusCode,
    code: &'static str,
    message: String,
    retry_after_s: Option<u64>,
    allow: Option<&'static str>,
    node_errors: Option<Box<Value>>,
}

impl AsyncError {
    /// An error of a kind.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        AsyncError {
            status,
            code,
            message: message.into(),
            retry_after_s: None,
            allow: None,
            node_errors: None,
        }
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        AsyncError::new(StatusCode::BAD_REQUEST, "invalid_request", message)
    }

    /// There is no such path below an endpoint.
    pub fn no_such_path() -> Self {
        AsyncError::new(
            StatusCode::NOT_FOUND,
            "not_found",
            "there is no such path: an endpoint has run, runsync, status, stream, cancel, retry, purge-queue, health \
             and requests",
        )
    }

    /// The path does not take this method.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        AsyncError {
            allow: Some(allow),
            ..AsyncError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                format!("method not allowed: use {allow}"),
            )
        }
    }

    fn later(mut self, seconds: u64) -> Self {
        self.retry_after_s = Some(seconds.max(1));
        self
    }
}

impl From<service::Error> for AsyncError {
    fn from(error: service::Error) -> Self {
        use service::Error;
        let (code, message) = (error.code(), error.to_string());
        let plain = |status| AsyncError::new(status, code, message.clone());
        match error {
            Error::NotFound { .. } => plain(StatusCode::NOT_FOUND),
            Error::Invalid(_) | Error::InputUnavailable(_) => plain(StatusCode::BAD_REQUEST),
            Error::InvalidGraph(refusal) => AsyncError {
                node_errors: Some(Box::new(refusal.node_errors)),
                ..plain(StatusCode::BAD_REQUEST)
            },
            Error::Duplicate { .. } => plain(StatusCode::CONFLICT),
            Error::TooLarge { .. } => plain(StatusCode::PAYLOAD_TOO_LARGE),
            Error::QueueFull { .. } => plain(StatusCode::TOO_MANY_REQUESTS).later(1),
            Error::Unavailable { retry_after, .. } => {
                plain(StatusCode::SERVICE_UNAVAILABLE).later(retry_after.as_secs())
            }
            Error::Internal(cause) => {
                tracing::error!(error = ?cause, "a call of an asynchronous endpoint failed");
                plain(StatusCode::INTERNAL_SERVER_ERROR)
            }
        }
    }
}

impl From<BodyError> for AsyncError {
    fn from(error: BodyError) -> Self {
        let message = error.to_string();
        match error {
            BodyError::TooLarge { .. } => {
                AsyncError::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            }
            BodyError::Broken => AsyncError::invalid(message),
            BodyError::Slow => AsyncError::new(StatusCode::REQUEST_TIMEOUT, "slow", message),
            BodyError::Exhausted(exhausted) => service::Error::from(exhausted).into(),
        }
    }
}

impl From<auth::Error> for AsyncError {
    fn from(error: auth::Error) -> Self {
        AsyncError::new(error.status(), error.code(), error.to_string())
    }
}

/// An error and the request it answers: what handlers return.
#[derive(Debug)]
pub struct Refused(AsyncError, RequestId);

impl Refused {
    /// An error, answered under a request id.
    pub fn new(error: impl Into<AsyncError>, request_id: &RequestId) -> Self {
        Refused(error.into(), request_id.clone())
    }
}

impl From<auth::Rejection> for Refused {
    fn from(rejection: auth::Rejection) -> Self {
        Refused::new(rejection.error, &rejection.request_id)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Refused(error, request_id) = self;
        let mut body =
            json!({ "error": error.message, "code": error.code, "requestId": request_id.as_str() });
        if let Some(node_errors) = error.node_errors {
            body["node_errors"] = *node_errors;
        }
        let mut response = (error.status, Json(body)).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = error.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(allow) = error.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn why_a_body_could_not_be_read_is_told_by_the_status() {
        let told = |error: BodyError| {
            let error = AsyncError::from(error);
            (error.status.as_u16(), error.code)
        };
        assert_eq!(told(BodyError::TooLarge { max_bytes: 1 }), (413, "too_large"));
        // What GETs are tried again after by the SDKs; a POST that was cut off is not theirs to repeat.
        assert_eq!(told(BodyError::Slow), (408, "slow"));
        assert_eq!(told(BodyError::Broken).0, 400);
    }
}
