//! Whether a value is one that an input takes.

use std::cmp::Ordering;

use serde_json::Value;

use super::{
    bind::{Problem, ProblemKind},
    input::{Input, Kind},
    number::{compare, whole},
};
use crate::graph::validate::nearest;

/// Values shown in one message.
const SHOWN: usize = 8;
/// Characters of one value that are shown.
const SHOWN_CHARS: usize = 80;

/// The value as it goes into the graph.
///
/// # Errors
/// What is wrong with it, in plain words.
pub(super) fn check(input: &Input, value: &Value) -> Result<Value, Problem> {
    let wrong = |wanted: &str| {
        let message = format!("{} is {}; {wanted} is wanted", shown(value), name_of(value));
        Problem::new(ProblemKind::WrongType, input, message)
    };
    match input.kind {
        Kind::String => match value {
            Value::String(_) => Ok(value.clone()),
            _ => Err(wrong("a text")),
        },
        Kind::Boolean => match value {
            Value::Bool(_) => Ok(value.clone()),
            _ => Err(wrong("true or false")),
        },
        Kind::Integer => {
            let number = value.is_number().then(|| whole(value)).flatten();
            let number = number.ok_or_else(|| wrong("a whole number"))?;
            in_range(input, value)?;
            // `7.0` is meant as 7, and a node may want it so.
            Ok(match (i64::try_from(number), u64::try_from(number)) {
                (Ok(number), _) => Value::from(number),
                (_, Ok(number)) => Value::from(number),
                _ => value.clone(),
            })
        }
        Kind::Number => match value {
            Value::Number(_) => in_range(input, value).map(|()| value.clone()),
            _ => Err(wrong("a number")),
        },
        Kind::Choice => match &input.choices {
            Some(choices) if !choices.iter().any(|choice| same(choice, value)) => {
                Err(no_choice(input, choices, value))
            }
            _ if value.is_array() || value.is_object() => Err(wrong("one of the choices")),
            _ => Ok(value.clone()),
        },
        Kind::Image | Kind::Audio | Kind::Video | Kind::File => match value {
            Value::String(text) if text.is_empty() => Err(Problem::new(
                ProblemKind::BadFile,
                input,
                "the file is an empty text".to_owned(),
            )),
            Value::String(text) if is_local_path(text) => {
                let message = format!(
                    "'{}' is a path on the caller's own machine, which the server cannot read (does the file exist there?): \
                     give an address, a data URI, or upload the file first",
                    brief(text)
                );
                Err(Problem::new(ProblemKind::LocalPath, input, message))
            }
            Value::String(_) => Ok(value.clone()),
            _ => Err(wrong("a file (an address, a data URI, or the name of an upload)")),
        },
        // A bare list would be read as a link.
        Kind::Any => Ok(match value {
            Value::Array(_) => serde_json::json!({ "__value__": value }),
            _ => value.clone(),
        }),
    }
}

/// What names a file on the machine of the caller, as clients take it (`protocols/speedpix.md` §7).
pub fn is_local_path(text: &str) -> bool {
    let drive =
        text.as_bytes().first().is_some_and(u8::is_ascii_alphabetic) && text.as_bytes().get(1) == Some(&b':');
    let file = text
        .get(..5)
        .is_some_and(|head| head.eq_ignore_ascii_case("file:"));
    // Base64 may begin with a slash; a JPEG's does.
    let rooted = text.starts_with('/') && text.len() <= 4096 && (text.contains('.') || text.len() < 64);
    drive
        || file
        || rooted
        || ["./", "../", "~", ".\\", "..\\", "\\"]
            .iter()
            .any(|head| text.starts_with(head))
}

fn in_range(input: &Input, value: &Value) -> Result<(), Problem> {
    let beyond = |bound: &Option<Value>, order: Ordering| {
        bound
            .as_ref()
            .is_some_and(|bound| compare(value, bound) == Some(order))
    };
    let refused = |than: &str, bound: &Option<Value>| {
        let bound = bound.as_ref().map(ToString::to_string).unwrap_or_default();
        let message = format!("{value} is {than} than {bound}");
        Problem::new(ProblemKind::OutOfRange, input, message)
    };
    if beyond(&input.min, Ordering::Less) {
        return Err(refused("smaller", &input.min));
    }
    if beyond(&input.max, Ordering::Greater) {
        return Err(refused("larger", &input.max));
    }
    Ok(())
}

