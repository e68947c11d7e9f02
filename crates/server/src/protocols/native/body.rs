//! Reading this protocol's bodies: JSON whatever its content type says, as ComfyUI does (`comfyui/behaviour.md` §2).

use axum::body::Body;
use http::HeaderMap;
use serde_json::Value;

use super::error::NativeError;
use crate::{
    beside::beside,
    http::read_body,
    memory::{BodyMemory, Held},
};

/// Largest body of a prompt, in bytes: a workflow with its metadata.
pub const MAX_PROMPT_BYTES: usize = 32 * 1024 * 1024;
/// Largest body of everything else here.
pub const MAX_SMALL_BYTES: usize = 1024 * 1024;

/// A body that was read.
pub struct Read {
    /// What it says.
    pub json: Value,
    /// How long it was, in bytes.
    pub size: usize,
    /// The memory for the work on it.
    pub held: Held,
}

/// A JSON body of at most `max_bytes`.
///
/// # Errors
/// When it is too large, breaks off, or is no JSON.
pub async fn read_json(
    headers: &HeaderMap,
    body: Body,
    max_bytes: usize,
    memory: &BodyMemory,
) -> Result<Read, NativeError> {
    let (body, held) = read_body(headers, body, max_bytes, memory).await?;
    let size = body.len();
    let parsed = beside(size, move || serde_json::from_slice(&body)).await;
    let json = parsed.map_err(|error: serde_json::Error| {
        NativeError::invalid("invalid_json", "The body is not JSON", error.to_string())
    })?;
    Ok(Read { json, size, held })
}

/// What a `POST` of `/queue` or `/history` wants: `{"clear": bool, "delete": [ids]}`.
#[derive(Debug, Default, PartialEq)]
pub struct Removal {
    /// Everything.
    pub clear: bool,
    /// These.
    pub delete: Vec<String>,
}

impl Removal {
    /// Ids that one request may name; the page names one at a time.
    const MOST: usize = 10_000;

    /// Reads one.
    ///
    /// # Errors
    /// When there is no body, or it is no such object.
    pub async fn read(headers: &HeaderMap, body: Body, memory: &BodyMemory) -> Result<Self, NativeError> {
        let read = read_json(headers, body, MAX_SMALL_BYTES, memory).await?;
        Removal::of(&read.json)
    }

    fn of(json: &Value) -> Result<Self, NativeError> {
        let wrong = |details: &str| {
            let message = "The body must be an object with `clear` or `delete`";
            Err(NativeError::invalid("invalid_request", message, details))
        };
        let Some(object) = json.as_object() else {
            return wrong("it is no object");
        };
        let clear = object.get("clear").is_some_and(truthy);
        let delete = match object.get("delete") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(ids)) if ids.len() > Removal::MOST => return wrong("delete: too many ids"),
            Some(Value::Array(ids)) => ids.iter().filter_map(id_text).collect(),
            Some(_) => return wrong("delete: not a list"),
        };
        Ok(Removal { clear, delete })
    }
}

/// What Python takes for true.
pub fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// An id as text, as ComfyUI makes one of a number.
pub fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn removals_are_read_leniently_and_wrong_ones_refused() {
        let read = |json: Value| Removal::of(&json);
        assert_eq!(read(json!({})).unwrap(), Removal::default());
        assert!(read(json!({"clear": 1})).unwrap().clear);
        assert!(!read(json!({"clear": false})).unwrap().clear);
        assert_eq!(
            read(json!({"delete": ["a", 7, null]})).unwrap().delete,
            ["a", "7"]
        );
        for wrong in [
            json!(null),
            json!([]),
            json!({"delete": "a"}),
            json!({"delete": {}}),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }
}
