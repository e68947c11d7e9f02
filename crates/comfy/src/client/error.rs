//! How a request to an instance can fail.

use http::StatusCode;

use crate::graph::validate::Rejected;
use crate::session::Failure;

/// Longer answers are cut in messages.
const SHOWN_CHARS: usize = 200;

/// A failed request. Messages name the route and never the URL, which may carry credentials.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("'{base}' is not a usable http or https base URL")]
    BadBase { base: String },
    #[error("'{name}' cannot be sent as a file name")]
    BadName { name: String },
    #[error("{route}: connection refused or impossible")]
    Refused {
        route: &'static str,
        source: reqwest::Error,
    },
    #[error("{route}: no answer in time")]
    Timeout { route: &'static str },
    #[error("{route}: the connection broke")]
    Transport {
        route: &'static str,
        source: reqwest::Error,
    },
    #[error("{route}: status {status}: {body}")]
    Status {
        route: &'static str,
        status: StatusCode,
        body: String,
    },
    #[error("{route}: the answer has more than {limit} bytes")]
    TooLarge { route: &'static str, limit: usize },
    #[error("{route}: the answer is not the expected JSON")]
    Unreadable {
        route: &'static str,
        source: serde_json::Error,
    },
    /// The instance's validation refused the graph.
    #[error("the instance refused the graph: {0}")]
    Rejected(Box<Rejected>),
    #[error("websocket handshake: {reason}")]
    Handshake { reason: &'static str },
    #[error("websocket")]
    Socket(#[source] Box<tokio_tungstenite::tungstenite::Error>),
    #[error("reading the file to upload or writing the downloaded one")]
    Io(#[from] std::io::Error),
}

impl Error {
    /// What this says about the instance, for [`Session::on_failed`](crate::session::Session::on_failed).
    pub fn failure(&self) -> Failure {
        match self {
            Self::Refused { .. } => Failure::Refused,
            Self::TooLarge { .. } | Self::Unreadable { .. } => Failure::Garbage,
            Self::BadBase { .. }
            | Self::BadName { .. }
            | Self::Timeout { .. }
            | Self::Transport { .. }
            | Self::Status { .. }
            | Self::Rejected(_)
            | Self::Handshake { .. }
            | Self::Socket(_)
            | Self::Io(_) => Failure::NoAnswer,
        }
    }

    pub(super) fn transport(route: &'static str, source: reqwest::Error) -> Self {
        let source = source.without_url();
        if source.is_connect() {
            Self::Refused { route, source }
        } else if source.is_timeout() {
            Self::Timeout { route }
        } else {
            Self::Transport { route, source }
        }
    }

    pub(super) fn status(route: &'static str, status: StatusCode, body: &[u8]) -> Self {
        let body = String::from_utf8_lossy(body).chars().take(SHOWN_CHARS).collect();
        Self::Status { route, status, body }
    }
}
