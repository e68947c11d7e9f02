//! What is around every route, outermost: request id, log line, metrics, cross-origin and security headers, and the
//! net under a panic.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use axum::{extract::Request, response::Response};
use darkroom_core::{Clock, Ids};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tracing::Instrument;

use super::{RequestId, RouteClass, X_REQUEST_ID, cors::Cors, error_response};
use crate::metrics::Metrics;

/// What the layer needs.
#[derive(Clone)]
pub struct Outer {
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Measures.
    pub clock: Arc<dyn Clock>,
    /// Makes request ids.
    pub ids: Arc<dyn Ids>,
    /// Cross-origin rules.
    pub cors: Cors,
}

/// What goes on around every request, `answer` being all that is inside. Every answer then carries `X-Request-Id`, and a
/// handler that panics answers 500.
pub async fn around<F>(outer: &Outer, mut request: Request, answer: impl FnOnce(Request) -> F) -> Response
where
    F: Future<Output = Response>,
{
    let started = outer.clock.monotonic();
    let request_id = RequestId::choose(request.headers(), &*outer.ids);
    request.extensions_mut().insert(request_id.clone());
    let route = RouteClass::of(request.uri().path());
    let granted = outer.cors.grant(request.headers());
    // The path never holds a secret; the query may (signatures, one-time tokens), so it is not logged.
    let span = tracing::info_span!(
        "request",
        request.id = %request_id,
        http.method = %request.method(),
        http.path = request.uri().path(),
    );
    let mut response = match granted.preflight(request.method(), request.headers()) {
        Some(response) => response,
        None => {
            let answered = AssertUnwindSafe(answer(request)).catch_unwind();
            match answered.instrument(span.clone()).await {
                Ok(response) => response,
                Err(_) => {
                    // The panic hook has printed message and place; here only whose request it was.
                    outer.metrics.panicked();
                    span.in_scope(|| tracing::error!("a handler panicked"));
                    error_response(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "internal",
                        "internal error: this is a bug of the server; its log has more under this request id",
                        &request_id,
                    )
                }
            }
        }
    };
    granted.apply(response.headers_mut());
    add_headers(response.headers_mut(), &request_id);
    let took = outer.clock.monotonic().saturating_sub(started);
    outer.metrics.http_request(route, response.status(), took);
    span.in_scope(|| log(response.status(), took));
    response
}

fn add_headers(headers: &mut HeaderMap, request_id: &RequestId) {
    if let Ok(value) = HeaderValue::from_str(request_id.as_str()) {
        headers.insert(X_REQUEST_ID, value);
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "SAMEORIGIN"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        add_default(headers, name, value);
    }
}

fn add_default(headers: &mut HeaderMap, name: HeaderName, value: &'static str) {
    headers.entry(name).or_insert(HeaderValue::from_static(value));
}

/// Thousands of good answers a second are metrics; each bad one is a line.
fn log(status: StatusCode, took: Duration) {
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let status = status.as_u16();
    match status {
        500.. => tracing::warn!(http.status = status, duration_ms, "request failed"),
        400..=499 => tracing::info!(http.status = status, duration_ms, "request refused"),
        _ => tracing::debug!(http.status = status, duration_ms, "request answered"),
    }
}
