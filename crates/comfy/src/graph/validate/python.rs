//! The few rules of Python that show in ComfyUI's answers: `str()`, `repr()`, `==`, `int()`, `float()`, `bool()`.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::{Number, Value};

/// Python's `str(value)`.
pub(super) fn str_of(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => repr(other),
    }
}

/// Python's `repr(value)`.
pub(super) fn repr(value: &Value) -> String {
    let mut out = String::new();
    write_repr(value, &mut out);
    out
}

fn write_repr(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => out.push_str(&number_text(number)),
        Value::String(text) => write_quoted(text, out),
        Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_repr(item, out);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (index, (key, item)) in map.iter().enumerate() {
                out.push_str(if index == 0 { "" } else { ", " });
                write_quoted(key, out);
                out.push_str(": ");
                write_repr(item, out);
            }
            out.push('}');
        }
    }
}

/// Single quotes, or double ones where the text holds single and no double quotes.
fn write_quoted(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_ascii_control() => {
                write!(out, "\\x{:02x}", u32::from(c)).expect("writing to a String cannot fail");
            }
            c => out.push(c),
        }
    }
    out.push(quote);
}

/// A number as Python prints it: `64`, `0.5`, `1e+22`, `1e-05`.
fn number_text(number: &Number) -> String {
    match as_integer(number) {
        Some(integer) => integer.to_string(),
        None => float_text(number.as_f64().unwrap_or(f64::NAN)),
    }
}

/// Python's `repr(float)`: the shortest digits that read back equal, exponent form outside 1e-4..1e16.
fn float_text(value: f64) -> String {
    let scientific = format!("{value:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific.to_lowercase();
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..16).contains(&exponent) {
        let plain = format!("{value}");
        return if plain.contains('.') {
            plain
        } else {
            format!("{plain}.0")
        };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
}

/// The name of a value's Python type.
pub(super) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if as_integer(number).is_some() => "int",
        Value::Number(_) => "float",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// Python's truth of a value.
pub(super) fn truth(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// Python's `a == b`: numbers and booleans compare by value, so `1`, `1.0` and `True` are equal.
pub(super) fn equal(a: &Value, b: &Value) -> bool {
    match (numeric(a), numeric(b)) {
        (Some(a), Some(b)) => compare_numbers(&a, &b) == Some(Ordering::Equal),
        (None, None) => match (a, b) {
            (Value::Array(a), Value::Array(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| equal(a, b))
            }
            (Value::Object(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| equal(a, b)))
            }
            _ => a == b,
        },
        _ => false,
    }
}

/// `a` against `b` where both are numbers.
pub(super) fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    compare_numbers(&numeric(a)?, &numeric(b)?)
}

