//! Results of the last prompt's nodes, found again by what made them.
//!
//! A node's key is its class, its own literals, its fingerprint, and the same of everything it depends on. Node ids are
//! no part of it: equal nodes share one entry, in one graph and over prompts.

use std::{collections::HashMap, sync::Arc};

use darkroom_comfy::graph::{Graph, InputValue, Link, NodeId};
use serde_json::{Map, Value as Json};
use sha2::{Digest, Sha256};

use crate::value::Value;

type Key = [u8; 32];

/// What a node made.
#[derive(Debug, Clone)]
pub struct Entry {
    /// A list of values for each output slot.
    pub outputs: Arc<Vec<Vec<Value>>>,
    /// What it showed, if it is a node that shows something.
    pub ui: Option<Arc<Ui>>,
}

/// What a node showed.
#[derive(Debug)]
pub struct Ui {
    /// The node that made it, which history repeats even when another node reuses it.
    pub node: NodeId,
    /// Kind to list.
    pub output: Map<String, Json>,
}

/// The results that the current graph may use.
#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    keys: HashMap<NodeId, Key>,
    unique: u64,
}

impl Cache {
    /// Turns to a new graph: keys for all its nodes, and everything that it does not use is dropped.
    ///
    /// `fingerprints` holds the nodes that have one; `None` there means "never equal".
    pub fn enter(
        &mut self,
        graph: &Graph,
        outputs: &[NodeId],
        fingerprints: &HashMap<NodeId, Option<String>>,
    ) {
        // A cycle can only be among nodes that no output needs; then only what the outputs need gets keys.
        let order = graph
            .topological_order(graph.nodes.keys().map(NodeId::as_str))
            .or_else(|_| graph.topological_order(outputs.iter().map(NodeId::as_str)))
            .unwrap_or_default();
        self.keys.clear();
        for id in order {
            let key = self.key(graph, id, fingerprints.get(id));
            self.keys.insert(id.clone(), key);
        }
        let used: std::collections::HashSet<&Key> = self.keys.values().collect();
        self.entries.retain(|key, _| used.contains(key));
    }

    /// The result of a node, if it is there.
    pub fn get(&self, id: &NodeId) -> Option<&Entry> {
        self.entries.get(self.keys.get(id)?)
    }

    /// True if the node need not run.
    pub fn has(&self, id: &NodeId) -> bool {
        self.get(id).is_some()
    }

    /// The values of one output.
    pub fn slot(&self, link: Link<'_>) -> Option<Vec<Value>> {
        let entry = self.entries.get(self.keys.get(link.node)?)?;
        entry.outputs.get(link.slot).cloned()
    }

    /// Keeps a node's result.
    pub fn put(&mut self, id: &NodeId, entry: Entry) {
        if let Some(key) = self.keys.get(id) {
            self.entries.insert(*key, entry);
        }
    }

    fn key(&mut self, graph: &Graph, id: &NodeId, fingerprint: Option<&Option<String>>) -> Key {
        let mut hash = Sha256::new();
        // Every part is preceded by its length, so that no two different lists of parts run together.
        let mut part = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_le_bytes());
            hash.update(bytes);
        };
        let Some(node) = graph.get(id.as_str()) else {
            return Key::default();
        };
        part(node.class_type.as_bytes());
        match fingerprint {
            None => part(b""),
            Some(Some(text)) => part(text.as_bytes()),
            Some(None) => part(&unique(&mut self.unique)),
        }
        let mut names: Vec<&String> = node.inputs.keys().collect();
        names.sort();
        for name in names {
            part(name.as_bytes());
            match InputValue::classify(&node.inputs[name]) {
                InputValue::Link(link) => {
                    match self.keys.get(link.node) {
                        Some(key) => part(key),
                        None => part(&unique(&mut self.unique)),
                    }
                    part(&link.slot.to_le_bytes());
                }
                InputValue::Literal(json) => part(json.to_string().as_bytes()),
                InputValue::BadLink(items) => part(Json::from(items).to_string().as_bytes()),
            }
        }
        hash.finalize().into()
    }
}

/// A part that no other key has.
fn unique(counter: &mut u64) -> [u8; 9] {
    *counter += 1;
    let mut bytes = [0xff; 9];
    bytes[1..].copy_from_slice(&counter.to_le_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn graph(json: Json) -> Graph {
        Graph::parse(&json).unwrap()
    }

    fn two_nodes(a: &str, b: &str, width: i32) -> Graph {
        graph(json!({
            a: {"class_type": "EmptyImage", "inputs": {"width": width}},
            b: {"class_type": "ImageInvert", "inputs": {"image": [a, 0]}},
        }))
    }

    fn fill(cache: &mut Cache, graph: &Graph) {
        cache.enter(graph, &["1".into()], &HashMap::new());
        for id in graph.nodes.keys() {
            cache.put(
                id,
                Entry {
                    outputs: Arc::new(vec![vec![Value::Json(json!(1))]]),
                    ui: None,
                },
            );
        }
    }

    fn cached<'a>(cache: &Cache, graph: &'a Graph) -> Vec<&'a str> {
        graph
            .nodes
            .keys()
            .filter(|id| cache.has(id))
            .map(NodeId::as_str)
            .collect()
    }

    #[test]
    fn ids_do_not_matter_but_values_of_ancestors_do() {
        let mut cache = Cache::default();
        fill(&mut cache, &two_nodes("1", "2", 64));
        let renamed = two_nodes("7", "x", 64);
        cache.enter(&renamed, &[], &HashMap::new());
        assert_eq!(cached(&cache, &renamed), ["7", "x"]);
        let changed = two_nodes("1", "2", 65);
        cache.enter(&changed, &[], &HashMap::new());
        assert!(cached(&cache, &changed).is_empty());
    }

    #[test]
    fn only_the_last_prompt_is_kept() {
        let mut cache = Cache::default();
        let first = two_nodes("1", "2", 64);
        fill(&mut cache, &first);
        fill(&mut cache, &two_nodes("1", "2", 65));
        cache.enter(&first, &[], &HashMap::new());
        assert!(cached(&cache, &first).is_empty());
    }

    #[test]
    fn a_node_that_is_never_equal_takes_what_follows_with_it() {
        let mut cache = Cache::default();
        let graph = two_nodes("1", "2", 64);
        let never: HashMap<NodeId, Option<String>> = [(NodeId::from("1"), None)].into();
        cache.enter(&graph, &[], &never);
        for id in ["1", "2"] {
            cache.put(
                &id.into(),
                Entry {
                    outputs: Arc::default(),
                    ui: None,
                },
            );
        }
        assert_eq!(
            cached(&cache, &graph),
            ["1", "2"],
            "within the prompt it is there"
        );
        cache.enter(&graph, &[], &never);
        assert!(cached(&cache, &graph).is_empty());
    }

    #[test]
    fn a_cycle_beside_the_outputs_does_no_harm() {
        let mut cache = Cache::default();
        let graph = graph(json!({
            "1": {"class_type": "EmptyImage", "inputs": {}},
            "2": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        }));
        fill(&mut cache, &graph);
        assert_eq!(cached(&cache, &graph), ["1"]);
    }
}
