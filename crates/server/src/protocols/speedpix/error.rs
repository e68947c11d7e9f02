//! What is answered instead of a result. The SDK shows the words of an envelope under status 200; of an HTTP error it shows
//! the status alone, so that is for requests that are not signed right, and for what passes (`protocols/speedpix.md` §2, §4).

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::envelope::{FAILED, Words, envelope};
use crate::{
    auth::{AppError, signed::SignatureError},
    http::{BodyError, RequestId},
    service::{
        Error,
        published::{CallError, NoResource, Unknown},
    },
};

/// A request that the gateway does not let through.
#[derive(Debug)]
pub struct Rejected {
    status: StatusCode,
    code: &'static str,
    message: String,
    request_id: RequestId,
}

impl Rejected {
    /// For a route that is none.
    pub fn api_not_found(request_id: &RequestId) -> Self {
        Rejected::new(
            StatusCode::BAD_REQUEST,
            "I404NF",
            "API Not Found".to_owned(),
            request_id,
        )
    }

    /// For a caller that is not let in.
    pub fn auth(error: AppError, request_id: &RequestId) -> Self {
        let (status, code) = match &error {
            AppError::Signature(SignatureError::EmptySignature) => (StatusCode::UNAUTHORIZED, "I400MH"),
            AppError::Signature(SignatureError::EmptyNonce) => (StatusCode::BAD_REQUEST, "I400MH"),
            AppError::Signature(SignatureError::InvalidContentMd5) => (StatusCode::BAD_REQUEST, "I400BD"),
            AppError::Signature(SignatureError::Throttled) => (StatusCode::TOO_MANY_REQUESTS, "I429TR"),
            AppError::Signature(_) => (StatusCode::BAD_REQUEST, "I400HD"),
            AppError::Access(error) => (error.status(), "I403AC"),
        };
        Rejected::new(status, code, error.to_string(), request_id)
    }

    /// For what passes.
    pub fn passing(error: &Error, request_id: &RequestId) -> Self {
        if let Error::Internal(cause) = error {
            tracing::error!(error = ?cause, request.id = %request_id, "a signed request could not be noted");
        }
        Rejected::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "I503EX",
            error.to_string(),
            request_id,
        )
    }

    /// For a body that cannot be read.
    pub fn body(error: &BodyError, request_id: &RequestId) -> Self {
        let (status, code) = match error {
            BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "I413RL"),
            BodyError::Broken | BodyError::Slow => (StatusCode::BAD_REQUEST, "I400BD"),
            BodyError::Exhausted(_) => (StatusCode::SERVICE_UNAVAILABLE, "I503EX"),
        };
        Rejected::new(status, code, error.to_string(), request_id)
    }

    fn new(status: StatusCode, code: &'static str, message: String, request_id: &RequestId) -> Self {
        Rejected {
            status,
            code,
            message,
            request_id: request_id.clone(),
        }
    }
}

impl IntoResponse for Rejected {
    fn into_response(self) -> Response {
        let body =
            json!({ "code": self.code, "message": self.message, "request_id": self.request_id.as_str() });
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        let mut set = |name: &'static str, text: &str| {
            // What a client sent may stand in the message: one line of printable characters.
            let plain: String = text
                .chars()
                .map(|c| if (' '..='~').contains(&c) { c } else { '?' })
                .collect();
            if let Ok(value) = HeaderValue::from_str(&plain) {
                headers.insert(name, value);
            }
        };
        set("x-ca-error-code", self.code);
        set("x-ca-error-message", &self.message);
        set("x-ca-request-id", self.request_id.as_str());
        response
    }
}

