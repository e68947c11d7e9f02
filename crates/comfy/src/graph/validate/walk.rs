//! The walk from the output nodes up through their links, each node looked at once.
#![expect(
    clippy::result_large_err,
    reason = "the error is the answer here, made once per faulty input"
)]

use indexmap::IndexMap;
use serde_json::Value;

use super::checks::{InputChecks, Literals};
use super::errors::{NodeError, NodeErrors};
use super::input::{self, Input};
use super::suggest::Suggester;
use crate::graph::{Cycle, Graph, InputValue, Link, Node, NodeId};
use crate::object_info::NodeClass;

/// Spelling a cycle out costs its length, and a hostile graph has as many cycles as links.
const SPELLED_CYCLES: usize = 8;
const SPELLED_NODES: usize = 50;
/// Steps spent on finding which outputs depend on which faulty node. Enough for every real graph; beyond it a
/// node names only the output that it was first reached from.
const DEPENDENTS_BUDGET: usize = 1_000_000;

/// A graph with the class of each node, by position.
pub(super) struct Walk<'a> {
    graph: &'a Graph,
    classes: Vec<&'a NodeClass>,
    hooks: &'a dyn InputChecks,
    suggester: Suggester,
    nodes: Vec<Seen<'a>>,
    /// Positions in the order in which nodes were finished.
    finished: Vec<usize>,
    pub(super) cycles: Vec<Cycle>,
}

