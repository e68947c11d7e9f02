//! SpeedPix (`protocols/speedpix.md`): published workflows, called by the vendor's SDKs with requests that an app key signs.
//!
//! Every key of an answer's envelope and data is there in both spellings ([`envelope`]); what goes wrong is an envelope under
//! status 200 wherever the SDK shows it to its user, and an HTTP error with the gateway's headers where a signature is
//! wrong ([`error`]).

mod call;
mod envelope;
mod error;
mod progress;
mod prompt;
mod result;
mod upload;

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    response::{IntoResponse, Response},
    routing::{any, post},
};
use http::{Uri, header};

use self::{call::AsSent, error::Rejected};
use crate::{
    http::{RequestId, drain_body},
    state::AppState,
};

/// The protocol's name in a job's facts.
const DIALECT: &str = "speedpix";

/// Largest body, in bytes: the client puts files of up to 1 MB each into it.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;

/// The routes.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/scc/comfy_prompt", post(prompt::handler))
        .route("/scc/comfy_get_progress", post(progress::handler))
        .route("/scc/comfy_get_result", post(result::handler))
        .route("/scc/sp_create_temp_file_upload_sign", post(upload::handler))
        .route("/scc/{*other}", any(not_found))
        // Handlers measure by themselves, so that a refusal has the protocol's shape.
        .layer(DefaultBodyLimit::disable())
}

/// The body is taken off the wire: a connection that was closed over it would fail the client's next request.
async fn not_found(request_id: RequestId, request: Request) -> Response {
    if !request.headers().contains_key(header::EXPECT) {
        drain_body(request.into_body()).await;
    }
    Rejected::api_not_found(&request_id).into_response()
}

/// Takes away what the SDK's endpoint may have behind its host: a slash too much, or the path of `public_url`. Neither is
/// signed (`protocols/speedpix.md` §2).
pub fn find_own_path(state: &AppState, mut request: Request) -> Request {
    let sent = request.uri().path();
    if let Some(own) = own_path(sent, state.auth.public_prefix()) {
        let query = request
            .uri()
            .query()
            .map(|query| format!("?{query}"))
            .unwrap_or_default();
        if let Ok(uri) = format!("{own}{query}").parse::<Uri>() {
            let sent = AsSent(sent.to_owned());
            request.extensions_mut().insert(sent);
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The protocol's own path in one that has something before it.
fn own_path<'a>(sent: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = match sent.strip_prefix(prefix) {
        Some(rest) if rest.starts_with('/') => rest,
        _ => sent,
    };
    let at = rest.len() - rest.trim_start_matches('/').len();
    let own = &rest[at.checked_sub(1)?..];
    (own.starts_with("/scc/") && own != sent).then_some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_before_the_path_is_taken_away() {
        assert_eq!(own_path("//scc/x", ""), Some("/scc/x"));
        assert_eq!(own_path("/gpu/scc/x", "/gpu"), Some("/scc/x"));
        assert_eq!(own_path("/gpu//scc/x", "/gpu"), Some("/scc/x"));
        for plain in ["/scc/x", "/", "/prompt", "//prompt", "/gpu/scc", "scc/x"] {
            assert_eq!(own_path(plain, ""), None, "{plain}");
        }
    }
}
