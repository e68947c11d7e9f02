//! The body of `run` and `runsync`: `{"input": …}` with the documented options, which are checked; any other key is
//! ignored (`protocols/async-endpoints.md` §2, §2.4).

use bytes::Bytes;
use darkroom_core::worker::Wishes;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, value::RawValue};

use crate::protocols::async_endpoints::error::AsyncError;

/// An input nested deeper is refused: Python's own reader gives up at about a thousand, and the worker with it.
const MAX_DEPTH: usize = 500;

/// What was sent.
#[derive(Debug)]
pub struct Submission {
    /// The JSON text of the input.
    pub input: Bytes,
    /// The options of `policy`.
    pub wishes: Wishes,
    /// Where to tell of the end.
    pub webhook: Option<String>,
    /// A bucket for the worker.
    pub s3_config: Option<Map<String, Value>>,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    input: Option<&'a RawValue>,
    #[serde(default)]
    policy: Option<Policy>,
    #[serde(default)]
    webhook: Option<String>,
    #[serde(default, rename = "s3Config")]
    s3_config: Option<Map<String, Value>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Policy {
    execution_timeout: Option<u64>,
    ttl: Option<u64>,
    low_priority: Option<bool>,
}

/// A `null` that is there is an input.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

impl Submission {
    /// Reads a body.
    ///
    /// # Errors
    /// 400, naming what is wrong.
    pub fn read(body: &Bytes) -> Result<Self, AsyncError> {
        let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
        if first.is_some_and(|byte| *byte != b'{') {
            // Also because serde would take a list for the object's values.
            let whole: Result<&RawValue, _> = serde_json::from_slice(body);
            return Err(match whole {
                Ok(_) => AsyncError::invalid("the body must be a JSON object with the key input"),
                Err(error) => not_json(&error),
            });
        }
        let read: Body<'_> = serde_json::from_slice(body).map_err(|e| not_json(&e))?;
        let input = read
            .input
            .ok_or_else(|| AsyncError::invalid("the key input is missing"))?;
        if depth(input.get()) > MAX_DEPTH {
            return Err(AsyncError::invalid(format!(
                "input is nested deeper than {MAX_DEPTH} levels"
            )));
        }
        let policy = read.policy.unwrap_or_default();
        let wishes = Wishes {
            execution_timeout_ms: policy.execution_timeout,
            ttl_ms: policy.ttl,
            low_priority: policy.low_priority.unwrap_or(false),
            sync: false,
            kept_ms: None,
        };
        wishes.check().map_err(|e| AsyncError::invalid(e.to_string()))?;
        Ok(Submission {
            input: body.slice_ref(input.get().as_bytes()),
            wishes,
            webhook: read.webhook.filter(|address| !address.is_empty()),
            s3_config: read.s3_config,
        })
    }
}

fn not_json(error: &serde_json::Error) -> AsyncError {
    use serde_json::error::Category;
    match error.classify() {
        Category::Data => AsyncError::invalid(format!("the body does not fit: {error}")),
        Category::Io | Category::Syntax | Category::Eof => {
            AsyncError::invalid(format!("the body is not JSON: {error}"))
        }
    }
}

/// How deep lists and objects stand in each other, in valid JSON.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match (in_text, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => in_text = !in_text,
            (false, b'[' | b'{') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Submission, AsyncError> {
        Submission::read(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn any_json_is_an_input_and_is_kept_as_it_was_written() {
        for input in [
            "{}",
            "null",
            "\"\\u82f9\"",
            "[1, 2.50]",
            "true",
            "{\"self\": 1e400}",
        ] {
            let submission = read(&format!("{{ \"input\" : {input}, \"other\": [1]}}")).unwrap();
            assert_eq!(submission.input, input.as_bytes());
        }
    }

    #[test]
    fn options_are_read_and_checked() {
        let text = r#"{"input": {"p": 1}, "webhook": "http://h/", "policy": {"executionTimeout": 60000, "ttl": 86400000,
            "lowPriority": true}, "s3Config": {"accessId": "a"}}"#;
        let submission = read(text).unwrap();
        assert_eq!(submission.wishes.execution_timeout_ms, Some(60_000));
        assert_eq!(submission.wishes.ttl_ms, Some(86_400_000));
        assert!(submission.wishes.low_priority);
        assert_eq!(submission.webhook.as_deref(), Some("http://h/"));
        assert_eq!(submission.s3_config.unwrap()["accessId"], "a");
        let without = read(r#"{"input": 1, "policy": null, "webhook": "", "s3Config": null}"#).unwrap();
        assert_eq!((without.webhook, without.s3_config), (None, None));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let deep = format!("{{\"input\": {}{}}}", "[".repeat(600), "]".repeat(600));
        for bad in [
            "",
            "nonsense",
            "[]",
            "[1]",
            "3",
            "{}",
            "{\"input\":",
            "{\"input\": 1, \"input\": 2}",
            "{\"input\": NaN}",
            "{\"input\": 1} x",
            "{\"input\": 1, \"policy\": 5}",
            "{\"input\": 1, \"policy\": {\"ttl\": \"1\"}}",
            "{\"input\": 1, \"policy\": {\"ttl\": -1}}",
            "{\"input\": 1, \"policy\": {\"ttl\": 9999}}",
            "{\"input\": 1, \"policy\": {\"executionTimeout\": 4999}}",
            "{\"input\": 1, \"policy\": {\"lowPriority\": 1}}",
            "{\"input\": 1, \"webhook\": 7}",
            "{\"input\": 1, \"s3Config\": \"x\"}",
            &deep,
        ] {
            assert!(read(bad).is_err(), "{bad:.60}");
        }
        assert!(Submission::read(&Bytes::from_static(b"{\"input\": \"\xff\"}")).is_err());
        assert_eq!(depth("{\"a\": [\"[[[\", \"\\\"[\"]}"), 2);
    }
}
