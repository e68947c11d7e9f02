//! One input's declaration: `["INT", {"min": 1}]`, `[["a", "b"], {}]`, or bare `"PROMPT"` for hidden ones.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};

/// What type an input has.
#[derive(Clone, Debug, PartialEq)]
pub enum InputKind {
    /// A type name: `INT`, `IMAGE`, `COMBO`, several joined by commas, or `*`.
    Named(String),
    /// An old-style combo: the list of choices stands in the type's place.
    Choices(Vec<Value>),
}

/// The declaration of one input.
#[derive(Clone, Debug, PartialEq)]
pub struct InputSpec {
    pub kind: InputKind,
    /// The second element; empty where there is none.
    pub options: Map<String, Value>,
    /// The declaration exactly as read, where it was not `[type, options]`.
    pub(super) raw: Option<Value>,
}

impl InputSpec {
    /// A declaration `[kind, options]`.
    pub fn new(kind: InputKind, options: Map<String, Value>) -> Self {
        Self {
            kind,
            options,
            raw: None,
        }
    }

    /// A declaration of a named type without options, as `["IMAGE", {}]`.
    pub fn named(type_name: impl Into<String>) -> Self {
        Self::new(InputKind::Named(type_name.into()), Map::new())
    }

    /// Reads any JSON; what is not a declaration at all becomes a type that accepts everything (`*`).
    pub fn parse(value: Value) -> Self {
        let (kind, options, canonical) = match &value {
            Value::Array(items) => {
                let kind = match items.first() {
                    Some(Value::String(name)) => InputKind::Named(name.clone()),
                    Some(Value::Array(choices)) => InputKind::Choices(choices.clone()),
                    _ => InputKind::Named("*".to_owned()),
                };
                let well_typed = matches!(items.first(), Some(Value::String(_) | Value::Array(_)));
                match items.get(1) {
                    Some(Value::Object(options)) => (kind, options.clone(), well_typed && items.len() == 2),
                    _ => (kind, Map::new(), false),
                }
            }
            Value::String(name) => (InputKind::Named(name.clone()), Map::new(), false),
            _ => (InputKind::Named("*".to_owned()), Map::new(), false),
        };
        Self {
            kind,
            options,
            raw: (!canonical).then_some(value),
        }
    }

    /// The type's name; `COMBO` for a list of choices.
    pub fn type_name(&self) -> &str {
        match &self.kind {
            InputKind::Named(name) => name,
            InputKind::Choices(_) => "COMBO",
        }
    }

    /// The values a combo offers; none for other types. A combo without a list (`remote`) offers nothing.
    pub fn choices(&self) -> Option<&[Value]> {
        match &self.kind {
            InputKind::Choices(choices) => Some(choices),
            InputKind::Named(name) if name == "COMBO" => Some(
                self.options
                    .get("options")
                    .and_then(Value::as_array)
                    .map_or(&[], Vec::as_slice),
            ),
            InputKind::Named(_) => None,
        }
    }

    /// The default value, if the class names one.
    pub fn default(&self) -> Option<&Value> {
        self.options.get("default")
    }

    /// The smallest allowed number.
    pub fn min(&self) -> Option<&Value> {
        self.options.get("min")
    }

    /// The largest allowed number.
    pub fn max(&self) -> Option<&Value> {
        self.options.get("max")
    }

    /// The step of the editor's widget; ComfyUI does not enforce it.
    pub fn step(&self) -> Option<&Value> {
        self.options.get("step")
    }

    /// True where the editor offers an upload button: the choices list files of the input directory.
    pub fn is_file_picker(&self) -> bool {
        [
            "image_upload",
            "audio_upload",
            "video_upload",
            "file_upload",
            "animated_image_upload",
        ]
        .iter()
        .any(|flag| self.options.get(*flag) == Some(&Value::Bool(true)))
    }

    /// The declaration as validation errors show it (`input_config`): always `[type, options]`.
    pub fn config(&self) -> Value {
        match &self.kind {
            InputKind::Named(name) => json!([name, self.options]),
            InputKind::Choices(choices) => json!([choices, self.options]),
        }
    }
}

impl Serialize for InputSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (&self.raw, &self.kind) {
            (Some(raw), _) => raw.serialize(serializer),
            (None, InputKind::Named(name)) => (name, &self.options).serialize(serializer),
            (None, InputKind::Choices(choices)) => (choices, &self.options).serialize(serializer),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_understood_and_written_back() {
        for (value, type_name, choices) in [
            (json!(["INT", {"min": 1, "max": 4}]), "INT", None),
            (json!(["IMAGE"]), "IMAGE", None),
            (json!("PROMPT"), "PROMPT", None),
            (json!([["a", 1]]), "COMBO", Some(2)),
            (json!([["a", "b"], {"default": "a"}]), "COMBO", Some(2)),
            (json!(["COMBO", {"options": ["x"]}]), "COMBO", Some(1)),
            (json!(["COMBO", {"remote": {}}]), "COMBO", Some(0)),
            (json!(["INT", {"min": 1}, "third"]), "INT", None),
            (json!([]), "*", None),
            (json!(null), "*", None),
            (json!([5, {}]), "*", None),
            (json!({"odd": true}), "*", None),
        ] {
            let spec = InputSpec::parse(value.clone());
            assert_eq!(spec.type_name(), type_name, "{value}");
            assert_eq!(spec.choices().map(<[_]>::len), choices, "{value}");
            assert_eq!(serde_json::to_value(&spec).unwrap(), value);
        }
        assert_eq!(InputSpec::parse(json!([["a"]])).config(), json!([["a"], {}]));
    }

    #[test]
    fn upload_flags_make_a_file_picker() {
        assert!(InputSpec::parse(json!([["a.png"], {"image_upload": true}])).is_file_picker());
        assert!(!InputSpec::parse(json!([["a.png"], {"image_upload": false}])).is_file_picker());
    }
}
