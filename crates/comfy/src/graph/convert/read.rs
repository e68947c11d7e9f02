//! Reading the editor's format: one node, one link.

use serde_json::Value;

/// What the editor does with a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Active,
    /// Left out, with what it would have made.
    Muted,
    /// Left out; what came in goes on.
    Bypassed,
}

/// A node of the editor.
#[derive(Clone, Debug)]
pub(super) struct UiNode {
    pub id: String,
    /// A class, a type of the page, or the id of a subgraph.
    pub kind: String,
    pub mode: Mode,
    pub title: Option<String>,
    /// Its place in the order in which the editor runs nodes.
    pub order: i64,
    pub inputs: Vec<UiInput>,
    /// A list, or an object by name (some custom nodes).
    pub widgets_values: Value,
}

/// An input socket.
#[derive(Clone, Debug)]
pub(super) struct UiInput {
    name: String,
    pub kind: String,
    pub link: Option<i64>,
    /// The widget that the socket stands for.
    pub widget: Option<String>,
}

impl UiInput {
    /// The name of the input that it feeds.
    pub(super) fn target(&self) -> &str {
        self.widget.as_deref().unwrap_or(&self.name)
    }
}

/// A link's beginning: a node and one of its outputs.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub node: String,
    pub slot: usize,
}

/// A link: where it begins and where it ends.
#[derive(Clone, Debug)]
pub(super) struct UiLink {
    pub id: i64,
    pub origin: Origin,
    pub target: String,
    pub target_slot: usize,
}

pub(super) fn node(value: &Value) -> Option<UiNode> {
    let inputs = value["inputs"].as_array().into_iter().flatten();
    Some(UiNode {
        id: id_text(&value["id"])?,
        kind: value["type"].as_str()?.to_owned(),
        mode: match value["mode"].as_i64() {
            Some(2) => Mode::Muted,
            Some(4) => Mode::Bypassed,
            _ => Mode::Active,
        },
        title: value["title"].as_str().map(str::to_owned),
        order: value["order"].as_i64().unwrap_or(i64::MAX),
        inputs: inputs.filter_map(input).collect(),
        widgets_values: value["widgets_values"].clone(),
    })
}

fn input(value: &Value) -> Option<UiInput> {
    Some(UiInput {
        name: value["name"].as_str()?.to_owned(),
        kind: type_text(&value["type"]),
        link: value["link"].as_i64(),
        widget: value["widget"]["name"].as_str().map(str::to_owned),
    })
}

/// `[id, origin, origin slot, target, target slot, type]`, or the same as an object (within subgraphs).
pub(super) fn link(value: &Value) -> Option<UiLink> {
    let part = |at: usize, key: &str| match value {
        Value::Array(_) => value.get(at),
        _ => value.get(key),
    };
    let slot = |value: &Value| usize::try_from(value.as_i64()?).ok();
    Some(UiLink {
        id: part(0, "id")?.as_i64()?,
        origin: Origin {
            node: id_text(part(1, "origin_id")?)?,
            slot: slot(part(2, "origin_slot")?)?,
        },
        target: id_text(part(3, "target_id")?)?,
        target_slot: slot(part(4, "target_slot")?)?,
    })
}

pub(super) fn id_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// A socket's type; a combo's list of choices counts as `COMBO`.
fn type_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(_) => "COMBO".to_owned(),
        _ => "*".to_owned(),
    }
}
