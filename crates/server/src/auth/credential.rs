//! What a request presents: a key in `Authorization`, or a session cookie. Never anything in the query, which ends
//! up in logs and histories.

use http::{HeaderMap, header};

/// The session cookie's name.
pub const SESSION_COOKIE: &str = "darkroom_session";

/// What was presented.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Presented<'a> {
    /// Nothing.
    Nothing,
    /// A key.
    Key(&'a str),
    /// The id of a session.
    Session(&'a str),
    /// Something that is no key of ours (another scheme, or not text).
    Unreadable,
}

/// Reads the credential. `Authorization` wins over the cookie: who sends one means it.
pub(super) fn presented(headers: &HeaderMap) -> Presented<'_> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let Ok(text) = value.to_str() else {
            return Presented::Unreadable;
        };
        return match text.trim().split_once(' ') {
            Some((scheme, key)) if scheme.eq_ignore_ascii_case("bearer") && !key.trim().contains(' ') => {
                match key.trim() {
                    "" => Presented::Unreadable,
                    key => Presented::Key(key),
                }
            }
            Some(_) => Presented::Unreadable,
            None if text.trim().is_empty() => Presented::Nothing,
            None => Presented::Key(text.trim()),
        };
    }
    for value in headers.get_all(header::COOKIE) {
        let Ok(text) = value.to_str() else { continue };
        for pair in text.split(';') {
            if let Some((name, id)) = pair.trim().split_once('=')
                && name == SESSION_COOKIE
                && !id.is_empty()
            {
                return Presented::Session(id);
            }
        }
    }
    Presented::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_with_or_without_bearer() {
        let read = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            headers.insert(header::COOKIE, "darkroom_session=abc".parse().unwrap());
            format!("{:?}", presented(&headers))
        };
        assert_eq!(read("Bearer sk"), "Key(\"sk\")");
        assert_eq!(read("bearer  sk "), "Key(\"sk\")");
        assert_eq!(read("sk"), "Key(\"sk\")");
        assert_eq!(read("Basic abc"), "Unreadable");
        assert_eq!(read("Bearer a b"), "Unreadable");
        assert_eq!(read("Bearer"), "Key(\"Bearer\")");
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        assert_eq!(presented(&headers), Presented::Nothing);
        headers.append(header::COOKIE, "a=1; darkroom_sessions=no".parse().unwrap());
        headers.append(header::COOKIE, "b=2; darkroom_session=xyz".parse().unwrap());
        assert_eq!(presented(&headers), Presented::Session("xyz"));
    }
}
