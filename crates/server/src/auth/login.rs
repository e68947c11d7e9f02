//! `/login`: a browser exchanges a key, or a one-time link, for a cookie.

use axum::{
    Router,
    extract::{FromRef, Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;

use super::{AuthState, SESSION_COOKIE, SESSION_LIFETIME, auth_error_response};
use crate::{http::RequestId, pages};

/// `GET /login`, `POST /login`, `POST /logout`.
pub fn routes<S>() -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    AuthState: FromRef<S>,
{
    Router::new()
        .route("/login", get(form).post(log_in))
        .route("/logout", post(log_out))
}

#[derive(Debug, Default, Deserialize)]
struct Ask {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    next: Option<String>,
}

async fn form(
    State(auth): State<AuthState>,
    Query(ask): Query<Ask>,
    headers: HeaderMap,
    uri: Uri,
    request_id: RequestId,
) -> Response {
    let next = local_path(ask.next.as_deref());
    match ask.token {
        Some(token) => match auth.follow_link(&token) {
            Some(session) => enter(&headers, &session, next),
            None => page(
                StatusCode::UNAUTHORIZED,
                next,
                "This link was used already or is too old. Ask for a new one.",
            ),
        },
        None => match auth.identify(&headers, &uri, request_id) {
            Ok(caller) if !caller.anonymous => redirect(next),
            _ => page(StatusCode::OK, next, ""),
        },
    }
}

async fn log_in(
    State(auth): State<AuthState>,
    headers: HeaderMap,
    uri: Uri,
    request_id: RequestId,
    body: Bytes,
) -> Response {
    let (key, next) = read_form(&body);
    let next = local_path(next.as_deref());
    match auth.log_in(key.trim()) {
        Some(session) => enter(&headers, &session, next),
        // A server without keys has nothing to exchange: whoever may come in is in.
        None if auth.is_open(&auth.keyring()) => match auth.identify(&headers, &uri, request_id.clone()) {
            Ok(_) => redirect(next),
            Err(error) => auth_error_response(&error, &request_id),
        },
        None => page(StatusCode::UNAUTHORIZED, next, "This key is not known here."),
    }
}

/// The key and the path of a filled form.
fn read_form(body: &[u8]) -> (String, Option<String>) {
    let mut key = String::new();
    let mut next = None;
    for (name, value) in url::form_urlencoded::parse(body) {
        match &*name {
            "key" => key = value.into_owned(),
            "next" => next = Some(value.into_owned()),
            _ => {}
        }
    }
    (key, next)
}

async fn log_out(State(auth): State<AuthState>, headers: HeaderMap) -> Response {
    auth.log_out(&headers);
    let mut response = redirect("/login");
    set_cookie(&mut response, &headers, "", 0);
    response
}

fn page(status: StatusCode, next: &str, problem: &str) -> Response {
    let mut response = pages::login::render(next, problem);
    *response.status_mut() = status;
    response
}

fn enter(headers: &HeaderMap, session: &str, next: &str) -> Response {
    let mut response = redirect(next);
    set_cookie(&mut response, headers, session, SESSION_LIFETIME.as_secs());
    response
}

fn redirect(to: &str) -> Response {
    let location = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response()
}

fn set_cookie(response: &mut Response, headers: &HeaderMap, session: &str, max_age_s: u64) {
    // `Secure` only where the browser came by TLS: without it, a cookie marked so would never come back. Believing a
    // forged header here only costs the forger their own cookie.
    let by_tls = headers
        .get("x-forwarded-proto")
        .is_some_and(|proto| proto == "https");
    let secure = if by_tls { "; Secure" } else { "" };
    let cookie =
        format!("{SESSION_COOKIE}={session}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}");
    if let Ok(value) = HeaderValue::from_str(&cookie) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}

/// A path on this server: a login must not become a redirect to somebody else's.
fn local_path(next: Option<&str>) -> &str {
    match next {
        Some(path)
            if path.starts_with('/')
                && !path[1..].starts_with(['/', '\\'])
                && path.bytes().all(|b| b.is_ascii_graphic()) =>
        {
            path
        }
        _ => "/",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_stays_on_this_server() {
        assert_eq!(local_path(Some("/e/sdxl/?a=b")), "/e/sdxl/?a=b");
        for bad in [
            "",
            "//evil.example",
            "/\\evil.example",
            "https://evil.example",
            "e",
            "/a\r\nb",
            "/\t/evil",
        ] {
            assert_eq!(local_path(Some(bad)), "/", "{bad}");
        }
        assert_eq!(local_path(None), "/");
    }
}
