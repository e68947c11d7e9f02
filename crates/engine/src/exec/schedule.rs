//! Which node runs next: outputs first, then what feeds them, so that people see results early.

use std::collections::{BTreeSet, HashMap};

use darkroom_comfy::graph::{Graph, NodeId};
use indexmap::IndexMap;

/// The nodes that are still to run, in ComfyUI's order.
pub struct Schedule {
    nodes: Vec<Pending>,
    index: HashMap<NodeId, usize>,
    /// By priority (0 output, 1 feeds one, 2 feeds what feeds one, 3 other), then by when they were added.
    ready: BTreeSet<(u8, usize)>,
}

struct Pending {
    id: NodeId,
    priority: u8,
    /// How many nodes it waits for.
    waits_for: usize,
    /// Who waits for it.
    blocks: Vec<usize>,
}

impl Schedule {
    /// Everything the `outputs` need that is not cached. A cached output is visited too, to be reported again.
    pub fn new(
        graph: &Graph,
        outputs: &[NodeId],
        cached: impl Fn(&NodeId) -> bool,
        is_output: impl Fn(&str) -> bool,
    ) -> Schedule {
        let mut pending: IndexMap<NodeId, Vec<NodeId>> = IndexMap::new();
        for output in outputs {
            add(graph, output, &cached, &mut pending);
        }
        let mut nodes: Vec<Pending> = pending
            .keys()
            .map(|id| Pending {
                id: id.clone(),
                priority: 3,
                waits_for: 0,
                blocks: Vec::new(),
            })
            .collect();
        for (at, sources) in pending.values().enumerate() {
            nodes[at].waits_for = sources.len();
            for source in sources {
                let from = pending
                    .get_index_of(source)
                    .expect("sources that are not cached were added");
                nodes[from].blocks.push(at);
            }
        }
        let output: Vec<bool> = nodes
            .iter()
            .map(|node| {
                graph
                    .get(node.id.as_str())
                    .is_some_and(|node| is_output(&node.class_type))
            })
            .collect();
        let feeds = |nodes: &[Pending], at: usize| nodes[at].blocks.iter().any(|next| output[*next]);
        for at in 0..nodes.len() {
            nodes[at].priority = if output[at] {
                0
            } else if feeds(&nodes, at) {
                1
            } else if nodes[at].blocks.iter().any(|next| feeds(&nodes, *next)) {
                2
            } else {
                3
            };
        }
        let index = nodes
            .iter()
            .enumerate()
            .map(|(at, node)| (node.id.clone(), at))
            .collect();
        let free = nodes.iter().enumerate().filter(|(_, node)| node.waits_for == 0);
        let ready = free.map(|(at, node)| (node.priority, at)).collect();
        Schedule { nodes, index, ready }
    }

    /// The node to run now; `None` when all are done.
    pub fn next(&self) -> Option<NodeId> {
        self.ready.first().map(|(_, at)| self.nodes[*at].id.clone())
    }

    /// Frees the nodes that waited for this one.
    pub fn done(&mut self, id: &NodeId) {
        let Some(at) = self.index.get(id).copied() else {
            return;
        };
        self.ready.remove(&(self.nodes[at].priority, at));
        for next in std::mem::take(&mut self.nodes[at].blocks) {
            self.nodes[next].waits_for -= 1;
            if self.nodes[next].waits_for == 0 {
                self.ready.insert((self.nodes[next].priority, next));
            }
        }
    }
}

/// Adds a node and what it needs, last link first, with the distinct sources each waits for.
fn add(
    graph: &Graph,
    start: &NodeId,
    cached: &impl Fn(&NodeId) -> bool,
    pending: &mut IndexMap<NodeId, Vec<NodeId>>,
) {
    let mut stack = vec![start.clone()];
    while let Some(id) = stack.pop() {
        if pending.contains_key(&id) {
            continue;
        }
        let mut sources: Vec<NodeId> = Vec::new();
        for (_, link) in graph.get(id.as_str()).into_iter().flat_map(|node| node.links()) {
            let source = NodeId::from(link.node);
            if graph.nodes.contains_key(&source) && !cached(&source) && !sources.contains(&source) {
                sources.push(source.clone());
                stack.push(source);
            }
        }
        pending.insert(id, sources);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn order(graph: &Graph, outputs: &[&str], cached: &[&str]) -> Vec<String> {
        let outputs: Vec<NodeId> = outputs.iter().map(|id| NodeId::from(*id)).collect();
        let cached = |id: &NodeId| cached.contains(&id.as_str());
        let mut schedule = Schedule::new(graph, &outputs, cached, |class| class == "Save");
        let mut order = Vec::new();
        while let Some(id) = schedule.next() {
            schedule.done(&id);
            order.push(id.into_string());
        }
        order
    }

    fn diamond() -> Graph {
        Graph::parse(&json!({
            "1": {"class_type": "A", "inputs": {}},
            "2": {"class_type": "B", "inputs": {"x": ["1", 0]}},
            "3": {"class_type": "C", "inputs": {"x": ["1", 0]}},
            "4": {"class_type": "Save", "inputs": {"x": ["2", 0]}},
            "5": {"class_type": "Save", "inputs": {"x": ["3", 0], "y": ["3", 0]}},
            "6": {"class_type": "Unused", "inputs": {"x": ["1", 0]}},
        }))
        .unwrap()
    }

    #[test]
    fn a_branch_is_finished_before_the_next_begins() {
        assert_eq!(order(&diamond(), &["4", "5"], &[]), ["1", "2", "4", "3", "5"]);
        assert_eq!(order(&diamond(), &["5", "4"], &[]), ["1", "3", "5", "2", "4"]);
    }

    #[test]
    fn what_is_cached_is_not_visited_but_cached_outputs_are() {
        assert_eq!(order(&diamond(), &["4", "5"], &["1", "2", "4"]), ["4", "3", "5"]);
    }
}
