//! JSON as Python writes it: bare `NaN`, `Infinity` and `-Infinity` are legal there.

use serde::de::DeserializeOwned;

/// Reads JSON; text that only fails because of Python's non-finite numbers is read with null in their place.
/// Without this, one NaN in a node's output would make a finished prompt unreadable for ever.
pub fn parse_lenient<T: DeserializeOwned>(text: &[u8]) -> Result<T, serde_json::Error> {
    match serde_json::from_slice(text) {
        Ok(value) => Ok(value),
        Err(error) => match without_non_finite(text) {
            Some(cleaned) => serde_json::from_slice(&cleaned),
            None => Err(error),
        },
    }
}

/// The text with non-finite numbers outside of strings replaced; `None` if it has none.
fn without_non_finite(text: &[u8]) -> Option<Vec<u8>> {
    const TOKENS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let mut out = Vec::with_capacity(text.len());
    let (mut in_string, mut replaced, mut at) = (false, false, 0);
    while let Some(&byte) = text.get(at) {
        if in_string {
            out.push(byte);
            if byte == b'\\' {
                out.extend(text.get(at + 1));
                at += 1;
            }
            in_string = byte != b'"';
            at += 1;
            continue;
        }
        if let Some(token) = TOKENS.iter().find(|token| text[at..].starts_with(token)) {
            out.extend_from_slice(b"null");
            at += token.len();
            replaced = true;
            continue;
        }
        in_string = byte == b'"';
        out.push(byte);
        at += 1;
    }
    replaced.then_some(out)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn non_finite_numbers_become_null_and_strings_stay() {
        let text = br#"{"a": NaN, "b": [-Infinity, Infinity, 1], "c": "NaN \" Infinity \\", "NaN": "x"}"#;
        let value: Value = parse_lenient(text).unwrap();
        assert_eq!(
            value,
            json!({"a": null, "b": [null, null, 1], "c": "NaN \" Infinity \\", "NaN": "x"})
        );
    }

    #[test]
    fn what_is_broken_stays_broken() {
        for text in ["", "{", "{\"a\": nan}", "\"NaN", "\"\\", "[1] x"] {
            assert!(parse_lenient::<Value>(text.as_bytes()).is_err(), "{text}");
        }
    }
}
