//! `PUT ?_indexes_=`: work that is done, or with `_negative_` work that could not be done.

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};

use super::{DONE, call::EasCall, error::EasError};
use crate::{http::read_body, service::queues::OpenQueue, state::AppState};

/// Largest body of a negative commit: a code and a reason, in bytes.
const MAX_BODY_BYTES: usize = 64 * 1024;
/// The code of a consumer that leaves: its item was not tried.
const SHUTDOWN: &str = "Shutdown";
const MAX_CODE_CHARS: usize = 20;

/// Commits.
pub async fn commit(
    state: &AppState,
    queue: &OpenQueue,
    call: &EasCall,
    request: Request,
) -> Result<Response, EasError> {
    let indexes = call.query.indexes()?;
    let negative = call.query.flag("_negative_");
    let (parts, body) = request.into_parts();
    let (body, _memory) = read_body(&parts.headers, body, MAX_BODY_BYTES, &state.service.memory).await?;
    let service = &state.service;
    if !negative {
        service.commit_items(queue, &call.gid, indexes).await?;
        return Ok(DONE.into_response());
    }
    let field = |name: &str| {
        let mut pairs = url::form_urlencoded::parse(&body);
        let given = pairs
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned());
        given.or_else(|| call.query.get(name).map(str::to_owned))
    };
    let code = field("_code_").unwrap_or_default();
    if !is_code(&code) {
        return Err(EasError::invalid(
            "bad code: use words like Shutdown or Io.Timeout, or digits, of at most 20 characters",
        ));
    }
    let counts = code != SHUTDOWN;
    service.refuse_items(queue, &call.gid, indexes, counts).await?;
    Ok(DONE.into_response())
}

/// `^([A-Z][a-z]*)+(.[A-Z][a-z]*)?$` or digits, of at most 20 characters; none at all is let through.
fn is_code(code: &str) -> bool {
    let is_word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_uppercase()) && word.chars().all(|c| c.is_ascii_alphabetic())
    };
    let has_one_hump = |word: &str| is_word(word) && word[1..].chars().all(|c| c.is_ascii_lowercase());
    let is_words = match code.split_once('.') {
        None => is_word(code),
        Some((first, second)) => is_word(first) && has_one_hump(second),
    };
    code.chars().count() <= MAX_CODE_CHARS
        && (code.is_empty() || is_words || code.chars().all(|c| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_words_or_digits() {
        for good in ["", "Shutdown", "OutOfMemory", "Io.Timeout", "500", "A"] {
            assert!(is_code(good), "{good}");
        }
        for bad in [
            "shutdown",
            "Out of",
            "A.b",
            "A.BC",
            "1a",
            "A.",
            ".A",
            "Aaaaaaaaaaaaaaaaaaaaa",
            "É",
        ] {
            assert!(!is_code(bad), "{bad}");
        }
    }
}
