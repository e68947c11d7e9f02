//! Reading this protocol's JSON bodies, whatever their content type says.

use axum::body::Body;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::error::ApiError;
use crate::{
    beside::beside,
    http::read_body,
    memory::{BodyMemory, Held},
};

/// A body that was read: always an object.
pub struct Read {
    /// What it says.
    pub json: Map<String, Value>,
    /// How long it was, in bytes.
    pub size: usize,
    /// The memory for the work on it.
    pub held: Held,
}

/// A JSON object of at most `max_bytes`.
///
/// # Errors
/// When it is too large, breaks off, or is no JSON object.
pub async fn read_json(
    headers: &HeaderMap,
    body: Body,
    max_bytes: usize,
    memory: &BodyMemory,
) -> Result<Read, ApiError> {
    let (body, held) = read_body(headers, body, max_bytes, memory).await?;
    let size = body.len();
    let parsed = beside(size, move || serde_json::from_slice(&body)).await;
    match parsed {
        Ok(Value::Object(json)) => Ok(Read { json, size, held }),
        Ok(_) => Err(ApiError::invalid("the body must be a JSON object")),
        Err(error) => Err(ApiError::invalid(format!("the body is not JSON: {error}"))),
    }
}
