//! A file spread out: the root's nodes, and those of every instance of a subgraph, each read once.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    Error,
    read::{self, Mode, Origin, UiNode},
};

/// Subgraphs within subgraphs.
const MAX_DEPTH: usize = 32;
/// Nodes, their inputs, and links together, in all instances: a small file may hold subgraphs that multiply. A graph of
/// [`super::super::DEFAULT_MAX_NODES`] nodes with a dozen inputs each stays below.
pub(super) const MAX_PARTS: usize = 500_000;

/// What all instances of subgraphs hold, with the ids that they write before their nodes' own, in bytes of JSON.
pub(super) const MAX_BYTES: usize = 64 << 20;
/// Longest id of a node, in bytes: the editor counts them, or writes a UUID.
const MAX_ID_BYTES: usize = 200;

/// The node id that stands for a subgraph's inputs inside it, and the one for its outputs.
const INPUT_NODE: i64 = -10;
const OUTPUT_NODE: i64 = -20;

/// The root or one instance of a subgraph.
pub(super) type ScopeId = usize;

/// All of a file.
pub(super) struct Scopes(Vec<Scope>);

struct Scope {
    nodes: Vec<UiNode>,
    by_id: HashMap<String, usize>,
    /// The `SetNode` of each name.
    set_nodes: HashMap<String, usize>,
    links: HashMap<i64, Origin>,
    /// What each output of the subgraph is fed by.
    outputs: HashMap<usize, Origin>,
    /// Where this instance stands: the scope around it, and the place of the instance's node there.
    around: Option<(ScopeId, usize)>,
    /// The instances of subgraphs in it, by node.
    inside: HashMap<String, ScopeId>,
    prefix: String,
    input_node: String,
}

impl Scopes {
    /// Reads a whole file.
    pub(super) fn spread(file: &Value) -> Result<Scopes, Error> {
        let definitions = file.pointer("/definitions/subgraphs").and_then(Value::as_array);
        let definitions: HashMap<&str, &Value> = definitions
            .into_iter()
            .flatten()
            .filter_map(|definition| Some((definition["id"].as_str()?, definition)))
            .collect();
        let mut sizes: HashMap<&str, usize> = HashMap::new();
        let (mut parts, mut bytes) = (0, 0);
        let mut scopes = Scopes(vec![Scope::read(file, None, String::new(), &mut parts)?]);
        let mut open = vec![(0, 0)];
        while let Some((at, depth)) = open.pop() {
            for place in 0..scopes.0[at].nodes.len() {
                let node = &scopes.0[at].nodes[place];
                // What is left out as a whole is not spread out.
                let Some(definition) = definitions
                    .get(node.kind.as_str())
                    .filter(|_| node.mode == Mode::Active)
                else {
                    continue;
                };
                if depth == MAX_DEPTH {
                    return Err(Error::TooDeep { limit: MAX_DEPTH });
                }
                let id = node.id.clone();
                let prefix = format!("{}:", scopes.api_id(at, &id));
                let size = *sizes
                    .entry(definition["id"].as_str().unwrap_or_default())
                    .or_insert_with(|| definition.to_string().len());
                let before = parts;
                bytes += size;
                if bytes > MAX_BYTES {
                    return Err(Error::TooManyBytes { limit: MAX_BYTES });
                }
                let prefix_bytes = prefix.len();
                let inner = Scope::read(definition, Some((at, place)), prefix, &mut parts)?;
                bytes += prefix_bytes * (parts - before);
                scopes.0.push(inner);
                let inner = scopes.0.len() - 1;
                scopes.0[at].inside.insert(id, inner);
                open.push((inner, depth + 1));
            }
        }
        Ok(scopes)
    }

    /// Every node, in the order in which the editor runs them; those of an instance where the instance stands.
    pub(super) fn in_order(&self) -> Vec<(ScopeId, &UiNode)> {
        let mut all = Vec::new();
        self.add_in_order(0, &mut all);
        all
    }

