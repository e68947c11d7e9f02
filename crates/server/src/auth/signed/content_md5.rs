//! The digest of a body, and what an HTTP library may have made of the body since it was taken.

use base64::{Engine, engine::general_purpose::STANDARD};
use md5::{Digest, Md5};

use super::BodyDigest;

/// Whether the body is the one that the header tells of.
pub(super) fn fits(body: &[u8], header: &str, how: BodyDigest) -> bool {
    let is = |bytes: &[u8]| STANDARD.encode(Md5::digest(bytes)) == header;
    is(body) || how == BodyDigest::Tolerant && is(&normalised(body))
}

/// JSON as it was signed: without blanks outside of strings, and with `\uXXXX` from U+007F on as the character itself.
/// Nothing else is touched, so a body that was changed still does not fit.
fn normalised(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len());
    let mut in_string = false;
    let mut at = 0;
    while let Some(&byte) = body.get(at) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => at += 1,
            b'"' => {
                in_string = !in_string;
                out.push(byte);
                at += 1;
            }
            b'\\' if in_string => match escaped(&body[at..]) {
                Some((character, length)) => {
                    let mut buffer = [0; 4];
                    out.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes());
                    at += length;
                }
                None => {
                    // `\"` must not end the string: both bytes at once.
                    let end = (at + 2).min(body.len());
                    out.extend_from_slice(&body[at..end]);
                    at = end;
                }
            },
            _ => {
                out.push(byte);
                at += 1;
            }
        }
    }
    out
}

/// The character of an escape at the beginning of `text`, from U+007F on, and how long the escape is.
fn escaped(text: &[u8]) -> Option<(char, usize)> {
    let first = unit(text)?;
    if (0xd800..0xdc00).contains(&first) {
        let second = unit(text.get(6..)?).filter(|second| (0xdc00..0xe000).contains(second))?;
        let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
        return Some((char::from_u32(code)?, 12));
    }
    Some((char::from_u32(first).filter(|c| u32::from(*c) >= 0x7f)?, 6))
}

/// `\uXXXX`.
fn unit(text: &[u8]) -> Option<u32> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(body: &str) -> String {
        String::from_utf8(normalised(body.as_bytes())).unwrap()
    }

    #[test]
    fn blanks_and_escapes_are_what_a_library_changes() {
        assert_eq!(
            text(r#"{"a": [1, 2], "b c": "d e"}"#),
            r#"{"a":[1,2],"b c":"d e"}"#
        );
        assert_eq!(
            text("{\"t\": \"\\u4e00\\u5e45\\ud83d\\ude00\\u2028\"}"),
            "{\"t\":\"一幅😀\u{2028}\"}"
        );
        // Below U+007F both write escapes; a lone surrogate is no character.
        for same in [
            r#"{"a":"\u0000\n\"\\ x"}"#,
            r#"{"a":"\ud83d"}"#,
            r#"{"a":"\u12"}"#,
            r#"{"a":"\\u4e00"}"#,
            "\"\\",
        ] {
            assert_eq!(text(same), same);
        }
    }

    #[test]
    fn a_changed_body_does_not_fit_however_it_is_written() {
        let signed = STANDARD.encode(Md5::digest(r#"{"text":"一"}"#));
        let sent = r#"{"text": "\u4e00"}"#;
        assert!(fits(sent.as_bytes(), &signed, BodyDigest::Tolerant));
        assert!(!fits(sent.as_bytes(), &signed, BodyDigest::Strict));
        for changed in [
            r#"{"text": "\u4e01"}"#,
            r#"{"text": "\u4e00 "}"#,
            r#"{"text":"一","a":1}"#,
            "",
        ] {
            assert!(
                !fits(changed.as_bytes(), &signed, BodyDigest::Tolerant),
                "{changed}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_and_what_is_normal_stays(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let once = normalised(&bytes);
            prop_assert!(once.len() <= bytes.len());
        }

        /// What Python's `json.dumps` writes with blanks and ASCII alone is the same body.
        #[test]
        fn the_two_ways_of_writing_a_text_are_one(text in "\\PC{0,20}") {
            let plain = serde_json::to_string(&serde_json::json!({"k": text})).unwrap();
            let mut ascii = String::new();
            for unit in plain.replacen("\":", "\": ", 1).encode_utf16() {
                match u8::try_from(unit) {
                    Ok(byte) if byte < 0x7f => ascii.push(char::from(byte)),
                    _ => ascii += &format!("\\u{unit:04x}"),
                }
            }
            prop_assert_eq!(normalised(ascii.as_bytes()), plain.into_bytes());
        }
    }
}
