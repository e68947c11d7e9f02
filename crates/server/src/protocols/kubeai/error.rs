//! Errors in KubeAI's shape, `{"error": "text"}` (`protocols/kubeai.md` §1). What ComfyUI's own routes refuse keeps their shape.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use darkroom_core::EndpointName;
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::{auth, http::BodyError, service};

/// Names that a refusal lists.
const MOST_NAMES: usize = 20;

/// A refused request.
#[derive(Debug)]
pub struct Refused {
    status: StatusCode,
    text: String,
    retry_after_s: Option<u64>,
}

impl Refused {
    /// A refusal in words.
    pub fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Refused {
            status,
            text: text.into(),
            retry_after_s: None,
        }
    }

    /// There is no endpoint of that name, and these there are for the caller.
    pub fn unknown_model<'a>(model: &str, names: impl Iterator<Item = &'a EndpointName>) -> Self {
        let shown: String = model.chars().take(80).collect();
        let names: Vec<&str> = names.take(MOST_NAMES).map(EndpointName::as_str).collect();
        let text = match names.is_empty() {
            true => format!("model '{shown}' is no endpoint of ComfyUI here"),
            false => format!(
                "model '{shown}' is no endpoint of ComfyUI here; there are: {}",
                names.join(", ")
            ),
        };
        Refused::new(StatusCode::NOT_FOUND, text)
    }
}

impl From<auth::Error> for Refused {
    fn from(error: auth::Error) -> Self {
        Refused::new(error.status(), error.to_string())
    }
}

impl From<auth::Rejection> for Refused {
    fn from(rejection: auth::Rejection) -> Self {
        rejection.error.into()
    }
}

impl From<BodyError> for Refused {
    fn from(error: BodyError) -> Self {
        let text = error.to_string();
        match error {
            BodyError::TooLarge { .. } => Refused::new(StatusCode::PAYLOAD_TOO_LARGE, text),
            BodyError::Broken | BodyError::Slow => Refused::new(StatusCode::BAD_REQUEST, text),
            BodyError::Exhausted(exhausted) => service::Error::from(exhausted).into(),
        }
    }
}

impl From<service::Error> for Refused {
    fn from(error: service::Error) -> Self {
        use service::Error;
        let text = error.to_string();
        match error {
            Error::NotFound { .. } => Refused::new(StatusCode::NOT_FOUND, text),
            Error::Invalid(_) | Error::InvalidGraph(_) | Error::InputUnavailable(_) => {
                Refused::new(StatusCode::BAD_REQUEST, text)
            }
            Error::Duplicate { .. } => Refused::new(StatusCode::CONFLICT, text),
            Error::TooLarge { .. } => Refused::new(StatusCode::PAYLOAD_TOO_LARGE, text),
            Error::QueueFull { .. } => Refused::new(StatusCode::TOO_MANY_REQUESTS, text),
            Error::Unavailable { retry_after, .. } => Refused {
                retry_after_s: Some(retry_after.as_secs().max(1)),
                ..Refused::new(StatusCode::SERVICE_UNAVAILABLE, text)
            },
            Error::Internal(cause) => {
                tracing::error!(error = ?cause, "a call of the proxy failed");
                Refused::new(StatusCode::INTERNAL_SERVER_ERROR, text)
            }
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.text }))).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_s {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
