//! What an input's JSON value means: a link to another node's output, or a literal.

use serde_json::Value;

/// Key of the wrapper that makes a list a literal: `{"__value__": [..]}`.
const WRAPPER: &str = "__value__";

/// A reference to one output of another node, `["node id", slot]` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link<'a> {
    pub node: &'a str,
    pub slot: usize,
}

/// The meaning of one input value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum InputValue<'a> {
    Link(Link<'a>),
    /// A list that is not `[text, non-negative integer]`. ComfyUI takes every bare list for a link, so this is
    /// always an error of the graph.
    BadLink(&'a [Value]),
    /// Anything else, with the `__value__` wrapper already taken off.
    Literal(&'a Value),
}

impl<'a> InputValue<'a> {
    /// Tells links from literals as ComfyUI does (its `validate_inputs` and `get_input_data`).
    pub fn classify(value: &'a Value) -> Self {
        match value {
            Value::Array(items) => match items.as_slice() {
                [Value::String(node), Value::Number(slot)] => {
                    match slot.as_u64().and_then(|slot| usize::try_from(slot).ok()) {
                        Some(slot) => Self::Link(Link { node, slot }),
                        None => Self::BadLink(items),
                    }
                }
                _ => Self::BadLink(items),
            },
            Value::Object(map) => Self::Literal(map.get(WRAPPER).unwrap_or(value)),
            _ => Self::Literal(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_are_links_and_wrapped_lists_are_literals() {
        assert_eq!(
            InputValue::classify(&json!(["7", 1])),
            InputValue::Link(Link { node: "7", slot: 1 })
        );
        let inner = json!(["a", 1]);
        let wrapped = json!({ "__value__": inner });
        assert_eq!(InputValue::classify(&wrapped), InputValue::Literal(&inner));
        let object = json!({"x": 1});
        assert_eq!(InputValue::classify(&object), InputValue::Literal(&object));
        for bad in [
            json!([]),
            json!(["1"]),
            json!([1, 0]),
            json!(["1", -1]),
            json!(["1", 0.0]),
            json!(["1", 0, 3]),
        ] {
            assert!(
                matches!(InputValue::classify(&bad), InputValue::BadLink(_)),
                "{bad}"
            );
        }
    }
}
