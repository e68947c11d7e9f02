//! A published input: a name for one input of one node, with what may be written there.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::object_info::InputSpec;

/// What an input takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// One of some values.
    Choice,
    /// An image file.
    Image,
    /// A sound file.
    Audio,
    /// A film.
    Video,
    /// Another file.
    File,
    /// Whatever the node makes of it.
    Any,
}

impl Kind {
    /// Whether it takes a file: an address, a data URI, base64, or the name of an upload.
    pub fn is_file(self) -> bool {
        match self {
            Kind::Image | Kind::Audio | Kind::Video | Kind::File => true,
            Kind::String | Kind::Integer | Kind::Number | Kind::Boolean | Kind::Choice | Kind::Any => false,
        }
    }

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Number => "number",
            Kind::Boolean => "boolean",
            Kind::Choice => "choice",
            Kind::Image => "image",
            Kind::Audio => "audio",
            Kind::Video => "video",
            Kind::File => "file",
            Kind::Any => "any",
        }
    }

    /// As a node class declares it; `None` for what only a link brings (`MODEL`, `IMAGE`).
    pub(super) fn declared(class: &str, field: &str, spec: &InputSpec) -> Option<Kind> {
        let flag = |name: &str| spec.options.get(name) == Some(&Value::Bool(true));
        let kind = if flag("image_upload") || flag("animated_image_upload") {
            Kind::Image
        } else if flag("audio_upload") {
            Kind::Audio
        } else if flag("video_upload") {
            Kind::Video
        } else if flag("file_upload") {
            Kind::File
        } else if let Some(kind) = Kind::of_loader(class, field) {
            kind
        } else if spec.choices().is_some() {
            // A list that is fetched from elsewhere offers nothing here.
            match spec.choices() {
                Some([]) | None => Kind::String,
                Some(_) => Kind::Choice,
            }
        } else {
            match spec.type_name() {
                "INT" => Kind::Integer,
                "FLOAT" => Kind::Number,
                "STRING" => Kind::String,
                "BOOLEAN" => Kind::Boolean,
                _ => return None,
            }
        };
        Some(kind)
    }

    /// Loaders that are known by name, where no class says it.
    pub(super) fn of_loader(class: &str, field: &str) -> Option<Kind> {
        match (class, field) {
            ("LoadImage" | "LoadImageMask" | "LoadImageOutput", "image") => Some(Kind::Image),
            ("LoadAudio", "audio") => Some(Kind::Audio),
            ("LoadVideo", "file") | ("VHS_LoadVideo", "video") => Some(Kind::Video),
            ("LoadLatent", "latent") => Some(Kind::File),
            _ => None,
        }
    }

    /// As a stored value looks, where nothing is known of the class.
    pub(super) fn of_value(value: &Value) -> Kind {
        match value {
            Value::String(_) => Kind::String,
            Value::Bool(_) => Kind::Boolean,
            Value::Number(number) if number.is_f64() => Kind::Number,
            Value::Number(_) => Kind::Integer,
            Value::Null | Value::Array(_) | Value::Object(_) => Kind::Any,
        }
    }
}

/// One published input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// What callers call it.
    pub name: String,
    /// The node.
    pub node: String,
    /// The node's input.
    pub field: String,
    /// What it takes.
    #[serde(rename = "type")]
    pub kind: Kind,
    /// What stands there if a caller says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Smallest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Value>,
    /// Largest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Value>,
    /// The values to choose from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<Value>>,
    /// A call without it is refused.
    #[serde(default)]
    pub required: bool,
    /// It is a seed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seed: bool,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// What a publisher says of an input; what is left out comes from the node's class.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputWish {
    /// What callers will call it.
    pub name: String,
    /// The node: its id, its title, or its class where that occurs once.
    pub node: String,
    /// The node's input.
    pub field: String,
    /// What it takes.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    /// What stands there if a caller says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<Value>,
    /// Smallest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<Value>,
    /// Largest number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Value>,
    /// The values to choose from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub choices: Option<Vec<Value>>,
    /// A call without it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Bounds and choices come from another server, or from before: they count as far as the node has them here.
    #[serde(skip)]
    pub as_far_as_here: bool,
}

