//! Cross-origin answers for the pages that `server.cors_origins` lists.
//!
//! `*` counts only for requests without a credential. Where keys exist, such a request only succeeds on an anonymous
//! endpoint; where none exist, foreign origins are refused by `auth`. So `*` opens anonymous endpoints and no more.

use std::sync::Arc;

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};

/// The listed origins.
#[derive(Debug, Clone, Default)]
pub struct Cors {
    origins: Arc<[String]>,
}

/// What a request gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Granted {
    /// No cross-origin headers.
    Nothing,
    /// This origin may read the answer.
    Origin(HeaderValue),
    /// Any page may read it, as long as no credential was sent.
    Anyone,
}

impl Cors {
    /// For these origins, in browsers' spelling.
    pub fn new(origins: &[String]) -> Self {
        Cors {
            origins: origins.into(),
        }
    }

    pub(super) fn grant(&self, headers: &HeaderMap) -> Granted {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Granted::Nothing;
        };
        if self
            .origins
            .iter()
            .any(|listed| listed.as_bytes() == origin.as_bytes())
        {
            return Granted::Origin(origin.clone());
        }
        let has_credential =
            headers.contains_key(header::AUTHORIZATION) || headers.contains_key(header::COOKIE);
        if !has_credential && self.origins.iter().any(|listed| listed == "*") {
            return Granted::Anyone;
        }
        Granted::Nothing
    }
}

impl Granted {
    /// The answer to a preflight; `None` when this is none, or nothing is granted.
    pub(super) fn preflight(&self, method: &Method, headers: &HeaderMap) -> Option<Response> {
        let asked_method = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        if method != Method::OPTIONS || *self == Granted::Nothing {
            return None;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        let answer = response.headers_mut();
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, asked_method.clone());
        if let Some(names) = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, self.allowed_headers(names));
        }
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
        self.apply(answer);
        Some(response)
    }

    /// Any header but, for everyone, the one that would carry a credential.
    fn allowed_headers(&self, asked: &HeaderValue) -> HeaderValue {
        match (self, asked.to_str()) {
            (Granted::Anyone, Ok(names)) => {
                let kept: Vec<&str> = names
                    .split(',')
                    .map(str::trim)
                    .filter(|name| !name.eq_ignore_ascii_case("authorization"))
                    .collect();
                HeaderValue::from_str(&kept.join(", ")).unwrap_or(HeaderValue::from_static(""))
            }
            (Granted::Anyone, Err(_)) => HeaderValue::from_static(""),
            (Granted::Origin(_) | Granted::Nothing, _) => asked.clone(),
        }
    }

    /// Marks an answer.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        let allowed = match self {
            Granted::Nothing => return,
            Granted::Origin(origin) => origin.clone(),
            Granted::Anyone => HeaderValue::from_static("*"),
        };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("*"),
        );
        headers.append(
            header::VARY,
            HeaderValue::from_name(HeaderName::from_static("origin")),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn listed_origins_are_granted_and_others_are_not() {
        let cors = Cors::new(&["https://app.example".to_owned()]);
        assert!(matches!(
            cors.grant(&headers(&[("origin", "https://app.example")])),
            Granted::Origin(_)
        ));
        assert_eq!(
            cors.grant(&headers(&[("origin", "https://app.example.evil")])),
            Granted::Nothing
        );
        assert_eq!(cors.grant(&headers(&[])), Granted::Nothing);
    }

    #[test]
    fn everyone_is_granted_only_without_a_credential() {
        let cors = Cors::new(&["*".to_owned()]);
        assert_eq!(
            cors.grant(&headers(&[("origin", "https://x.example")])),
            Granted::Anyone
        );
        for credential in ["authorization", "cookie"] {
            let request = headers(&[("origin", "https://x.example"), (credential, "x")]);
            assert_eq!(cors.grant(&request), Granted::Nothing);
        }
    }

    #[test]
    fn a_preflight_for_everyone_does_not_allow_authorization() {
        let request = headers(&[
            ("origin", "https://x.example"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "content-type, Authorization"),
        ]);
        let granted = Cors::new(&["*".to_owned()]).grant(&request);
        let response = granted.preflight(&Method::OPTIONS, &request).unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        assert_eq!(response.headers()["access-control-allow-headers"], "content-type");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        assert!(granted.preflight(&Method::POST, &request).is_none());
    }
}
