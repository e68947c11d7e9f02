//! Errors in this protocol's two shapes: the agent's own (`type: "error"`) and the platform's, in both spellings
//! (`protocols/comfyui-serverless-fc.md` §8).

use axum::{
    Json,
    extract::rejection::QueryRejection,
    response::{IntoResponse, Response},
};
use darkroom_core::{Failure, JobState, failure::FailureCode};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use crate::{
    auth,
    http::{BodyError, RequestId},
    service::{self, jobs::JobRecord},
};

/// An error on its way to the caller.
#[derive(Debug, Clone, PartialEq)]
pub struct FcError {
    status: StatusCode,
    code: &'static str,
    message: String,
    raw: Option<Box<Value>>,
    /// Answered by the platform, not by the agent: the vendor's SDKs read other keys then.
    platform: bool,
    retry_after_s: Option<u64>,
}

impl FcError {
    fn agent(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        FcError {
            status,
            code,
            message: message.into(),
            raw: None,
            platform: false,
            retry_after_s: None,
        }
    }

    fn platform(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        FcError {
            platform: true,
            ..FcError::agent(status, code, message)
        }
    }

    /// The request makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        FcError::agent(StatusCode::BAD_REQUEST, "INVALID_PARAMS", message)
    }

    /// A frame that is not JSON; over HTTP the same is [`FcError::invalid`].
    pub fn invalid_json(error: &serde_json::Error) -> Self {
        FcError::agent(
            StatusCode::BAD_REQUEST,
            "invalid_json",
            format!("the frame is not JSON: {error}"),
        )
    }

    /// There is no such task.
    pub fn no_such_task() -> Self {
        FcError::agent(StatusCode::NOT_FOUND, "TASK_NOT_FOUND", "there is no such task")
    }

    /// The body is larger than allowed.
    pub fn too_large(limit_bytes: usize) -> Self {
        let message = format!("payload size exceeds maximum allowed size ({limit_bytes} bytes)");
        FcError::platform(StatusCode::BAD_REQUEST, "EntityTooLarge", message)
    }

    /// The server stops while a caller waits: the job goes on, its events can be read later.
    pub fn stopping() -> Self {
        let message =
            "the server is restarting; the task goes on and can be read from /api/serverless/status";
        FcError {
            retry_after_s: Some(1),
            ..FcError::platform(StatusCode::SERVICE_UNAVAILABLE, "ResourceThrottled", message)
        }
    }

    /// How a job that did not succeed is told; `None` when it did, or has not ended.
    pub fn of_job(job: &JobRecord) -> Option<Self> {
        match job.state {
            JobState::Queued | JobState::Running | JobState::Succeeded => None,
            JobState::Cancelled => Some(FcError::agent(
                StatusCode::INTERNAL_SERVER_ERROR,
                "EXECUTION_FAILED",
                "the task was cancelled",
            )),
            JobState::Failed | JobState::Expired => Some(match &job.failure {
                Some(failure) => FcError::of_failure(failure),
                None => FcError::agent(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "EXECUTION_FAILED",
                    "the task failed",
                ),
            }),
        }
    }

    fn of_failure(failure: &Failure) -> Self {
        let (code, message) = match failure.code {
            FailureCode::ExecutionError | FailureCode::OutOfMemory => {
                let said = failure
                    .detail
                    .as_ref()
                    .and_then(|d| d.get("exception_message"))
                    .and_then(Value::as_str);
                let said = said.unwrap_or(&failure.message).trim_end();
                ("EXECUTION_FAILED", format!("ComfyUI execution error: {said}"))
            }
            FailureCode::PromptRefused => (
                "PROMPT_ERROR",
                format!("ComfyUI prompt api failed with 400: {}", failure.message),
            ),
            FailureCode::InputUnavailable => ("UNCLASSIFY", failure.message.clone()),
            FailureCode::ExecutionTimeout
            | FailureCode::InstanceLost
            | FailureCode::StartFailed
            | FailureCode::QueueTimeout
            | FailureCode::OutputMissing
            | FailureCode::Internal => ("EXECUTION_FAILED", failure.message.clone()),
        };
        FcError {
            raw: failure.detail.clone().map(Box::new),
            ..FcError::agent(StatusCode::INTERNAL_SERVER_ERROR, code, message)
        }
    }

    /// The error as the last message of a stream.
    pub fn message(&self) -> Value {
        let mut body = json!({ "type": "error", "error_code": self.code, "error_message": self.message });
        if let Some(raw) = &self.raw {
            body["raw"] = Value::clone(raw);
        }
        body
    }

    /// The HTTP answer.
    pub fn response(&self, request_id: &str) -> Response {
        let mut body = self.message();
        if self.platform {
            for (key, value) in [
                ("errorCode", self.code),
                ("Code", self.code),
                ("errorMessage", &self.message),
                ("Message", &self.message),
                ("RequestId", request_id),
            ] {
                body[key] = Value::from(value);
            }
        }
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        super::run::common_headers(headers, request_id);
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if !self.platform && self.status.is_server_error() {
            headers.insert(
                "x-fc-error-type",
                HeaderValue::from_static("HandledInvocationError"),
            );
        }
        response
    }
}

