//! ComfyUI's `/object_info`: every node class with its inputs and outputs.
//!
//! Custom nodes put almost anything in here, so reading is tolerant: a field of an unexpected shape stays in
//! `extra` untouched, and writing an [`ObjectInfo`] gives back what was read, field by field.

mod parse;
mod spec;
mod union;

use indexmap::IndexMap;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

pub use self::parse::Error;
pub use self::spec::{InputKind, InputSpec};

/// All node classes of one ComfyUI, by class name, in its order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct ObjectInfo {
    pub classes: IndexMap<String, NodeClass>,
}

impl ObjectInfo {
    /// The class with this name.
    pub fn get(&self, class_type: &str) -> Option<&NodeClass> {
        self.classes.get(class_type)
    }
}

impl<'de> Deserialize<'de> for ObjectInfo {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::parse(value).map_err(serde::de::Error::custom)
    }
}

/// One node class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeClass {
    /// Section (`required`, `optional`, `hidden`) to input name to spec, in declared order.
    pub input: IndexMap<String, IndexMap<String, InputSpec>>,
    /// Section to input names, as ComfyUI lists them beside `input`.
    pub input_order: IndexMap<String, Vec<String>>,
    /// Output types: usually a name, a list of choices for an old-style combo output.
    pub output: Vec<Value>,
    pub output_is_list: Vec<bool>,
    pub output_name: Vec<String>,
    pub name: String,
    /// ComfyUI sends null for many classes; see [`NodeClass::title`].
    pub display_name: Option<String>,
    pub description: String,
    pub python_module: String,
    pub category: String,
    /// True for classes whose nodes are worth running for themselves (SaveImage).
    pub output_node: bool,
    /// Every other field, and known ones that had an unexpected shape.
    pub extra: Map<String, Value>,
}

impl NodeClass {
    /// The section name of inputs that must be present.
    pub const REQUIRED: &'static str = "required";
    /// The section name of inputs that may be left out.
    pub const OPTIONAL: &'static str = "optional";
    /// The section name of inputs that the server fills in (`PROMPT`, `UNIQUE_ID`).
    pub const HIDDEN: &'static str = "hidden";

    /// The inputs of one section, in declared order.
    pub fn section(&self, name: &str) -> impl Iterator<Item = (&str, &InputSpec)> {
        let section = self.input.get(name).into_iter().flatten();
        section.map(|(name, spec)| (name.as_str(), spec))
    }

    /// The inputs that a graph may set, required ones first, with whether each is required.
    pub fn inputs(&self) -> impl Iterator<Item = (&str, &InputSpec, bool)> {
        let required = self
            .section(Self::REQUIRED)
            .map(|(name, spec)| (name, spec, true));
        required.chain(
            self.section(Self::OPTIONAL)
                .map(|(name, spec)| (name, spec, false)),
        )
    }

    /// The spec of a required or optional input.
    pub fn input(&self, name: &str) -> Option<&InputSpec> {
        let section = |section: &str| self.input.get(section).and_then(|inputs| inputs.get(name));
        section(Self::REQUIRED).or_else(|| section(Self::OPTIONAL))
    }

    /// The name to show: the display name, or the class name where there is none.
    pub fn title(&self) -> &str {
        self.display_name.as_deref().unwrap_or(&self.name)
    }
}

impl Serialize for NodeClass {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        // A field that could not be typed sits in `extra` under its own name; that one is the truth.
        macro_rules! field {
            ($name:ident) => {
                if !self.extra.contains_key(stringify!($name)) {
                    map.serialize_entry(stringify!($name), &self.$name)?;
                }
            };
        }
        field!(input);
        field!(input_order);
        field!(output);
        field!(output_is_list);
        field!(output_name);
        field!(name);
        field!(display_name);
        field!(description);
        field!(python_module);
        field!(category);
        field!(output_node);
        for (key, value) in &self.extra {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
