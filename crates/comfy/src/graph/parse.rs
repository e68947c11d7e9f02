//! JSON to [`Graph`], with an error that names the node.

use serde_json::{Map, Value};

use super::{Graph, Node, NodeId};

/// A graph of real work has tens to a few hundred nodes; this leaves two orders of magnitude and still bounds
/// what one request can make the validator and the progress messages (which grow with the graph) cost.
pub const DEFAULT_MAX_NODES: usize = 20_000;

pub(super) const CLASS_TYPE: &str = "class_type";
pub(super) const INPUTS: &str = "inputs";
pub(super) const META: &str = "_meta";

/// Why some JSON is not a graph in API format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("the graph must be a JSON object of nodes in API format, not {found}")]
    NotAnObject { found: &'static str },
    #[error(
        "this is a graph in the editor's own format (it has `nodes` and `links`); export it with \
         \"Export (API)\" and send that"
    )]
    UiFormat,
    #[error("the graph has {nodes} nodes, more than the limit of {limit}")]
    TooManyNodes { nodes: usize, limit: usize },
    #[error("node '{node}' must be an object with class_type and inputs, not {found}")]
    NodeNotAnObject { node: NodeId, found: &'static str },
    #[error("node '{node}' has no class_type")]
    ClassTypeMissing { node: NodeId },
    #[error("class_type of node '{node}' must be text, not {found}")]
    ClassTypeNotText { node: NodeId, found: &'static str },
    #[error("node '{node}' has no inputs")]
    InputsMissing { node: NodeId, class_type: String },
    #[error("inputs of node '{node}' must be an object, not {found}")]
    InputsNotAnObject {
        node: NodeId,
        class_type: String,
        found: &'static str,
    },
}

impl Graph {
    /// Parses API format with at most [`DEFAULT_MAX_NODES`] nodes.
    pub fn parse(value: &Value) -> Result<Self, ParseError> {
        Self::parse_bounded(value, DEFAULT_MAX_NODES)
    }

    /// Parses API format with at most `max_nodes` nodes.
    pub fn parse_bounded(value: &Value, max_nodes: usize) -> Result<Self, ParseError> {
        let Value::Object(map) = value else {
            return Err(ParseError::NotAnObject { found: kind(value) });
        };
        if is_ui_format(map) {
            return Err(ParseError::UiFormat);
        }
        if map.len() > max_nodes {
            return Err(ParseError::TooManyNodes {
                nodes: map.len(),
                limit: max_nodes,
            });
        }
        let nodes = map.iter().map(|(id, node)| {
            let id = NodeId::new(id.as_str());
            parse_node(&id, node).map(|node| (id, node))
        });
        Ok(Self {
            nodes: nodes.collect::<Result<_, _>>()?,
        })
    }
}

/// The editor saves `{"nodes": [..], "links": [..], "version": ..}`. No node of an API graph is an array.
fn is_ui_format(map: &Map<String, Value>) -> bool {
    map.get("nodes").is_some_and(Value::is_array)
}

fn parse_node(id: &NodeId, value: &Value) -> Result<Node, ParseError> {
    let Value::Object(map) = value else {
        return Err(ParseError::NodeNotAnObject {
            node: id.clone(),
            found: kind(value),
        });
    };
    let class_type = match map.get(CLASS_TYPE) {
        Some(Value::String(class_type)) => class_type.clone(),
        Some(other) => {
            return Err(ParseError::ClassTypeNotText {
                node: id.clone(),
                found: kind(other),
            });
        }
        None => return Err(ParseError::ClassTypeMissing { node: id.clone() }),
    };
    let inputs = match map.get(INPUTS) {
        Some(Value::Object(inputs)) => inputs.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        Some(other) => {
            let found = kind(other);
            return Err(ParseError::InputsNotAnObject {
                node: id.clone(),
                class_type,
                found,
            });
        }
        None => {
            return Err(ParseError::InputsMissing {
                node: id.clone(),
                class_type,
            });
        }
    };
    let extra = map
        .iter()
        .filter(|(key, _)| ![CLASS_TYPE, INPUTS, META].contains(&key.as_str()));
    Ok(Node {
        class_type,
        inputs,
        meta: map.get(META).cloned(),
        extra: extra.map(|(k, v)| (k.clone(), v.clone())).collect(),
        key_order: map.keys().map(|key| key.as_str().into()).collect(),
    })
}

/// The JSON type of a value, for messages.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_malformed_graph_is_refused_by_name() {
        let cases = [
            (json!(null), "not null"),
            (json!([1]), "not a list"),
            (json!({"nodes": [], "links": [], "version": 0.4}), "Export (API)"),
            (json!({"1": 5}), "node '1' must be an object"),
            (json!({"1": {"inputs": {}}}), "node '1' has no class_type"),
            (
                json!({"1": {"class_type": 5, "inputs": {}}}),
                "class_type of node '1' must be text, not a number",
            ),
            (json!({"1": {"class_type": "A"}}), "node '1' has no inputs"),
            (
                json!({"1": {"class_type": "A", "inputs": null}}),
                "inputs of node '1' must be an object, not null",
            ),
        ];
        for (graph, expected) in cases {
            let error = Graph::parse(&graph).expect_err("malformed").to_string();
            assert!(error.contains(expected), "{graph}: {error}");
        }
    }

    #[test]
    fn a_node_may_be_called_nodes() {
        let graph = Graph::parse(&json!({"nodes": {"class_type": "A", "inputs": {}}})).unwrap();
        assert_eq!(graph.nodes.len(), 1);
    }

    #[test]
    fn the_node_limit_is_exact() {
        let node = json!({"class_type": "A", "inputs": {}});
        let graph = json!({"1": node, "2": node});
        assert!(Graph::parse_bounded(&graph, 2).is_ok());
        let error = Graph::parse_bounded(&graph, 1).expect_err("too many");
        assert_eq!(error, ParseError::TooManyNodes { nodes: 2, limit: 1 });
    }
}