impl From<service::Error> for FcError {
    fn from(error: service::Error) -> Self {
        use service::Error;
        let message = error.to_string();
        match error {
            Error::NotFound { what: "endpoint", .. } => {
                FcError::platform(StatusCode::NOT_FOUND, "FunctionNotFound", message)
            }
            Error::NotFound { .. } => FcError::agent(StatusCode::NOT_FOUND, "TASK_NOT_FOUND", message),
            Error::Invalid(_) => FcError::invalid(message),
            Error::InvalidGraph(refusal) => FcError {
                raw: Some(Box::new(
                    json!({ "error": refusal.error, "node_errors": refusal.node_errors }),
                )),
                ..FcError::agent(
                    StatusCode::INTERNAL_SERVER_ERROR,
                    "PROMPT_ERROR",
                    format!("ComfyUI prompt api failed with 400: {}", refusal.message()),
                )
            },
            Error::InputUnavailable(_) => {
                FcError::agent(StatusCode::INTERNAL_SERVER_ERROR, "UNCLASSIFY", message)
            }
            Error::Duplicate { .. } => {
                FcError::platform(StatusCode::CONFLICT, "ConcurrentUpdateError", message)
            }
            Error::TooLarge { limit_bytes, .. } => {
                FcError::too_large(usize::try_from(limit_bytes).unwrap_or(usize::MAX))
            }
            Error::QueueFull { .. } => FcError {
                retry_after_s: Some(1),
                ..FcError::platform(StatusCode::TOO_MANY_REQUESTS, "ResourceExhausted", message)
            },
            Error::Unavailable { retry_after, .. } => FcError {
                retry_after_s: Some(retry_after.as_secs().max(1)),
                ..FcError::platform(StatusCode::SERVICE_UNAVAILABLE, "ResourceThrottled", message)
            },
            Error::Internal(cause) => {
                tracing::error!(error = ?cause, "a serverless call failed");
                FcError::platform(StatusCode::INTERNAL_SERVER_ERROR, "InternalServerError", message)
            }
        }
    }
}

impl From<BodyError> for FcError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::TooLarge { max_bytes } => FcError::too_large(max_bytes),
            BodyError::Broken | BodyError::Slow => FcError::invalid(error.to_string()),
            BodyError::Exhausted(exhausted) => service::Error::from(exhausted).into(),
        }
    }
}

impl From<QueryRejection> for FcError {
    fn from(rejection: QueryRejection) -> Self {
        FcError::invalid(rejection.body_text())
    }
}

impl From<auth::Error> for FcError {
    fn from(error: auth::Error) -> Self {
        FcError::platform(error.status(), "AccessDenied", error.to_string())
    }
}

/// An error and the request it answers: what handlers return.
#[derive(Debug)]
pub struct Refused(pub FcError, pub String);

impl Refused {
    /// An error, answered under a request id.
    pub fn new(error: impl Into<FcError>, request_id: &RequestId) -> Self {
        Refused(error.into(), request_id.to_string())
    }
}

impl From<auth::Rejection> for Refused {
    fn from(rejection: auth::Rejection) -> Self {
        Refused::new(rejection.error, &rejection.request_id)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        self.0.response(&self.1)
    }
}