fn same(a: &Value, b: &Value) -> bool {
    a == b || compare(a, b) == Some(Ordering::Equal)
}

fn no_choice(input: &Input, choices: &[Value], value: &Value) -> Problem {
    let near = match value.as_str() {
        Some(text) => nearest(text, choices.iter().filter_map(Value::as_str), 100),
        None => Vec::new(),
    };
    let some: Vec<String> = choices.iter().take(SHOWN).map(shown).collect();
    let more = match choices.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let meant = match near.is_empty() {
        true => String::new(),
        false => format!(" (did you mean {}?)", near.join(", ")),
    };
    let message = format!("{} is not one of {}{more}{meant}", shown(value), some.join(", "));
    Problem::new(ProblemKind::NotAChoice, input, message)
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => format!("'{}'", brief(text)),
        other => brief(&other.to_string()),
    }
}

fn brief(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn input(kind: Kind) -> Input {
        Input {
            name: "it".to_owned(),
            node: "1".to_owned(),
            field: "f".to_owned(),
            kind,
            default: None,
            min: Some(json!(1)),
            max: Some(json!(8)),
            choices: Some(vec![json!("euler"), json!("dpmpp"), json!(2)]),
            required: false,
            seed: false,
            description: String::new(),
        }
    }

    #[test]
    fn values_of_each_kind_are_taken_or_refused_in_plain_words() {
        for (kind, value, taken) in [
            (Kind::String, json!("x"), Ok(json!("x"))),
            (Kind::String, json!(1), Err("1 is a number; a text is wanted")),
            (Kind::Integer, json!(7.0), Ok(json!(7))),
            (Kind::Integer, json!(7.5), Err("a whole number is wanted")),
            (
                Kind::Integer,
                json!("7"),
                Err("'7' is a text; a whole number is wanted"),
            ),
            (Kind::Integer, json!(9), Err("9 is larger than 8")),
            (Kind::Number, json!(0.5), Err("0.5 is smaller than 1")),
            (Kind::Number, json!(1.5), Ok(json!(1.5))),
            (Kind::Boolean, json!(true), Ok(json!(true))),
            (Kind::Boolean, json!("true"), Err("true or false is wanted")),
            (Kind::Choice, json!("euler"), Ok(json!("euler"))),
            (Kind::Choice, json!(2.0), Ok(json!(2.0))),
            (Kind::Choice, json!("eular"), Err("did you mean euler?")),
            (
                Kind::Image,
                json!("https://x/a.png"),
                Ok(json!("https://x/a.png")),
            ),
            (
                Kind::Image,
                json!("./nope.jpg"),
                Err("a path on the caller's own machine"),
            ),
            (Kind::Image, json!(3), Err("a file")),
            (Kind::Image, json!(""), Err("empty")),
            (Kind::Any, json!([1]), Ok(json!({"__value__": [1]}))),
        ] {
            let done = check(&input(kind), &value);
            match taken {
                Ok(taken) => assert_eq!(done.unwrap(), taken, "{kind:?} {value}"),
                Err(part) => {
                    let message = done.unwrap_err().message;
                    assert!(message.contains(part), "{kind:?} {value}: {message}");
                }
            }
        }
    }

    #[test]
    fn paths_of_the_callers_machine_are_known_from_names_and_from_base64() {
        for path in [
            "/home/me/a.png",
            "./a",
            "../a",
            "~/a",
            "C:\\a.png",
            "c:/a",
            "file:///a",
            "/tmp/x",
        ] {
            assert!(is_local_path(path), "{path}");
        }
        let jpeg = format!("/9j/{}", "A".repeat(100));
        for other in [
            "a.png",
            "https://x/a",
            "data:image/png;base64,AA==",
            "clipspace/a.png",
            &jpeg,
        ] {
            assert!(!is_local_path(other), "{other}");
        }
    }
}
