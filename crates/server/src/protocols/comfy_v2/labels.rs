//! Labels: what a program notes with its jobs to find them again (`protocols/comfy-v2.md` §2.2).

use std::collections::BTreeMap;

use serde_json::Value;

use super::error::ApiError;

/// Labels of one job at most.
const MOST: usize = 16;
const MOST_KEY_CHARS: usize = 40;
const MOST_VALUE_BYTES: usize = 256;
const CODE: &str = "metadata_invalid";

/// The labels of a submit.
///
/// # Errors
/// `metadata_invalid`, which names the key that is wrong.
pub fn read(metadata: Option<Value>) -> Result<BTreeMap<String, String>, ApiError> {
    let pairs = match metadata {
        None | Some(Value::Null) => return Ok(BTreeMap::new()),
        Some(Value::Object(pairs)) => pairs,
        Some(_) => {
            return Err(ApiError::unprocessable(
                CODE,
                "metadata must be an object of texts",
            ));
        }
    };
    if pairs.len() > MOST {
        let message = format!("metadata has {} labels; at most {MOST} are kept", pairs.len());
        return Err(ApiError::unprocessable(CODE, message));
    }
    let label = |(key, value): (String, Value)| {
        let wrong = |why: &str| {
            let key: String = key.chars().take(80).collect();
            ApiError::unprocessable(CODE, format!("metadata '{key}': {why}"))
        };
        check_key(&key).map_err(wrong)?;
        let Value::String(text) = value else {
            return Err(wrong("the value must be a text"));
        };
        check_value(&text).map_err(wrong)?;
        Ok((key, text))
    };
    pairs.into_iter().map(label).collect()
}

/// Whether a label may have this key.
///
/// # Errors
/// What is wrong with it.
pub fn check_key(key: &str) -> Result<(), &'static str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    match (1..=MOST_KEY_CHARS).contains(&key.len()) && key.bytes().all(plain) {
        true => Ok(()),
        false => Err("a key is 1 to 40 letters, digits, '_', '-' and '.'"),
    }
}

/// Whether a label may have this value.
///
/// # Errors
/// What is wrong with it.
pub fn check_value(value: &str) -> Result<(), &'static str> {
    // Besides control characters: those that change the direction of the text around them.
    let unseen = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if value.len() > MOST_VALUE_BYTES {
        Err("the value is longer than 256 bytes")
    } else if value.contains(unseen) {
        Err("the value has control characters")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_kept_within_the_official_limits() {
        let fine = json!({"client": "acme", "run.id-7_x": "", &"k".repeat(40): "é".repeat(128)});
        assert_eq!(read(Some(fine)).unwrap().len(), 3);
        assert!(read(Some(json!({}))).unwrap().is_empty() && read(None).unwrap().is_empty());
        let many: serde_json::Map<String, Value> = (0..17).map(|n| (format!("k{n}"), json!("v"))).collect();
        for wrong in [
            json!("text"),
            json!([]),
            json!(many),
            json!({"": "v"}),
            json!({"run id": "v"}),
            json!({&"k".repeat(41): "v"}),
            json!({"ké": "v"}),
            json!({"k": 1}),
            json!({"k": null}),
            json!({"k": "x".repeat(257)}),
            json!({"k": "a\nb"}),
            json!({"k": "\u{85}"}),
            json!({"k": "\u{202e}"}),
            json!({"k": "\u{2069}"}),
        ] {
            assert!(read(Some(wrong.clone())).is_err(), "{wrong}");
        }
    }
}
