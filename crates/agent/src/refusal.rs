//! Answers that are errors: which of them are the server's own word. What stands between may answer anything while its upstream
//! restarts, and an agent on a rented machine that ends by that earns nothing.

use darkroom_runner::wire::code;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;

use crate::server::{Failed, shown};

/// Why a request did not do its work.
#[derive(Debug, PartialEq)]
pub(crate) enum Refusal {
    /// The session is not known: connect again.
    NoSession,
    /// Anything else.
    Failed(Failed),
}

impl From<Failed> for Refusal {
    fn from(failed: Failed) -> Self {
        Refusal::Failed(failed)
    }
}

/// An answer of our own API that is an error.
#[derive(Deserialize)]
struct Said {
    error: SaidError,
}

#[derive(Deserialize)]
struct SaidError {
    code: String,
    message: String,
}

/// Sends a request; a good answer, or what a bad one means.
///
/// # Errors
/// [`Refusal`].
pub(crate) async fn answered(request: RequestBuilder) -> Result<Response, Refusal> {
    let sent = request.send().await;
    let response = sent.map_err(|error| Failed::Away(shown(&error)))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let body = response.bytes().await.unwrap_or_default();
    Err(judge(status, &body))
}

fn judge(status: StatusCode, body: &[u8]) -> Refusal {
    let Ok(Said { error }) = serde_json::from_slice(body) else {
        return Failed::Away(format!("something on the way answered {status}")).into();
    };
    let message = error.message;
    let failed = match (error.code.as_str(), status) {
        (code::NO_SESSION, _) => return Refusal::NoSession,
        (code::STALE, _) => Failed::Stale,
        (code::SUPERSEDED, _) => Failed::Superseded,
        (code::GONE, _) => Failed::Gone,
        (code::CLOSED, _) => Failed::Closed,
        (code::INPUT_UNAVAILABLE, StatusCode::UNPROCESSABLE_ENTITY) => Failed::InputUnavailable(message),
        (_, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => Failed::Refused(message),
        (_, status) if status.is_server_error() => Failed::Away(message),
        (_, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) => Failed::Away(message),
        (_, _) => Failed::Rejected(message),
    };
    failed.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_servers_own_word_is_final() {
        let page = b"<html><body><h1>404 Not Found</h1></body></html>";
        for status in [301, 400, 401, 403, 404, 405, 413, 421, 500, 502] {
            let status = StatusCode::from_u16(status).unwrap();
            for body in [&page[..], b"", b"{}", b"{\"error\":\"not found\"}", b"null"] {
                let said = judge(status, body);
                assert!(
                    matches!(said, Refusal::Failed(Failed::Away(_))),
                    "{status} {said:?}"
                );
            }
        }
        let said = |status: u16, code: &str| {
            let body = serde_json::json!({"error": {"code": code, "message": "m"}}).to_string();
            judge(StatusCode::from_u16(status).unwrap(), body.as_bytes())
        };
        let failed = Refusal::Failed;
        assert_eq!(said(404, code::NO_SESSION), Refusal::NoSession);
        assert_eq!(said(409, code::STALE), failed(Failed::Stale));
        assert_eq!(said(409, code::SUPERSEDED), failed(Failed::Superseded));
        assert_eq!(said(410, code::GONE), failed(Failed::Gone));
        assert_eq!(said(410, code::CLOSED), failed(Failed::Closed));
        assert_eq!(said(401, "unauthenticated"), failed(Failed::Refused("m".into())));
        assert_eq!(said(403, "forbidden"), failed(Failed::Refused("m".into())));
        assert_eq!(said(400, "rejected"), failed(Failed::Rejected("m".into())));
        for (status, code) in [
            (503, "unavailable"),
            (429, "busy"),
            (408, "slow"),
            (500, "internal"),
        ] {
            assert_eq!(said(status, code), failed(Failed::Away("m".into())));
        }
    }
}
