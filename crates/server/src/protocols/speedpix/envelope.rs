//! The envelope of every answer, with each key of it and of its data in both spellings: dataclass-wizard 1 reads only
//! `task_id`, the Java SDK only `taskId` (`protocols/speedpix.md` §0.1). What a workflow made is the user's and stays as it is.

use serde_json::{Map, Value, json};

use crate::http::RequestId;

/// All went well.
pub const OK: u8 = 10;
/// Something did not.
pub const FAILED: u8 = 20;

/// What went wrong, in the two layers of the vendor's answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words {
    /// The kind.
    pub code: &'static str,
    /// What it means.
    pub message: &'static str,
    /// What exactly.
    pub sub_code: String,
    /// In words for whoever called.
    pub sub_message: String,
}

/// An answer.
pub fn envelope(status: u8, words: Option<&Words>, data: Value, request_id: &RequestId) -> Value {
    let text = |of: fn(&Words) -> &str| words.map_or(Value::Null, |words| Value::from(of(words)));
    both(json!({
        "status": status,
        "apiInvokeId": request_id.as_str(),
        "errCode": text(|w| w.code),
        "errMessage": text(|w| w.message),
        "subErrCode": text(|w| &w.sub_code),
        "subErrMessage": text(|w| &w.sub_message),
        "data": both(data),
    }))
}

/// Every key of an object, and beside each one in camel case the same in snake case.
fn both(value: Value) -> Value {
    let Value::Object(map) = value else { return value };
    let mut doubled = Map::new();
    for (key, value) in map {
        let snake = snake(&key);
        if snake != key {
            doubled.insert(snake, value.clone());
        }
        doubled.insert(key, value);
    }
    Value::Object(doubled)
}

fn snake(camel: &str) -> String {
    let mut text = String::with_capacity(camel.len() + 4);
    for c in camel.chars() {
        if c.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(c.to_ascii_lowercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    #[test]
    fn envelope_and_data_are_doubled_and_the_result_is_left_alone() {
        let id = RequestId::choose(&HeaderMap::new(), &darkroom_ambient::SystemIds);
        let data = json!({"taskId": "t", "etaRelative": 3, "result": {"deepCamel": {"aB": 1}}});
        let answer = envelope(OK, None, data, &id);
        assert_eq!(
            (&answer["apiInvokeId"], &answer["api_invoke_id"]),
            (&json!(id.as_str()), &json!(id.as_str()))
        );
        // Null, not an empty text: Java takes that for an error.
        for key in ["errCode", "err_code", "subErrCode", "sub_err_code"] {
            assert_eq!(answer[key], Value::Null, "{key}");
        }
        let data = &answer["data"];
        assert_eq!((&data["taskId"], &data["task_id"]), (&json!("t"), &json!("t")));
        assert_eq!(data["eta_relative"], 3);
        assert_eq!(data["result"], json!({"deepCamel": {"aB": 1}}));
        assert_eq!(
            snake("estimatedDurationInSeconds"),
            "estimated_duration_in_seconds"
        );
    }
}
