//! ComfyUI's defence against other web sites: on a loopback `Host`, an `Origin` must name the same host.

use axum::{
    extract::Request,
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, header, uri::Authority};

/// Refuses cross-site requests; answers every `OPTIONS` itself.
pub async fn check(request: Request, next: Next) -> Response {
    if is_cross_site(request.headers()) {
        return StatusCode::FORBIDDEN.into_response();
    }
    if request.method() == Method::OPTIONS {
        return StatusCode::OK.into_response();
    }
    next.run(request).await
}

fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name| {
        headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_lowercase)
    };
    let (Some(host), Some(origin)) = (text(header::HOST), text(header::ORIGIN)) else {
        return false;
    };
    let Ok(host) = host.parse::<Authority>() else {
        return false;
    };
    if !is_loopback(host.host()) {
        return false;
    }
    let Some((_, origin)) = origin.split_once("://") else {
        // "null": a sandboxed page or a file. The original finds no host in it and lets it pass; we do not.
        return true;
    };
    let Ok(origin) = origin.parse::<Authority>() else {
        return true;
    };
    // A port that one of the two leaves out is not compared.
    let same_port = match (host.port_u16(), origin.port_u16()) {
        (Some(a), Some(b)) => a == b,
        _ => true,
    };
    host.host() != origin.host() || !same_port
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_sites_on_a_loopback_host_are_refused() {
        for (host, origin, refused) in [
            ("127.0.0.1:8188", "http://evil.example", true),
            ("127.0.0.1:8188", "http://127.0.0.1:8188", false),
            ("127.0.0.1:8188", "http://127.0.0.1:9999", true),
            ("localhost", "http://localhost:8188", false),
            ("localhost:8188", "http://127.0.0.1:8188", true),
            ("[::1]:8188", "http://evil.example", true),
            ("127.0.0.1:8188", "null", true),
            ("gpu.example", "http://evil.example", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            headers.insert(header::ORIGIN, origin.parse().unwrap());
            assert_eq!(is_cross_site(&headers), refused, "{host} {origin}");
        }
        assert!(!is_cross_site(&HeaderMap::new()));
    }
}
