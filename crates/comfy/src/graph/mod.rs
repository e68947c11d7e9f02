//! ComfyUI's API-format graph: node id to `{class_type, inputs, _meta}`. The editor's own format becomes one in [`convert`].
//!
//! A [`Graph`] keeps everything the client sent, in its order, so that what we store, hash and send on is what
//! the client wrote: unknown keys, key order and integers up to 64 bits survive a round trip.

pub mod convert;
mod files;
mod needs;
mod order;
mod parse;
pub mod validate;
mod value;

use std::borrow::Borrow;
use std::fmt;

use indexmap::IndexMap;
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

pub use self::files::{Directory, FileInput, is_file_input, split_annotation};
pub use self::needs::{needs, offers};
pub use self::order::Cycle;
pub use self::parse::{DEFAULT_MAX_NODES, ParseError};
pub use self::value::{InputValue, Link};

/// The id of a node inside one graph: free text, usually a number (`"3"`, `"2.0.0.1"` for expanded nodes).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(String);

impl NodeId {
    /// Takes any text as a node id.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The id as an owned string.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for NodeId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for NodeId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl From<&str> for NodeId {
    fn from(id: &str) -> Self {
        Self(id.to_owned())
    }
}

impl From<String> for NodeId {
    fn from(id: String) -> Self {
        Self(id)
    }
}

/// A graph in API format. Nodes are in the order of the JSON text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    pub nodes: IndexMap<NodeId, Node>,
}

impl Graph {
    /// The node with this id.
    pub fn get(&self, id: &str) -> Option<&Node> {
        self.nodes.get(id)
    }

    /// The graph as JSON, equal to what was parsed.
    pub fn to_value(&self) -> Value {
        let nodes = self
            .nodes
            .iter()
            .map(|(id, node)| (id.0.clone(), node.to_value()));
        Value::Object(nodes.collect())
    }
}

impl Serialize for Graph {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(&self.nodes)
    }
}

impl<'de> Deserialize<'de> for Graph {
    /// Parses with [`DEFAULT_MAX_NODES`].
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::parse(&value).map_err(serde::de::Error::custom)
    }
}

/// One node of a graph.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub class_type: String,
    /// Input name to a link `["id", slot]` or a literal; see [`InputValue::classify`].
    pub inputs: IndexMap<String, Value>,
    /// `_meta`: the editor's own notes, such as the title. Never read by ComfyUI's execution.
    pub meta: Option<Value>,
    /// Every other key (`is_changed` and whatever the future brings).
    pub extra: Map<String, Value>,
    /// The keys in the order the client wrote them; empty for a node made in code.
    key_order: Vec<Box<str>>,
}

impl Node {
    /// A node without inputs.
    pub fn new(class_type: impl Into<String>) -> Self {
        Self {
            class_type: class_type.into(),
            ..Self::default()
        }
    }

    /// The same node with one more input.
    #[must_use]
    pub fn with_input(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.inputs.insert(name.into(), value.into());
        self
    }

    /// The title that the editor gave the node, if any (`_meta.title`).
    pub fn title(&self) -> Option<&str> {
        self.meta.as_ref()?.get("title")?.as_str()
    }

    /// The well-formed links among the inputs, in order, with the input's name.
    pub fn links(&self) -> impl Iterator<Item = (&str, Link<'_>)> {
        self.inputs
            .iter()
            .filter_map(|(name, value)| match InputValue::classify(value) {
                InputValue::Link(link) => Some((name.as_str(), link)),
                InputValue::BadLink(_) | InputValue::Literal(_) => None,
            })
    }

    /// The node as JSON.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        self.each_key(|key, part| {
            let value = match part {
                NodePart::ClassType => Value::from(self.class_type.as_str()),
                NodePart::Inputs => {
                    Value::Object(self.inputs.iter().map(|(k, v)| (k.clone(), v.clone())).collect())
                }
                NodePart::Raw(value) => value.clone(),
            };
            map.insert(key.to_owned(), value);
        });
        Value::Object(map)
    }

    /// Calls `visit` for every key the node has: first in the client's order, then what was added since.
    fn each_key<'a>(&'a self, mut visit: impl FnMut(&'a str, NodePart<'a>)) {
        let part = |key: &str| match key {
            parse::CLASS_TYPE => Some(NodePart::ClassType),
            parse::INPUTS => Some(NodePart::Inputs),
            parse::META => self.meta.as_ref().map(NodePart::Raw),
            other => self.extra.get(other).map(NodePart::Raw),
        };
        for key in &self.key_order {
            if let Some(part) = part(key) {
                visit(key, part);
            }
        }
        let own = [parse::CLASS_TYPE, parse::INPUTS, parse::META];
        for key in own.into_iter().chain(self.extra.keys().map(String::as_str)) {
            let written = self.key_order.iter().any(|known| **known == *key);
            if let (false, Some(part)) = (written, part(key)) {
                visit(key, part);
            }
        }
    }
}

enum NodePart<'a> {
    ClassType,
    Inputs,
    Raw(&'a Value),
}

impl PartialEq for Node {
    /// Key order inside a node is kept for the reader of the JSON and is no part of its meaning.
    fn eq(&self, other: &Self) -> bool {
        self.class_type == other.class_type
            && self.inputs == other.inputs
            && self.meta == other.meta
            && self.extra == other.extra
    }
}

impl Serialize for Node {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        let mut failed = None;
        self.each_key(|key, part| {
            if failed.is_none() {
                failed = match part {
                    NodePart::ClassType => map.serialize_entry(key, &self.class_type),
                    NodePart::Inputs => map.serialize_entry(key, &self.inputs),
                    NodePart::Raw(value) => map.serialize_entry(key, value),
                }
                .err();
            }
        });
        match failed {
            Some(error) => Err(error),
            None => map.end(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_keys_order_and_large_integers_survive_a_round_trip_as_text() {
        let text = r#"{"9":{"inputs":{"seed":18446744073709551615,"b":-9223372036854775808,"images":["1",0]},"zz":{"k":[1]},"class_type":"KSampler","_meta":{"title":"x"}},"1":{"class_type":"A","inputs":{"f":7.0}}}"#;
        let graph = Graph::parse(&serde_json::from_str(text).unwrap()).unwrap();
        assert_eq!(serde_json::to_string(&graph).unwrap(), text);
        assert_eq!(serde_json::to_string(&graph.to_value()).unwrap(), text);
        let again: Graph = serde_json::from_str(text).unwrap();
        assert_eq!(again, graph);
    }

    #[test]
    fn a_node_made_in_code_is_written_in_the_usual_order() {
        let mut node = Node::new("EmptyImage").with_input("width", 64);
        node.extra.insert("is_changed".into(), json!(["abc"]));
        assert_eq!(
            serde_json::to_string(&node).unwrap(),
            r#"{"class_type":"EmptyImage","inputs":{"width":64},"is_changed":["abc"]}"#
        );
    }

    #[test]
    fn links_lists_only_well_formed_links() {
        let node = Node::new("X")
            .with_input("a", json!(["1", 2]))
            .with_input("b", json!([1, 0]))
            .with_input("c", json!("text"));
        let links: Vec<_> = node
            .links()
            .map(|(name, link)| (name, link.node, link.slot))
            .collect();
        assert_eq!(links, [("a", "1", 2)]);
    }
}
