//! Reading bodies of our own API: bounded, and parsed beside the runtime where they are large.

use axum::body::Body;
use http::{HeaderMap, header};
use serde::de::DeserializeOwned;

use super::{MAX_BODY_BYTES, call::Call, error::ApiError};
use crate::{
    beside::beside,
    http::{BodyError, read_body},
    memory::{BodyMemory, Held},
    service::Error,
};

/// A body that was read.
pub struct Read<T> {
    /// What it says.
    pub parsed: T,
    /// How long it was, in bytes.
    pub size: usize,
    /// The memory for the work on it.
    pub held: Held,
}

/// A JSON body.
///
/// # Errors
/// When it is too large, breaks off, or is no JSON of this shape.
pub async fn read_json<T>(
    call: &Call,
    memory: &BodyMemory,
    headers: &HeaderMap,
    body: Body,
) -> Result<Read<T>, ApiError>
where
    T: DeserializeOwned + Send + 'static,
{
    if !is_json(headers) {
        return Err(call.fail(Error::Invalid(
            "the body must be `Content-Type: application/json`".into(),
        )));
    }
    let (body, held) = read_body(headers, body, MAX_BODY_BYTES, memory)
        .await
        .map_err(|e| call.fail(refusal(e)))?;
    let size = body.len();
    let parsed = beside(size, move || serde_json::from_slice(&body)).await;
    match parsed {
        Ok(parsed) => Ok(Read { parsed, size, held }),
        Err(error) => Err(call.fail(Error::Invalid(format!("the body cannot be read: {error}")))),
    }
}

/// A page of another origin cannot send this type without asking first.
fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let kind = kind.and_then(|v| v.split(';').next()).unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/json")
        || kind.starts_with("application/") && kind.ends_with("+json")
}

/// Why a body was not read, as an error of this API.
pub fn refusal(error: BodyError) -> Error {
    match error {
        BodyError::TooLarge { max_bytes } => Error::TooLarge {
            what: "the body",
            limit_bytes: max_bytes as u64,
        },
        BodyError::Broken | BodyError::Slow => Error::Invalid(error.to_string()),
        BodyError::Exhausted(exhausted) => exhausted.into(),
    }
}
