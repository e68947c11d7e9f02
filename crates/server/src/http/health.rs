//! `/healthz` (the process lives), `/readyz` (it takes requests), `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Extension, FromRef, State},
    response::{IntoResponse, Response},
    routing::get,
};
use darkroom_store::access::Scope;
use http::{HeaderMap, StatusCode, Uri, header};
use tokio::sync::watch;

use super::{Peer, RequestId};
use crate::{
    auth::{AuthState, auth_error_response, is_loopback_authority},
    metrics::Metrics,
};

/// Whether the server takes requests: not before it has recovered, and not while it stops.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    ready: Arc<watch::Sender<bool>>,
}

impl Readiness {
    /// Says whether it does from now on.
    pub fn set(&self, ready: bool) {
        self.ready.send_replace(ready);
    }

    /// Whether it does now.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Resolves once it does.
    pub async fn reached(&self) {
        // The sender is this one's own, so that it is there.
        let _ = self.ready.subscribe().wait_for(|ready| *ready).await;
    }
}

/// The three routes.
pub fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    AuthState: FromRef<S>,
    Readiness: FromRef<S>,
    Arc<Metrics>: FromRef<S>,
{
    Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
}

async fn readyz(State(readiness): State<Readiness>) -> (StatusCode, &'static str) {
    if readiness.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    }
}

async fn metrics(
    State(auth): State<AuthState>,
    State(metrics): State<Arc<Metrics>>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    uri: Uri,
    request_id: RequestId,
) -> Response {
    if !peer.is_some_and(|Extension(Peer(address))| is_local(address, &headers)) {
        let admin = auth
            .identify(&headers, &uri, request_id.clone())
            .and_then(|caller| caller.may_anywhere(Scope::Admin));
        if let Err(error) = admin {
            return auth_error_response(&error, &request_id);
        }
    }
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], metrics.render()).into_response()
}

/// This machine asks for itself: not a proxy on it for somebody else, and not a page under a foreign name.
fn is_local(peer: SocketAddr, headers: &HeaderMap) -> bool {
    let forwarded = [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
        "via",
    ]
    .iter()
    .any(|name| headers.contains_key(*name));
    let by_own_name = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .is_some_and(is_loopback_authority);
    peer.ip().to_canonical().is_loopback() && by_own_name && !forwarded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_on_this_machine_is_not_this_machine() {
        let here: SocketAddr = "127.0.0.1:5".parse().unwrap();
        let there: SocketAddr = "10.0.0.2:5".parse().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, "127.0.0.1:8288".parse().unwrap());
        assert!(is_local(here, &headers));
        assert!(!is_local(there, &headers));
        headers.insert("x-forwarded-for", "1.2.3.4".parse().unwrap());
        assert!(!is_local(here, &headers));
        headers.remove("x-forwarded-for");
        headers.insert(header::HOST, "rebound.example".parse().unwrap());
        assert!(!is_local(here, &headers));
    }
}
