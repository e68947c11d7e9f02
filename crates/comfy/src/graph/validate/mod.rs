//! ComfyUI's validation of a graph, with ComfyUI's error shapes.
//!
//! What ComfyUI accepts is accepted and what it refuses is refused, in the same words, so that a client cannot
//! tell who looked. Where ComfyUI crashes on a graph (status 500, a Python traceback, or a cycle that it
//! refuses without a reason) the refusal here has the same type but names the node and the input.
//!
//! Further differences, on purpose: the order of errors is the declared one (ComfyUI iterates over sets),
//! `dependent_outputs` holds only outputs that really depend on the node, `extra_info` may have `suggestions`,
//! `input_config` is null for every long list of choices, negative output numbers and integers beyond 64 bits
//! are refused, and a value list is accepted for `multiselect` choices (as newer versions do).

mod checks;
mod errors;
mod input;
mod python;
mod suggest;
mod walk;

use indexmap::IndexMap;

pub use self::checks::{InputChecks, Literals, NoChecks, Preflight, Refusal};
pub use self::errors::{NodeError, NodeErrors, PromptError, Rejected};
use self::suggest::Suggester;
pub use self::suggest::nearest;
use self::walk::Walk;
use super::{Graph, NodeId};
use crate::object_info::{NodeClass, ObjectInfo};

/// A graph of which at least one output can be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Validated {
    /// The graph with literals converted as Python would (`"64"` to `64`): what is executed and shown.
    pub graph: Graph,
    /// The output nodes to run, in the graph's order.
    pub outputs: Vec<NodeId>,
    /// What is wrong with outputs that are left out; empty if all can be made.
    pub node_errors: IndexMap<NodeId, NodeErrors>,
}

/// Validates a graph. With `targets` only those of its output nodes are run.
pub fn validate(
    graph: &Graph,
    info: &ObjectInfo,
    targets: Option<&[NodeId]>,
    hooks: &dyn InputChecks,
) -> Result<Validated, Box<Rejected>> {
    let classes = classes(graph, info).map_err(|error| Rejected::whole(*error))?;
    let outputs: Vec<usize> = output_positions(graph, &classes, targets);
    if outputs.is_empty() {
        return Err(Rejected::whole(PromptError::no_outputs()).into());
    }
    let mut walk = Walk::new(graph, classes, hooks);
    let (good, failed): (Vec<usize>, Vec<usize>) = outputs.into_iter().partition(|&index| walk.output(index));
    if good.is_empty() {
        let error = PromptError::outputs_failed(failure_details(&walk, &failed));
        let node_errors = walk.node_errors(&failed);
        return Err(Box::new(Rejected { error, node_errors }));
    }
    let node_errors = walk.node_errors(&failed);
    let id = |index: usize| graph.nodes.get_index(index).map(|(id, _)| id.clone());
    let outputs = good.into_iter().filter_map(id).collect();
    Ok(Validated {
        graph: walk.converted_graph(),
        outputs,
        node_errors,
    })
}

/// The class of every node. One unknown class refuses the whole graph, also where nothing depends on it.
fn classes<'a>(graph: &Graph, info: &'a ObjectInfo) -> Result<Vec<&'a NodeClass>, Box<PromptError>> {
    let known = |(id, node): (&NodeId, &super::Node)| {
        info.get(&node.class_type).ok_or_else(|| {
            let message = format!("Cannot execute because node {} does not exist.", node.class_type);
            let mut error = PromptError::new("invalid_prompt", message, format!("Node ID '#{id}'"));
            let names = info.classes.keys().map(String::as_str);
            let near = Suggester::default().nearest(&node.class_type, names);
            if !near.is_empty() {
                error.extra_info.insert("suggestions".to_owned(), near.into());
            }
            Box::new(error)
        })
    };
    graph.nodes.iter().map(known).collect()
}

fn output_positions(graph: &Graph, classes: &[&NodeClass], targets: Option<&[NodeId]>) -> Vec<usize> {
    let wanted: Option<std::collections::BTreeSet<&NodeId>> = targets.map(|targets| targets.iter().collect());
    let nodes = graph.nodes.keys().zip(classes).enumerate();
    nodes
        .filter(|(_, (_, class))| class.output_node)
        .filter(|(_, (id, _))| wanted.as_ref().is_none_or(|wanted| wanted.contains(id)))
        .map(|(index, _)| index)
        .collect()
}

/// ComfyUI lists only what is wrong with the outputs themselves; a cycle is added, or nobody would learn of it.
fn failure_details(walk: &Walk<'_>, failed: &[usize]) -> String {
    let own = failed.iter().flat_map(|&index| walk.errors(index));
    let mut lines: Vec<String> = own
        .map(|error| format!("{}: {}", error.message, error.details))
        .collect();
    let cycles = walk.cycles.iter().map(ToString::to_string);
    let unnamed: Vec<String> = cycles
        .filter(|text| !lines.iter().any(|line| line.ends_with(text)))
        .collect();
    lines.extend(unnamed);
    lines.join("\n")
}

#[cfg(test)]
mod tests;