impl From<Input> for InputWish {
    /// As a later publish of the same input would say it.
    fn from(input: Input) -> Self {
        InputWish {
            name: input.name,
            node: input.node,
            field: input.field,
            kind: Some(input.kind),
            default: input.default,
            min: input.min,
            max: input.max,
            choices: input.choices,
            required: Some(input.required),
            description: Some(input.description),
            as_far_as_here: false,
        }
    }
}

/// An input of the graph that holds a seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedField {
    /// The node.
    pub node: String,
    /// Its input.
    pub field: String,
    /// Smallest.
    pub min: u64,
    /// Largest.
    pub max: u64,
}

impl SeedField {
    /// Largest seed that every JSON reader keeps whole, also JavaScript's.
    pub const MAX: u64 = (1 << 53) - 1;

    /// What is known of an input that may hold a seed; `None`: it holds none.
    pub(super) fn of(node: &str, field: &str, value: &Value, spec: Option<&InputSpec>) -> Option<Self> {
        let is_seed = matches!(field, "seed" | "noise_seed")
            || spec
                .is_some_and(|spec| spec.options.get("control_after_generate") == Some(&Value::Bool(true)));
        if !is_seed
            || !(value.is_i64() || value.is_u64())
            || spec.is_some_and(|spec| spec.type_name() != "INT")
        {
            return None;
        }
        let bound = |of: Option<&Value>| of.and_then(Value::as_u64);
        let min = bound(spec.and_then(InputSpec::min)).unwrap_or(0);
        let max = bound(spec.and_then(InputSpec::max)).unwrap_or(u64::MAX);
        Some(SeedField {
            node: node.to_owned(),
            field: field.to_owned(),
            min: min.min(Self::MAX),
            max: max.clamp(min.min(Self::MAX), Self::MAX),
        })
    }

    /// The seed that random bits choose.
    pub fn chosen(&self, bits: u64) -> u64 {
        match self.max.saturating_sub(self.min).checked_add(1) {
            Some(span) => self.min + bits % span,
            None => bits,
        }
    }
}

/// The inputs of a node of a graph in API format.
pub(super) fn inputs_of<'a>(graph: &'a mut Value, node: &str) -> Option<&'a mut Map<String, Value>> {
    graph.get_mut(node)?.get_mut("inputs")?.as_object_mut()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn kinds_come_from_the_class_or_from_the_value() {
        let of = |spec: Value| Kind::declared("X", "y", &InputSpec::parse(spec));
        for (spec, kind) in [
            (json!(["INT", {}]), Some(Kind::Integer)),
            (json!(["FLOAT", {}]), Some(Kind::Number)),
            (json!(["STRING", {"multiline": true}]), Some(Kind::String)),
            (json!(["BOOLEAN"]), Some(Kind::Boolean)),
            (json!([["a", "b"]]), Some(Kind::Choice)),
            (json!(["COMBO", {"remote": {}}]), Some(Kind::String)),
            (json!([["a.png"], {"image_upload": true}]), Some(Kind::Image)),
            (json!([["a.wav"], {"audio_upload": true}]), Some(Kind::Audio)),
            (json!(["MODEL", {}]), None),
        ] {
            assert_eq!(of(spec.clone()), kind, "{spec}");
        }
        assert_eq!(Kind::of_value(&json!(1)), Kind::Integer);
        assert_eq!(Kind::of_value(&json!(1.0)), Kind::Number);
        assert_eq!(Kind::of_value(&json!(["1", 0])), Kind::Any);
    }

    #[test]
    fn a_seed_stays_within_its_node_and_within_what_json_keeps() {
        let spec = InputSpec::parse(json!(["INT", {"min": 5, "max": 18_446_744_073_709_551_615_u64}]));
        let field = SeedField::of("3", "noise_seed", &json!(1), Some(&spec)).unwrap();
        assert_eq!((field.min, field.max), (5, SeedField::MAX));
        assert_eq!(field.chosen(0), 5);
        assert!(field.chosen(u64::MAX) <= SeedField::MAX);
        assert_eq!(SeedField::of("3", "seed", &json!(["1", 0]), Some(&spec)), None);
        assert_eq!(SeedField::of("3", "steps", &json!(1), Some(&spec)), None);
        let one = SeedField {
            min: 7,
            max: 7,
            ..field
        };
        assert_eq!(one.chosen(u64::MAX), 7);
    }
}
