//! Errors of this protocol: a status and a plain text; clients read no more of them (`protocols/eas-queue.md` §2, §3).

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};

use super::named;
use crate::{
    auth,
    http::{BodyError, RequestId},
    service,
};

/// An error on its way to the caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EasError {
    status: StatusCode,
    message: String,
    retry_after_s: Option<u64>,
    header: Option<(header::HeaderName, HeaderValue)>,
}

impl EasError {
    /// With a status and a text.
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        EasError {
            status,
            message: message.into(),
            retry_after_s: None,
            header: None,
        }
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        EasError::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such thing.
    pub fn not_found(message: impl Into<String>) -> Self {
        EasError::new(StatusCode::NOT_FOUND, message)
    }

    /// Not this method.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        EasError {
            header: Some((header::ALLOW, HeaderValue::from_static(allow))),
            ..EasError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                format!("method not allowed: use {allow}"),
            )
        }
    }

    /// A watch that is neither a WebSocket nor asks for frames.
    pub fn upgrade_required() -> Self {
        EasError {
            header: Some((header::UPGRADE, HeaderValue::from_static("websocket"))),
            ..EasError::new(
                StatusCode::UPGRADE_REQUIRED,
                "a watch is a WebSocket connection; over plain HTTP send Accept: application/vnd.google.protobuf",
            )
        }
    }

    /// The server stops: who comes again meets the next one.
    pub fn stopping() -> Self {
        EasError {
            retry_after_s: Some(1),
            ..EasError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is restarting")
        }
    }

    fn response(&self, request_id: &str) -> Response {
        let content_type = "text/plain; charset=utf-8";
        let head = [(header::CONTENT_TYPE, content_type)];
        let mut response = (self.status, head, self.message.clone()).into_response();
        if let Some(seconds) = self.retry_after_s {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some((name, value)) = &self.header {
            response.headers_mut().insert(name, value.clone());
        }
        named(&mut response, request_id);
        response
    }
}

impl From<service::Error> for EasError {
    fn from(error: service::Error) -> Self {
        use service::Error;
        let message = error.to_string();
        match error {
            Error::NotFound { .. } => EasError::not_found(message),
            Error::Invalid(_) | Error::InvalidGraph(_) | Error::InputUnavailable(_) => {
                EasError::invalid(message)
            }
            Error::Duplicate { .. } => EasError::new(StatusCode::CONFLICT, message),
            Error::TooLarge { .. } => EasError::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            Error::QueueFull { .. } => EasError {
                retry_after_s: Some(1),
                ..EasError::new(StatusCode::TOO_MANY_REQUESTS, message)
            },
            Error::Unavailable { retry_after, .. } => EasError {
                retry_after_s: Some(retry_after.as_secs().max(1)),
                ..EasError::new(StatusCode::SERVICE_UNAVAILABLE, message)
            },
            Error::Internal(cause) => {
                tracing::error!(error = ?cause, "a call of a queue failed");
                EasError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
            }
        }
    }
}

impl From<auth::Error> for EasError {
    fn from(error: auth::Error) -> Self {
        let message = match error {
            auth::Error::Unauthenticated { presented: true } => "the token is not known here".to_owned(),
            auth::Error::Unauthenticated { presented: false } => {
                "a token is needed: send it as it is in the Authorization header".to_owned()
            }
            auth::Error::MissingScope { .. }
            | auth::Error::ForeignEndpoint { .. }
            | auth::Error::ForeignHost { .. }
            | auth::Error::ForeignOrigin { .. } => error.to_string(),
        };
        EasError::new(error.status(), message)
    }
}

/// An error and the request it answers: what handlers return.
#[derive(Debug)]
pub struct Refused(EasError, String);

impl Refused {
    /// An error, answered under a request id.
    pub fn new(error: impl Into<EasError>, request_id: &RequestId) -> Self {
        Refused(error.into(), request_id.to_string())
    }
}

impl From<auth::Rejection> for Refused {
    fn from(rejection: auth::Rejection) -> Self {
        Refused::new(rejection.error, &rejection.request_id)
    }
}

impl From<BodyError> for EasError {
    fn from(error: BodyError) -> Self {
        let message = error.to_string();
        match error {
            BodyError::TooLarge { .. } => EasError::new(StatusCode::PAYLOAD_TOO_LARGE, message),
            BodyError::Broken => EasError::invalid(message),
            BodyError::Slow => EasError::new(StatusCode::REQUEST_TIMEOUT, message),
            BodyError::Exhausted(_) => EasError {
                retry_after_s: Some(2),
                ..EasError::new(StatusCode::SERVICE_UNAVAILABLE, message)
            },
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.0.response(&self.1)
    }
}
