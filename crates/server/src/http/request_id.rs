//! Every request has an id: the caller's own when it is a sane one, else a fresh UUID. It is in the log, in error
//! bodies, and in the response's `X-Request-Id`.

use std::{fmt, sync::Arc};

use darkroom_core::Ids;
use http::{Extensions, HeaderMap, HeaderName};

/// The header, both ways.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The id of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestId(Arc<str>);

impl RequestId {
    /// The caller's id if it sent a sane one, else a fresh one.
    pub fn choose(headers: &HeaderMap, ids: &dyn Ids) -> Self {
        match headers.get(X_REQUEST_ID).and_then(|value| value.to_str().ok()) {
            Some(text) if is_sane(text) => RequestId(text.into()),
            _ => RequestId(ids.uuid_v4().to_string().into()),
        }
    }

    /// The id that the outermost layer put there; `-` where that layer is missing (tests of one handler).
    pub fn of(extensions: &Extensions) -> Self {
        extensions
            .get::<RequestId>()
            .cloned()
            .unwrap_or_else(|| RequestId("-".into()))
    }

    /// As text: letters, digits and `-_.:` only.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Short, and nothing that could break a log line or a header.
fn is_sane(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
}

impl<S: Send + Sync> axum::extract::FromRequestParts<S> for RequestId {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(
        parts: &mut http::request::Parts,
        _: &S,
    ) -> Result<Self, std::convert::Infallible> {
        Ok(RequestId::of(&parts.extensions))
    }
}

#[cfg(test)]
mod tests {
    use darkroom_ambient::SystemIds;

    use super::*;

    #[test]
    fn only_sane_ids_are_taken_over() {
        let choose = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(X_REQUEST_ID, text.parse().unwrap());
            RequestId::choose(&headers, &SystemIds).to_string()
        };
        assert_eq!(choose("abc-1.2_3:4"), "abc-1.2_3:4");
        for bad in ["", "a b", "a\"b", &"x".repeat(129)] {
            assert_eq!(choose(bad).len(), 36, "{bad}");
        }
        assert_eq!(
            RequestId::choose(&HeaderMap::new(), &SystemIds).as_str().len(),
            36
        );
    }
}
