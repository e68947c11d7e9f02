//! The editor's own format (`nodes`, `links`, `widgets_values`) to API format, as the editor's "Export (API)" does it.
//!
//! The editor's file does not name the values of widgets: they stand in the order of the class's inputs, which only
//! `object_info` tells, with values in between that belong to the page alone (what happens to a seed after a run, an
//! upload button). What only exists on the page (notes, groups, reroutes, primitives, Get and Set pairs) is resolved; muted
//! nodes are left out, bypassed ones passed through, subgraphs spread out (`instance:inner` as node ids).
//!
//! What the page computes anew at each export stays as it was written: dynamic prompts (`{a|b}`) and names with
//! `%date:…%` or `%node.widget%`.

mod read;
mod resolve;
mod scopes;
mod widgets;

use serde_json::{Map, Value, json};

use self::read::{Mode, UiNode};
use self::resolve::{Lost, Resolved, Resolver};
use self::scopes::{MAX_PARTS, ScopeId, Scopes};
use crate::object_info::{NodeClass, ObjectInfo};

/// Why a graph of the editor cannot be converted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the workflow's '{part}' is not what the editor writes")]
    Malformed { part: &'static str },
    #[error("the workflow spreads out to more than {limit} nodes, inputs and links")]
    TooLarge { limit: usize },
    #[error("the workflow's subgraphs spread out to more than {} MiB", limit >> 20)]
    TooManyBytes { limit: usize },
    #[error("the workflow's subgraphs lie more than {limit} deep in each other")]
    TooDeep { limit: usize },
    #[error(
        "node {node} is a group node ('{kind}'), which only the page can take apart; convert it to a subgraph there, or \
         export the workflow with \"Export (API)\""
    )]
    GroupNode { node: String, kind: String },
    #[error("what feeds input '{input}' of node {node} comes round to where it began")]
    Circle { node: String, input: String },
}

/// Whether this is a graph in the editor's format. No node of a graph in API format is a list.
pub fn is_ui_format(value: &Value) -> bool {
    value.get("nodes").is_some_and(Value::is_array)
}

/// The graph in API format. `info` tells the order of inputs; for a class that it does not have, the names that the
/// file itself holds are used, and validation will report the class.
///
/// # Errors
/// When it is no graph of the editor, too large, or holds what only the page can take apart.
pub fn to_api_format(value: &Value, info: &ObjectInfo) -> Result<Value, Error> {
    let scopes = Scopes::spread(value)?;
    let mut resolver = Resolver::new(&scopes);
    let mut nodes: Vec<(String, Value)> = Vec::new();
    for (scope, node) in scopes.in_order() {
        if let Some(written) = write(&scopes, &mut resolver, scope, node, info)? {
            nodes.push((scopes.api_id(scope, &node.id), written));
        }
    }
    let mut graph: Map<String, Value> = nodes.into_iter().collect();
    forget_dangling(&mut graph);
    Ok(Value::Object(graph))
}

/// A node that runs; `None` for what only exists on the page.
fn write(
    scopes: &Scopes,
    resolver: &mut Resolver<'_>,
    scope: ScopeId,
    node: &UiNode,
    info: &ObjectInfo,
) -> Result<Option<Value>, Error> {
    if node.mode != Mode::Active || is_page_only(&node.kind) || scopes.inside(scope, &node.id).is_some() {
        return Ok(None);
    }
    if node.kind.starts_with("workflow>") || node.kind.starts_with("workflow/") {
        return Err(Error::GroupNode {
            node: node.id.clone(),
            kind: node.kind.clone(),
        });
    }
    let class = info.get(&node.kind);
    let mut inputs = Map::new();
    for (name, value) in widgets::values(node, class) {
        inputs.insert(name, as_literal(value));
    }
    for input in &node.inputs {
        let Some(link) = input.link else { continue };
        let lost = |lost| match lost {
            Lost::Circle => Error::Circle {
                node: scopes.api_id(scope, &node.id),
                input: input.target().to_owned(),
            },
            Lost::TooMuch => Error::TooLarge { limit: MAX_PARTS },
        };
        let fed = resolver.resolve(scope, link, &input.kind).map_err(lost)?;
        match fed {
            Some(Resolved::Output { id, slot }) => {
                inputs.insert(input.target().to_owned(), json!([id, slot]));
            }
            Some(Resolved::Literal(value)) => {
                inputs.insert(input.target().to_owned(), as_literal(value));
            }
            // Nothing comes that way: a widget keeps its own value.
            None => {}
        }
    }
    let title = node
        .title
        .as_deref()
        .or(class.map(NodeClass::title))
        .unwrap_or(&node.kind);
    Ok(Some(json!({
        "inputs": in_declared_order(inputs, class),
        "class_type": node.kind,
        "_meta": { "title": title },
    })))
}

/// A bare list would be read as a link.
fn as_literal(value: Value) -> Value {
    match value {
        list @ Value::Array(_) => json!({ "__value__": list }),
        other => other,
    }
}

fn in_declared_order(mut inputs: Map<String, Value>, class: Option<&NodeClass>) -> Map<String, Value> {
    let mut ordered = Map::new();
    for (name, ..) in class.into_iter().flat_map(NodeClass::inputs) {
        if let Some(value) = inputs.remove(name) {
            ordered.insert(name.to_owned(), value);
        }
    }
    ordered.extend(inputs);
    ordered
}

/// Links to nodes that were left out (muted ones) are left out as well, with the widget's value that they replaced.
fn forget_dangling(graph: &mut Map<String, Value>) {
    let there: std::collections::HashSet<String> = graph.keys().cloned().collect();
    for node in graph.values_mut() {
        if let Some(inputs) = node["inputs"].as_object_mut() {
            inputs.retain(|_, value| match value.get(0).and_then(Value::as_str) {
                Some(from) => there.contains(from),
                None => true,
            });
        }
    }
}

/// Node types that only exist on the page.
fn is_page_only(kind: &str) -> bool {
    matches!(
        kind,
        "Note"
            | "MarkdownNote"
            | "Reroute"
            | "PrimitiveNode"
            | "GetNode"
            | "SetNode"
            | "Reroute (rgthree)"
            | "Label (rgthree)"
            | "Bookmark (rgthree)"
            | "Fast Muter (rgthree)"
            | "Fast Bypasser (rgthree)"
            | "Fast Groups Muter (rgthree)"
            | "Fast Groups Bypasser (rgthree)"
    )
}

#[cfg(test)]
mod tests;
