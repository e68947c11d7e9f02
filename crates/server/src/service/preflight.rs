//! Refusing a bad graph before it is queued, in ComfyUI's own words.

use darkroom_comfy::graph::{
    Graph, NodeId, ParseError,
    validate::{Preflight, Rejected, Validated, validate},
};
use darkroom_comfy::object_info::ObjectInfo;
use serde_json::{Map, Value, json};

use super::intake;

/// A refused graph: what ComfyUI's `POST /prompt` would answer with status 400.
#[derive(Debug, Clone, PartialEq)]
pub struct Refusal {
    /// `{type, message, details, extra_info}`.
    pub error: Value,
    /// `{node id: {errors, dependent_outputs, class_type}}`.
    pub node_errors: Value,
}

impl Refusal {
    /// A refusal of one input of one node, in the shape of ComfyUI's own validators.
    pub fn of_input(node_id: &str, class_type: &str, input: &str, details: &str) -> Self {
        let details = format!("{input} - {details}");
        Refusal {
            error: json!({
                "type": "prompt_outputs_failed_validation",
                "message": "Prompt outputs failed validation",
                "details": details,
                "extra_info": {},
            }),
            node_errors: json!({ node_id: {
                "errors": [{
                    "type": "custom_validation_failed",
                    "message": "Custom validation failed for node",
                    "details": details,
                    "extra_info": { "input_name": input },
                }],
                "dependent_outputs": [],
                "class_type": class_type,
            }}),
        }
    }

    /// A refusal of the graph as a whole.
    pub fn of_graph(message: impl Into<String>, details: impl Into<String>) -> Self {
        let error = json!({
            "type": "invalid_prompt",
            "message": message.into(),
            "details": details.into(),
            "extra_info": {},
        });
        Refusal {
            error,
            node_errors: Value::Object(Map::new()),
        }
    }

    /// One line for a person: the message, where it is, and the nearest known names.
    pub fn message(&self) -> String {
        let text = |key: &str| self.error.get(key).and_then(Value::as_str).unwrap_or("");
        let mut line = text("message").to_owned();
        if !text("details").is_empty() {
            line = format!("{line}: {}", text("details"));
        }
        let first = self.node_errors.as_object().and_then(|nodes| nodes.iter().next());
        if let Some((id, node)) = first
            && text("details").is_empty()
        {
            let class = node.get("class_type").and_then(Value::as_str).unwrap_or("");
            let error = node.pointer("/errors/0");
            let part = |key: &str| {
                error
                    .and_then(|e| e.get(key))
                    .and_then(Value::as_str)
                    .unwrap_or("")
            };
            line = format!(
                "{line}: node {id} ({class}): {}: {}",
                part("message"),
                part("details")
            );
        }
        if let Some(names) = self
            .error
            .pointer("/extra_info/suggestions")
            .and_then(Value::as_array)
        {
            let names: Vec<&str> = names.iter().filter_map(Value::as_str).collect();
            line = format!("{line} (did you mean {}?)", names.join(", "));
        }
        line
    }
}

impl From<Rejected> for Refusal {
    fn from(rejected: Rejected) -> Self {
        Refusal {
            error: json!(rejected.error),
            node_errors: json!(rejected.node_errors),
        }
    }
}

impl From<ParseError> for Refusal {
    fn from(error: ParseError) -> Self {
        Refusal::of_graph("the workflow cannot be read", error.to_string())
    }
}

/// Checks a graph, before its loader inputs are taken in. Without `info` (no instance of the endpoint has ever told
/// what it can do) only its form is checked, and the instance has the last word.
///
/// # Errors
/// The refusal; `embedded` adds how to get more node classes to the refusal of an unknown one.
pub fn check(
    graph: &Graph,
    info: Option<&ObjectInfo>,
    targets: Option<&[NodeId]>,
    embedded: bool,
) -> Result<Validated, Box<Refusal>> {
    if graph.nodes.is_empty() {
        let error = json!({
            "type": "prompt_no_outputs",
            "message": "Prompt has no outputs",
            "details": "",
            "extra_info": {},
        });
        return Err(Box::new(Refusal {
            error,
            node_errors: json!({}),
        }));
    }
    let Some(info) = info else {
        if let Some(cycle) = graph.find_cycle() {
            return Err(Box::new(Refusal::of_graph(
                "the workflow has a cycle",
                cycle.to_string(),
            )));
        }
        return Ok(Validated {
            graph: graph.clone(),
            outputs: vec![],
            node_errors: Default::default(),
        });
    };
    validate(graph, info, targets, &Checks).map_err(|rejected| {
        let unknown_class = rejected.error.kind == "invalid_prompt" && rejected.node_errors.is_empty();
        let mut refusal = Refusal::from(*rejected);
        if embedded && unknown_class {
            let hint = "this endpoint runs the embedded engine, which has a few weight-free nodes only; give the \
                        endpoint a ComfyUI: `comfyui = \"/path/to/ComfyUI\"` in darkroom.toml, or \
                        `darkroom serve --comfyui PATH`";
            refusal.error["extra_info"]["hint"] = Value::from(hint);
            let message = refusal.error["message"].as_str().unwrap_or("").to_owned();
            refusal.error["message"] = Value::from(format!("{message} ({hint})"));
        }
        Box::new(refusal)
    })
}

/// File inputs were resolved by [`intake`], which knows what exists; the rest is as in comfy's own pre-flight.
pub(super) struct Checks;

impl darkroom_comfy::graph::validate::InputChecks for Checks {
    fn covers(&self, class_type: &str, input: &str, spec: &darkroom_comfy::object_info::InputSpec) -> bool {
        intake::is_loader_input(class_type, input) || Preflight.covers(class_type, input, spec)
    }
}