fn numeric(value: &Value) -> Option<Number> {
    match value {
        Value::Bool(value) => Some(Number::from(u8::from(*value))),
        Value::Number(number) => Some(number.clone()),
        _ => None,
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (as_integer(a), as_integer(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        _ => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn as_integer(number: &Number) -> Option<i128> {
    number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from))
}

/// Python's `int(value)`; the error is Python's message.
pub(super) fn int_of(value: &Value) -> Result<Value, String> {
    match value {
        Value::Bool(value) => Ok(Value::from(u8::from(*value))),
        Value::Number(number) => match as_integer(number) {
            Some(_) => Ok(value.clone()),
            None => integer_value(number.as_f64().unwrap_or(f64::NAN) as i128),
        },
        Value::String(text) => {
            let digits = without_underscores(text.trim());
            let digits = digits.filter(|digits| !digits.is_empty());
            match digits.map(|digits| digits.parse::<i128>()) {
                Some(Ok(integer)) => integer_value(integer),
                Some(Err(error)) if overflowed(&error) => Err(too_large()),
                _ => Err(format!("invalid literal for int() with base 10: {}", repr(value))),
            }
        }
        other => Err(format!(
            "int() argument must be a string, a bytes-like object or a real number, not '{}'",
            type_name(other)
        )),
    }
}

/// Python's integers have no bound; JSON numbers here have 64 bits, which is all that any node accepts.
fn integer_value(integer: i128) -> Result<Value, String> {
    let number = i64::try_from(integer).map(Number::from);
    let number = number.or_else(|_| u64::try_from(integer).map(Number::from));
    number.map(Value::Number).map_err(|_| too_large())
}

fn too_large() -> String {
    "the integer does not fit into 64 bits".to_owned()
}

fn overflowed(error: &std::num::ParseIntError) -> bool {
    use std::num::IntErrorKind::{NegOverflow, PosOverflow};
    matches!(error.kind(), PosOverflow | NegOverflow)
}

/// Python's `float(value)`; the error is Python's message. NaN and infinities are refused, because no JSON can
/// carry them on (ComfyUI would write a bare `NaN` into its answers).
pub(super) fn float_of(value: &Value) -> Result<Value, String> {
    let float = match value {
        Value::Bool(value) => f64::from(u8::from(*value)),
        Value::Number(number) => number.as_f64().unwrap_or(f64::NAN),
        Value::String(text) => without_underscores(text.trim())
            .and_then(|digits| digits.parse::<f64>().ok())
            .ok_or_else(|| format!("could not convert string to float: {}", repr(value)))?,
        other => {
            let found = type_name(other);
            return Err(format!(
                "float() argument must be a string or a real number, not '{found}'"
            ));
        }
    };
    let number = Number::from_f64(float).ok_or_else(|| "the number is not finite".to_owned())?;
    Ok(Value::Number(number))
}

/// Removes the underscores that Python allows between two digits; any other underscore is no number.
fn without_underscores(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let digit = |index: Option<usize>| {
        index
            .and_then(|index| bytes.get(index))
            .is_some_and(u8::is_ascii_digit)
    };
    let allowed = |(index, byte): (usize, &u8)| {
        *byte != b'_' || (digit(index.checked_sub(1)) && digit(index.checked_add(1)))
    };
    bytes
        .iter()
        .enumerate()
        .all(allowed)
        .then(|| text.replace('_', ""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_print_as_python_prints_them() {
        for (value, expected) in [
            (json!(null), "None"),
            (
                json!([true, false, 1, "a'b", "q\"", "a'\"", "n\n\\"]),
                r#"[True, False, 1, "a'b", 'q"', 'a\'"', 'n\n\\']"#,
            ),
            (json!({"a": [1.0]}), "{'a': [1.0]}"),
            (json!(1e22), "1e+22"),
            (json!(1e16), "1e+16"),
            (json!(1e15), "1000000000000000.0"),
            (json!(0.0001), "0.0001"),
            (json!(0.00001), "1e-05"),
            (json!(-1.5e-7), "-1.5e-07"),
            (json!(-0.0), "-0.0"),
            (json!(0.1), "0.1"),
            (json!(u64::MAX), "18446744073709551615"),
            (json!("Ünï"), "'Ünï'"),
            (json!("\u{1}"), "'\\x01'"),
        ] {
            assert_eq!(repr(&value), expected);
        }
        assert_eq!(str_of(&json!("a'b")), "a'b");
    }

    #[test]
    fn int_follows_python() {
        for (value, expected) in [
            (json!("64"), json!(64)),
            (json!(" -1_000 "), json!(-1000)),
            (json!("+7"), json!(7)),
            (json!(64.9), json!(64)),
            (json!(-64.9), json!(-64)),
            (json!(true), json!(1)),
            (json!(u64::MAX), json!(u64::MAX)),
            (json!("18446744073709551615"), json!(u64::MAX)),
        ] {
            assert_eq!(int_of(&value), Ok(expected), "{value}");
        }
        for bad in [
            json!(""),
            json!("_1"),
            json!("1__0"),
            json!("1_"),
            json!("6.5"),
            json!("0x1"),
            json!([]),
            json!({}),
            json!(null),
            json!(1e30),
            json!("99999999999999999999"),
            json!("9".repeat(80)),
        ] {
            assert!(int_of(&bad).is_err(), "{bad}");
        }
        assert_eq!(
            int_of(&json!("abc")).unwrap_err(),
            "invalid literal for int() with base 10: 'abc'"
        );
    }

    #[test]
    fn float_follows_python_and_refuses_what_json_cannot_carry() {
        for (value, expected) in [
            (json!(7), 7.0),
            (json!("1e5"), 1e5),
            (json!(" .5 "), 0.5),
            (json!("1_0.5"), 10.5),
            (json!(false), 0.0),
        ] {
            assert_eq!(float_of(&value), Ok(json!(expected)), "{value}");
        }
        for bad in [
            json!(""),
            json!("nan"),
            json!("inf"),
            json!("1e999"),
            json!("x"),
            json!(null),
            json!([1]),
        ] {
            assert!(float_of(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn equality_and_truth_follow_python() {
        assert!(equal(&json!(1), &json!(1.0)) && equal(&json!(true), &json!(1)));
        assert!(equal(&json!([1, {"a": false}]), &json!([1.0, {"a": 0}])));
        assert!(!equal(&json!("1"), &json!(1)) && !equal(&json!(null), &json!(0)));
        assert!(!equal(&json!(u64::MAX), &json!(u64::MAX - 1)));
        let truths = [
            json!("False"),
            json!(0.5),
            json!([0]),
            json!({"a": 0}),
            json!(true),
        ];
        assert!(truths.iter().all(truth));
        let falsehoods = [
            json!(""),
            json!(0),
            json!(0.0),
            json!([]),
            json!({}),
            json!(null),
            json!(false),
        ];
        assert!(!falsehoods.iter().any(truth));
    }
}
