//! What workers post: JSON whatever the content type says, as Python writes it, so that `NaN` and `Infinity` may stand
//! where JSON has no numbers; they become `null` (`protocols/async-endpoints.md` §4.2).

use bytes::Bytes;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};

/// Longer errors than this, in bytes, are not taken apart.
const VALUE_BYTES: usize = 64 << 10;

/// What was posted.
#[derive(Debug)]
pub enum Said {
    /// `{"status": "IN_PROGRESS", "output": …}`
    Progress(Box<RawValue>),
    /// Anything else.
    Result {
        /// JSON text of the output, verbatim.
        output: Option<Bytes>,
        /// What Python calls true.
        error: Option<Value>,
        /// `refresh_worker`.
        stop_pod: bool,
    },
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    output: Option<&'a RawValue>,
    // As they stand: a large body of brackets would take many times its size as values.
    #[serde(borrow, default)]
    error: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
    #[serde(borrow, default, rename = "stopPod")]
    stop_pod: Option<&'a RawValue>,
}

/// A `null` that is there is an output.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

/// Reads a body.
///
/// # Errors
/// When it is no object, or not JSON even so.
pub fn read(body: &Bytes) -> Result<Said, serde_json::Error> {
    match parse(body) {
        Err(error) if error.is_syntax() => match without_nan(body) {
            Some(cleaned) => parse(&cleaned),
            None => Err(error),
        },
        parsed => parsed,
    }
}

fn parse(body: &Bytes) -> Result<Said, serde_json::Error> {
    // A list would be read as the values of the keys.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(serde::de::Error::custom("expected an object"));
    }
    let said: Body<'_> = serde_json::from_slice(body)?;
    if said
        .status
        .is_some_and(|status| status.get() == "\"IN_PROGRESS\"")
    {
        let output = said.output.map(ToOwned::to_owned);
        return Ok(Said::Progress(output.unwrap_or_else(|| {
            RawValue::from_string("null".to_owned()).expect("null is JSON")
        })));
    }
    Ok(Said::Result {
        output: said.output.map(|output| body.slice_ref(output.get().as_bytes())),
        error: said.error.filter(|error| is_true(error)).map(kept),
        stop_pod: said.stop_pod.is_some_and(is_true),
    })
}

/// As Python sees it: an error that is empty is none.
fn is_true(value: &RawValue) -> bool {
    let text = value.get();
    let inside = || text.get(1..text.len() - 1).unwrap_or_default();
    match text.as_bytes().first() {
        Some(b'n' | b'f') | None => false,
        Some(b't') => true,
        Some(b'"') => !inside().is_empty(),
        Some(b'[' | b'{') => !inside().trim_ascii().is_empty(),
        Some(_) => text.parse::<f64>() != Ok(0.0),
    }
}

/// An error as a value, where it is not so large that its text does: that is cut later, and says how long it was.
fn kept(error: &RawValue) -> Value {
    let text = error.get();
    let value = match text.len() <= VALUE_BYTES || text.starts_with('"') {
        true => serde_json::from_str(text).ok(),
        false => None,
    };
    value.unwrap_or_else(|| Value::from(text))
}

/// The body with `null` for each number that is none; `None` when there is no such.
fn without_nan(body: &[u8]) -> Option<Bytes> {
    const NAMES: [&[u8]; 3] = [b"NaN", b"-Infinity", b"Infinity"];
    let mut cleaned: Vec<u8> = Vec::new();
    let (mut at, mut kept_to, mut in_text) = (0, 0, false);
    while at < body.len() {
        match body[at] {
            b'\\' if in_text => at += 1,
            b'"' => in_text = !in_text,
            b'N' | b'I' | b'-' if !in_text => {
                if let Some(name) = NAMES.iter().find(|name| body[at..].starts_with(name)) {
                    cleaned.extend_from_slice(&body[kept_to..at]);
                    cleaned.extend_from_slice(b"null");
                    at += name.len();
                    kept_to = at;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if kept_to == 0 {
        return None;
    }
    cleaned.extend_from_slice(&body[kept_to..]);
    Some(cleaned.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(body: &str) -> (Option<String>, Option<Value>, bool) {
        match read(&Bytes::copy_from_slice(body.as_bytes())).unwrap() {
            Said::Result {
                output,
                error,
                stop_pod,
            } => {
                let output = output.map(|o| String::from_utf8(o.to_vec()).unwrap());
                (output, error, stop_pod)
            }
            Said::Progress(_) => panic!("{body} is a result"),
        }
    }

    #[test]
    fn every_result_of_the_captures_is_understood() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            result(r#"{"output": {"zh": "你好"}}"#),
            (some(r#"{"zh": "你好"}"#), None, false)
        );
        assert_eq!(result(r#"{"output": null}"#), (some("null"), None, false));
        assert_eq!(result("{}"), (None, None, false));
        assert_eq!(result(r#"{"error": ""}"#), (None, None, false));
        assert_eq!(result(r#"{"error": "x"}"#), (None, Some("x".into()), false));
        assert_eq!(
            result(r#"{"output": {"images": ["a"]}, "error": "partial"}"#),
            (some(r#"{"images": ["a"]}"#), Some("partial".into()), false)
        );
        assert_eq!(
            result(r#"{"error": {"code":7}}"#),
            (None, Some(serde_json::json!({"code": 7})), false)
        );
        assert_eq!(
            result(r#"{"output": {"a": 1}, "stopPod": true}"#),
            (some(r#"{"a": 1}"#), None, true)
        );
        assert_eq!(
            result(r#"{"output": {"status": "IN_PROGRESS", "x": 1}}"#).0,
            some(r#"{"status": "IN_PROGRESS", "x": 1}"#)
        );
    }

    #[test]
    fn numbers_that_are_none_become_null_and_texts_stay() {
        let (output, ..) =
            result(r#"{"output": {"v": NaN, "t": "NaN \" Infinity", "w": [-Infinity, Infinity, -1.5]}}"#);
        assert_eq!(
            output.unwrap(),
            r#"{"v": null, "t": "NaN \" Infinity", "w": [null, null, -1.5]}"#
        );
        for bad in ["NaNa", "{\"output\": Nan}", "[1]", "\"x", "", "{\"output\": \"\\"] {
            assert!(read(&Bytes::copy_from_slice(bad.as_bytes())).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_python_calls_false_is_no_error_and_a_large_one_stays_a_text() {
        for nothing in ["null", "false", "0", "0.0", "-0", "\"\"", "[ ]", "{\n}"] {
            let said = result(&format!("{{\"error\": {nothing}, \"stopPod\": {nothing}}}"));
            assert_eq!(said, (None, None, false), "{nothing}");
        }
        for something in ["true", "1", "0.5", "\" \"", "[[]]", "{\"\": 0}"] {
            let (_, error, stop_pod) =
                result(&format!("{{\"error\": {something}, \"stopPod\": {something}}}"));
            assert!(error.is_some() && stop_pod, "{something}");
        }
        let brackets = format!("[{}[]]", "[],".repeat(100_000));
        let (_, error, _) = result(&format!("{{\"error\": {brackets}}}"));
        assert_eq!(error.unwrap(), Value::from(brackets));
    }

    #[test]
    fn intermediate_output_is_told_from_results() {
        let read = read(&Bytes::from_static(
            br#"{"status": "IN_PROGRESS", "output": "50%"}"#,
        ))
        .unwrap();
        assert!(matches!(read, Said::Progress(output) if output.get() == "\"50%\""));
    }
}