/// What is known of one node.
#[derive(Default)]
struct Seen<'a> {
    state: State,
    valid: bool,
    errors: Vec<NodeError>,
    /// Values to put in place of the client's, by position of the input.
    converted: Vec<(usize, Value)>,
    /// Sound links: position of the node, name of the input.
    follow: Vec<(usize, &'a str)>,
    /// The output from which the walk came here first.
    root: usize,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum State {
    #[default]
    New,
    Open,
    Finished,
}

impl<'a> Walk<'a> {
    /// `classes` has one entry per node of the graph, in its order.
    pub(super) fn new(graph: &'a Graph, classes: Vec<&'a NodeClass>, hooks: &'a dyn InputChecks) -> Self {
        let nodes = graph.nodes.iter().map(|_| Seen::default()).collect();
        let (suggester, finished, cycles) = (Suggester::default(), Vec::new(), Vec::new());
        Self {
            graph,
            classes,
            hooks,
            suggester,
            nodes,
            finished,
            cycles,
        }
    }

    /// Looks at an output node and everything above it. True if all of that is valid.
    pub(super) fn output(&mut self, root: usize) -> bool {
        // One frame per open node: its position, and the next of its links to follow.
        let mut stack: Vec<(usize, usize)> = Vec::new();
        if self.nodes[root].state == State::New {
            self.open(root, root, false);
            stack.push((root, 0));
        }
        while let Some((index, next)) = stack.last_mut() {
            let (index, link) = (*index, *next);
            *next += 1;
            match self.nodes[index].follow.get(link).copied() {
                None => {
                    stack.pop();
                    self.nodes[index].state = State::Finished;
                    self.finished.push(index);
                    if let (false, Some((parent, _))) = (self.nodes[index].valid, stack.last()) {
                        self.nodes[*parent].valid = false;
                    }
                }
                Some((above, name)) => match self.nodes[above].state {
                    State::New => {
                        self.open(above, root, true);
                        stack.push((above, 0));
                    }
                    State::Finished => self.nodes[index].valid &= self.nodes[above].valid,
                    State::Open => {
                        let open = stack.iter().map(|(index, _)| *index);
                        let cycle = open.skip_while(|index| *index != above).collect();
                        self.close_cycle(index, name, cycle, stack.len() > 1);
                    }
                },
            }
        }
        self.nodes[root].valid
    }

    /// The faulty nodes, and the failed outputs that depend on each.
    pub(super) fn node_errors(&mut self, failed: &[usize]) -> IndexMap<NodeId, NodeErrors> {
        let mut below: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        for &index in &self.finished {
            for (above, _) in &self.nodes[index].follow {
                below[*above].push(index);
            }
        }
        let mut is_failed = vec![false; self.nodes.len()];
        failed.iter().for_each(|&index| is_failed[index] = true);
        let mut dependents = Dependents {
            below,
            is_failed,
            budget: DEPENDENTS_BUDGET,
            reached: vec![usize::MAX; self.nodes.len()],
        };
        let mut all = IndexMap::new();
        for &index in &self.finished {
            if self.nodes[index].errors.is_empty() {
                continue;
            }
            let outputs = dependents
                .of(index)
                .unwrap_or_else(|| vec![self.nodes[index].root]);
            let dependent_outputs = outputs
                .into_iter()
                .map(|output| self.id(output).clone())
                .collect();
            let errors = std::mem::take(&mut self.nodes[index].errors);
            let class_type = self.node(index).class_type.clone();
            all.insert(
                self.id(index).clone(),
                NodeErrors {
                    errors,
                    dependent_outputs,
                    class_type,
                },
            );
        }
        all
    }

    /// What is wrong with one node itself.
    pub(super) fn errors(&self, index: usize) -> &[NodeError] {
        &self.nodes[index].errors
    }

    /// The graph with converted values in their places.
    pub(super) fn converted_graph(self) -> Graph {
        let mut graph = self.graph.clone();
        for (index, seen) in self.nodes.into_iter().enumerate() {
            for (input, value) in seen.converted {
                graph.nodes[index].inputs[input] = value;
            }
        }
        graph
    }

    fn id(&self, index: usize) -> &'a NodeId {
        self.graph
            .nodes
            .get_index(index)
            .expect("positions come from this graph")
            .0
    }

    fn node(&self, index: usize) -> &'a Node {
        &self.graph.nodes[index]
    }

    /// Looks at a node's own inputs.
    fn open(&mut self, index: usize, root: usize, inner: bool) {
        let node = self.node(index);
        let class = self.classes[index];
        let mut seen = Seen {
            state: State::Open,
            root,
            ..Seen::default()
        };
        for (name, spec, required) in class.inputs() {
            let Some((position, _, value)) = node.inputs.get_full(name) else {
                if required {
                    seen.errors.push(input::missing(name));
                }
                continue;
            };
            let input = Input {
                name,
                spec,
                covered: self.hooks.covers(&node.class_type, name, spec),
            };
            let outcome = match (InputValue::classify(value), value) {
                (InputValue::Literal(_), _) => input.literal(value, &mut self.suggester).map(|converted| {
                    seen.converted
                        .extend(converted.map(|converted| (position, converted)));
                }),
                (InputValue::Link(link), _) => self.link(node, &input, link, value, inner).map(|above| {
                    seen.follow.push((above, name));
                }),
                (InputValue::BadLink(items), _) if items.len() != 2 => Err(input.wrong_length(value)),
                (InputValue::BadLink(_), _) => {
                    let why = "a link must be [\"node id\", output number], the id as text".to_owned();
                    Err(input.broken_link(inner, "TypeError", value, why))
                }
            };
            seen.errors.extend(outcome.err());
        }
        self.own_validation(node, &mut seen);
        seen.valid = seen.errors.is_empty();
        self.nodes[index] = seen;
    }

    /// Follows one link to an existing output of a fitting type.
    fn link(
        &self,
        node: &Node,
        input: &Input<'_>,
        link: Link<'_>,
        value: &Value,
        inner: bool,
    ) -> Result<usize, NodeError> {
        let Some(above) = self.graph.nodes.get_index_of(link.node) else {
            let why = format!("node '{}' does not exist", link.node);
            return Err(input.broken_link(inner, "KeyError", value, why));
        };
        let outputs = &self.classes[above].output;
        let Some(received) = outputs.get(link.slot) else {
            let class_type = &self.node(above).class_type;
            let (id, slot, count) = (link.node, link.slot, outputs.len());
            let why = format!("node '{id}' ({class_type}) has {count} outputs, there is no output {slot}");
            return Err(input.broken_link(inner, "IndexError", value, why));
        };
        if !input::types_overlap(received, input.spec) && !self.hooks.covers_link_types(&node.class_type) {
            return Err(input.type_mismatch(value, received));
        }
        Ok(above)
    }

    fn own_validation(&self, node: &Node, seen: &mut Seen<'_>) {
        let mut literals = Literals::new();
        for (name, value) in &node.inputs {
            if let InputValue::Literal(value) = InputValue::classify(value) {
                literals.insert(name, value);
            }
        }
        for (position, value) in &seen.converted {
            if let Some((name, _)) = node.inputs.get_index(*position) {
                literals.insert(name, value);
            }
        }
        let refusals = self.hooks.check(&node.class_type, &literals);
        seen.errors.extend(
            refusals
                .iter()
                .map(|r| input::refused(&r.input, r.reason.as_deref())),
        );
    }

    /// Marks the node whose link leads back to an open one.
    fn close_cycle(&mut self, index: usize, name: &str, open: Vec<usize>, inner: bool) {
        self.nodes[index].valid = false;
        let details = if self.cycles.len() < SPELLED_CYCLES {
            let cycle = Cycle {
                nodes: open.iter().map(|index| self.id(*index).clone()).collect(),
            };
            let text = format!("{name}: {cycle}");
            self.cycles.push(cycle);
            text
        } else {
            format!("{name}: this link closes a dependency cycle")
        };
        let named: Vec<Value> = open
            .iter()
            .take(SPELLED_NODES)
            .map(|index| Value::from(self.id(*index).as_str()))
            .collect();
        let error = NodeError::exception(inner, "comfy_execution.graph.DependencyCycleError", details)
            .with("input_name", name)
            .with("linked_node", self.node(index).inputs[name].clone())
            .with("cycle", named);
        self.nodes[index].errors.push(error);
    }
}

/// Finds the failed outputs below a node.
struct Dependents {
    below: Vec<Vec<usize>>,
    is_failed: Vec<bool>,
    budget: usize,
    /// The last start from which each node was reached.
    reached: Vec<usize>,
}

impl Dependents {
    /// `None` once the budget is spent.
    fn of(&mut self, start: usize) -> Option<Vec<usize>> {
        let mut outputs = Vec::new();
        let mut open = vec![start];
        self.reached[start] = start;
        while let Some(index) = open.pop() {
            self.budget = self.budget.checked_sub(1 + self.below[index].len())?;
            if self.is_failed[index] {
                outputs.push(index);
            }
            for &next in &self.below[index] {
                if self.reached[next] != start {
                    self.reached[next] = start;
                    open.push(next);
                }
            }
        }
        outputs.sort_unstable();
        Some(outputs)
    }
}
