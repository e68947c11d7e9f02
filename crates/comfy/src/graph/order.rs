//! Cycles, ancestors and topological order. All walks keep their own stack: a chain of 20,000 nodes must not
//! end in a stack overflow. Links to nodes that do not exist are ignored here; validation reports them.

use indexmap::IndexSet;

use super::{Graph, NodeId};

/// The nodes of one cycle, each feeding from the next, the last from the first.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("dependency cycle: {}", cycle_text(nodes))]
pub struct Cycle {
    pub nodes: Vec<NodeId>,
}

impl Graph {
    /// A cycle anywhere in the graph, if there is one.
    pub fn find_cycle(&self) -> Option<Cycle> {
        self.visit(0..self.nodes.len()).err()
    }

    /// The targets and everything they need, each node after all nodes it feeds from. Among independent nodes
    /// the order of the graph decides, so equal graphs give equal orders. Unknown targets are ignored.
    pub fn topological_order<'a>(
        &'a self,
        targets: impl IntoIterator<Item = &'a str>,
    ) -> Result<Vec<&'a NodeId>, Cycle> {
        let starts = targets.into_iter().filter_map(|id| self.nodes.get_index_of(id));
        let order = self.visit(starts)?;
        Ok(order.into_iter().map(|index| self.id_at(index)).collect())
    }

    /// The targets and every node they need, directly or not, also where there are cycles.
    pub fn ancestors<'a>(&'a self, targets: impl IntoIterator<Item = &'a str>) -> IndexSet<&'a NodeId> {
        let mut seen: IndexSet<usize> = targets
            .into_iter()
            .filter_map(|id| self.nodes.get_index_of(id))
            .collect();
        let mut next = 0;
        while let Some(&index) = seen.get_index(next) {
            next += 1;
            seen.extend(self.upstream(index));
        }
        seen.into_iter().map(|index| self.id_at(index)).collect()
    }

    fn id_at(&self, index: usize) -> &NodeId {
        self.nodes
            .get_index(index)
            .expect("indices come from this graph")
            .0
    }

    fn upstream(&self, index: usize) -> Vec<usize> {
        let links = self.nodes[index].links();
        links
            .filter_map(|(_, link)| self.nodes.get_index_of(link.node))
            .collect()
    }

    /// Post-order walk from `starts`.
    fn visit(&self, starts: impl IntoIterator<Item = usize>) -> Result<Vec<usize>, Cycle> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.nodes.len()];
        let mut order = Vec::new();
        let mut stack: Vec<(usize, std::vec::IntoIter<usize>)> = Vec::new();
        for start in starts {
            if marks[start] != Mark::New {
                continue;
            }
            marks[start] = Mark::Open;
            stack.push((start, self.upstream(start).into_iter()));
            while let Some((index, rest)) = stack.last_mut() {
                match rest.next() {
                    None => {
                        marks[*index] = Mark::Done;
                        order.push(*index);
                        stack.pop();
                    }
                    Some(next) => match marks[next] {
                        Mark::Done => {}
                        Mark::New => {
                            marks[next] = Mark::Open;
                            stack.push((next, self.upstream(next).into_iter()));
                        }
                        Mark::Open => {
                            let open = stack.iter().map(|(index, _)| *index);
                            let nodes = open.skip_while(|index| *index != next);
                            return Err(Cycle {
                                nodes: nodes.map(|i| self.id_at(i).clone()).collect(),
                            });
                        }
                    },
                }
            }
        }
        Ok(order)
    }
}

/// `1 -> 2 -> 1`, shortened in the middle of a very long cycle.
fn cycle_text(nodes: &[NodeId]) -> String {
    const SHOWN: usize = 20;
    let mut names: Vec<&str> = nodes.iter().take(SHOWN).map(NodeId::as_str).collect();
    if nodes.len() > SHOWN {
        names.push("...");
    }
    names.extend(nodes.first().map(NodeId::as_str));
    names.join(" -> ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Node;
    use super::*;

    fn chain(length: usize, closed: bool) -> Graph {
        let node = |i: usize| {
            let node = Node::new("A");
            match (i, closed) {
                (0, true) => node.with_input("x", json!([(length - 1).to_string(), 0])),
                (0, false) => node,
                (i, _) => node.with_input("x", json!([(i - 1).to_string(), 0])),
            }
        };
        Graph {
            nodes: (0..length)
                .map(|i| (NodeId::new(i.to_string()), node(i)))
                .collect(),
        }
    }

    #[test]
    fn a_long_chain_is_ordered_without_recursion() {
        let graph = chain(100_000, false);
        let order = graph.topological_order(["99999"]).unwrap();
        assert_eq!(order.len(), 100_000);
        assert_eq!(order[0].as_str(), "0");
        assert_eq!(graph.ancestors(["3"]).len(), 4);
        assert_eq!(graph.find_cycle(), None);
    }

    #[test]
    fn a_cycle_is_named() {
        let cycle = chain(3, true).find_cycle().expect("closed chain");
        assert_eq!(cycle.to_string(), "dependency cycle: 0 -> 2 -> 1 -> 0");
        let own = Graph {
            nodes: [("a".into(), Node::new("A").with_input("x", json!(["a", 0])))].into(),
        };
        assert_eq!(
            own.find_cycle().expect("self link").to_string(),
            "dependency cycle: a -> a"
        );
        assert!(
            chain(100_000, true)
                .find_cycle()
                .expect("long cycle")
                .to_string()
                .len()
                < 300
        );
    }

    #[test]
    fn only_what_the_targets_need_is_ordered() {
        let graph = chain(5, false);
        let order: Vec<_> = graph.topological_order(["2", "nowhere"]).unwrap();
        assert_eq!(
            order.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
            ["0", "1", "2"]
        );
    }
}