/// What is wrong with a request that was let through.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// With a call.
    #[error(transparent)]
    Call(#[from] CallError),
    /// With anything else.
    #[error(transparent)]
    Service(#[from] Error),
    /// There is no such task.
    #[error("there is no task '{0}'")]
    UnknownTask(String),
}

impl Trouble {
    /// An id that leads to no task of the caller.
    pub fn unknown_task(id: &str) -> Self {
        Trouble::UnknownTask(id.chars().take(80).collect())
    }

    /// In the vendor's two layers.
    fn words(&self) -> Words {
        const INVALID: (&str, &str) = ("INVALID_PARAMETER", "the request is invalid");
        const UNKNOWN: (&str, &str) = ("NOT_FOUND", "what the request names is not there");
        const FORBIDDEN: (&str, &str) = ("FORBIDDEN", "the application may not do this");
        const BUSY: (&str, &str) = ("THROTTLED", "too much to do at the moment");
        const AWAY: (&str, &str) = ("SERVICE_UNAVAILABLE", "try again after a moment");
        const BROKEN: (&str, &str) = ("INTERNAL_ERROR", "the server failed");
        let (layer, sub) = match self {
            Trouble::Call(CallError::Unknown(Unknown::Workflow(_))) => (UNKNOWN, "WORKFLOW_NOT_FOUND"),
            Trouble::Call(CallError::Unknown(Unknown::Version { .. })) => (UNKNOWN, "VERSION_NOT_FOUND"),
            Trouble::Call(CallError::Unknown(Unknown::Alias { .. })) => (UNKNOWN, "ALIAS_NOT_FOUND"),
            Trouble::Call(CallError::Inputs(_)) => (INVALID, "INVALID_INPUT"),
            Trouble::Call(CallError::Unfit(_)) => (INVALID, "INVALID_WORKFLOW"),
            Trouble::Call(CallError::Resource(NoResource::Unknown(_))) => (UNKNOWN, "RESOURCE_NOT_FOUND"),
            Trouble::Call(CallError::Resource(NoResource::Forbidden(_))) => (FORBIDDEN, "RESOURCE_FORBIDDEN"),
            Trouble::Call(CallError::Resource(NoResource::Busy(_))) => (BUSY, "RESOURCE_BUSY"),
            Trouble::UnknownTask(_) => (UNKNOWN, "TASK_NOT_FOUND"),
            Trouble::Call(
                CallError::Service(error)
                | CallError::Unknown(Unknown::Service(error))
                | CallError::Resource(NoResource::Service(error)),
            )
            | Trouble::Service(error) => match error {
                Error::NotFound { .. } => (UNKNOWN, "NOT_FOUND"),
                Error::Invalid(_) | Error::Duplicate { .. } => (INVALID, "INVALID_REQUEST"),
                Error::InvalidGraph(_) => (INVALID, "INVALID_WORKFLOW"),
                Error::InputUnavailable(_) => (INVALID, "INVALID_INPUT"),
                Error::TooLarge { .. } => (INVALID, "TOO_LARGE"),
                Error::QueueFull { .. } => (BUSY, "QUEUE_FULL"),
                Error::Unavailable { .. } => (AWAY, "UNAVAILABLE"),
                Error::Internal(_) => (BROKEN, "INTERNAL"),
            },
        };
        Words {
            code: layer.0,
            message: layer.1,
            sub_code: sub.to_owned(),
            sub_message: self.to_string(),
        }
    }
}

/// An answer that says what is wrong.
#[derive(Debug)]
pub struct Refused(Box<Response>);

impl Refused {
    /// Under status 200, where the SDK shows it.
    pub fn new(trouble: Trouble, request_id: &RequestId) -> Self {
        if let Trouble::Service(Error::Internal(cause))
        | Trouble::Call(CallError::Service(Error::Internal(cause))) = &trouble
        {
            tracing::error!(error = ?cause, request.id = %request_id, "a call failed");
        }
        let answer = envelope(FAILED, Some(&trouble.words()), Value::Null, request_id);
        Refused(Box::new(Json(answer).into_response()))
    }

    /// Where an envelope would end a task that goes on: an HTTP error, which the SDK passes on as it is.
    pub fn passing(error: Error, request_id: &RequestId) -> Self {
        let mut headers = HeaderMap::new();
        let status = match &error {
            Error::Unavailable { retry_after, .. } => {
                headers.insert(
                    header::RETRY_AFTER,
                    HeaderValue::from(retry_after.as_secs().max(1)),
                );
                StatusCode::SERVICE_UNAVAILABLE
            }
            other => {
                tracing::error!(error = ?other, request.id = %request_id, "a task could not be read");
                StatusCode::INTERNAL_SERVER_ERROR
            }
        };
        let answer = envelope(
            FAILED,
            Some(&Trouble::Service(error).words()),
            Value::Null,
            request_id,
        );
        Refused(Box::new((status, headers, Json(answer)).into_response()))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        *self.0
    }
}

/// Either way a handler answers without a result.
#[derive(Debug)]
pub enum Failed {
    /// Not let through.
    Rejected(Rejected),
    /// Refused.
    Refused(Refused),
}

impl From<Rejected> for Failed {
    fn from(rejected: Rejected) -> Self {
        Failed::Rejected(rejected)
    }
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Self {
        Failed::Refused(refused)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        match self {
            Failed::Rejected(rejected) => rejected.into_response(),
            Failed::Refused(refused) => refused.into_response(),
        }
    }
}