    fn add_in_order<'a>(&'a self, scope: ScopeId, all: &mut Vec<(ScopeId, &'a UiNode)>) {
        let mut nodes: Vec<&UiNode> = self.0[scope].nodes.iter().collect();
        nodes.sort_by_key(|node| (node.order, node.id.parse::<i64>().unwrap_or(i64::MAX)));
        for node in nodes {
            all.push((scope, node));
            if let Some(inner) = self.inside(scope, &node.id) {
                self.add_in_order(inner, all);
            }
        }
    }

    pub(super) fn node(&self, scope: ScopeId, id: &str) -> Option<&UiNode> {
        let scope = &self.0[scope];
        scope.by_id.get(id).map(|place| &scope.nodes[*place])
    }

    /// Where a link begins.
    pub(super) fn origin(&self, scope: ScopeId, link: i64) -> Option<&Origin> {
        self.0[scope].links.get(&link)
    }

    /// The instance that a node stands for.
    pub(super) fn inside(&self, scope: ScopeId, node: &str) -> Option<ScopeId> {
        self.0[scope].inside.get(node).copied()
    }

    /// What feeds an output of this instance.
    pub(super) fn output(&self, scope: ScopeId, slot: usize) -> Option<&Origin> {
        self.0[scope].outputs.get(&slot)
    }

    /// Where this instance stands, if a node id stands for its inputs.
    pub(super) fn around(&self, scope: ScopeId, node: &str) -> Option<(ScopeId, &UiNode)> {
        let (around, place) = self.0[scope].around?;
        (self.0[scope].input_node == node).then(|| (around, &self.0[around].nodes[place]))
    }

    /// The `SetNode` of a name.
    pub(super) fn set_node(&self, scope: ScopeId, name: &str) -> Option<&UiNode> {
        let scope = &self.0[scope];
        scope.set_nodes.get(name).map(|place| &scope.nodes[*place])
    }

    /// A node's id in API format.
    pub(super) fn api_id(&self, scope: ScopeId, id: &str) -> String {
        format!("{}{id}", self.0[scope].prefix)
    }
}

impl Scope {
    fn read(
        value: &Value,
        around: Option<(ScopeId, usize)>,
        prefix: String,
        parts: &mut usize,
    ) -> Result<Scope, Error> {
        let mut count = |more: usize| {
            *parts += more;
            match *parts > MAX_PARTS {
                true => Err(Error::TooLarge { limit: MAX_PARTS }),
                false => Ok(()),
            }
        };
        let listed = value["nodes"]
            .as_array()
            .ok_or(Error::Malformed { part: "nodes" })?;
        let mut nodes = Vec::new();
        let mut by_id = HashMap::new();
        let mut set_nodes = HashMap::new();
        for node in listed {
            count(1 + node["inputs"].as_array().map_or(0, Vec::len))?;
            let node = read::node(node).ok_or(Error::Malformed { part: "nodes" })?;
            // Whoever looks for a node by its id must find the one that stands there.
            if node.id.len() > MAX_ID_BYTES || by_id.insert(node.id.clone(), nodes.len()).is_some() {
                return Err(Error::Malformed { part: "nodes" });
            }
            if let ("SetNode", Some(name)) = (node.kind.as_str(), node.widgets_values[0].as_str()) {
                set_nodes.entry(name.to_owned()).or_insert(nodes.len());
            }
            nodes.push(node);
        }
        let numbered =
            |key: &str, usual: i64| read::id_text(&value[key]["id"]).unwrap_or_else(|| usual.to_string());
        let output_node = numbered("outputNode", OUTPUT_NODE);
        let mut links = HashMap::new();
        let mut outputs = HashMap::new();
        for link in value["links"].as_array().into_iter().flatten() {
            count(1)?;
            let link = read::link(link).ok_or(Error::Malformed { part: "links" })?;
            if around.is_some() && link.target == output_node {
                outputs.insert(link.target_slot, link.origin.clone());
            }
            links.insert(link.id, link.origin);
        }
        Ok(Scope {
            nodes,
            by_id,
            set_nodes,
            links,
            outputs,
            around,
            inside: HashMap::new(),
            prefix,
            input_node: numbered("inputNode", INPUT_NODE),
        })
    }
}
