//! A published output: a name for what one node makes.

use serde::{Deserialize, Serialize};

/// How a file is shown in the answer of a protocol that has no shape of its own for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shape {
    /// `{"url": "…"}`.
    #[default]
    Object,
    /// The address alone.
    Url,
}

/// One published output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutputField {
    /// What callers call it.
    pub name: String,
    /// The node that makes it.
    pub node: String,
    /// Which list of what the node reports: `images`, `gifs`, `audio`, `text`, …
    pub kind: String,
    /// How a file is shown.
    #[serde(default)]
    pub shape: Shape,
    /// For people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// What a publisher says of an output.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutputWish {
    /// What callers will call it.
    pub name: String,
    /// The node: its id, its title, or its class where that occurs once.
    pub node: String,
    /// Which list of what the node reports; `images` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// How a file is shown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Shape>,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl From<OutputField> for OutputWish {
    fn from(output: OutputField) -> Self {
        OutputWish {
            name: output.name,
            node: output.node,
            kind: Some(output.kind),
            shape: Some(output.shape),
            description: Some(output.description),
        }
    }
}
