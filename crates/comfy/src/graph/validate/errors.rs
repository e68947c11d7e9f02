//! The shapes of ComfyUI's refusals, as its page and other clients read them.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::graph::{NodeId, ParseError};

/// The one error of a refused prompt: `error` in the body of a 400.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PromptError {
    /// `no_prompt`, `invalid_prompt`, `prompt_no_outputs` or `prompt_outputs_failed_validation`.
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    #[serde(default)]
    pub details: String,
    #[serde(default)]
    pub extra_info: Map<String, Value>,
}

/// One thing wrong with one node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeError {
    /// `required_input_missing`, `value_not_in_list`, …: the closed list of ComfyUI.
    #[serde(rename = "type")]
    pub kind: String,
    pub message: String,
    #[serde(default)]
    pub details: String,
    #[serde(default)]
    pub extra_info: Map<String, Value>,
}

/// Everything wrong with one node, and which outputs cannot be made because of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeErrors {
    #[serde(default)]
    pub errors: Vec<NodeError>,
    #[serde(default)]
    pub dependent_outputs: Vec<NodeId>,
    #[serde(default)]
    pub class_type: String,
}

/// A refused graph; serialises to the body that ComfyUI sends with status 400.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{}", summary(self))]
pub struct Rejected {
    pub error: PromptError,
    pub node_errors: IndexMap<NodeId, NodeErrors>,
}

impl PromptError {
    pub(super) fn new(kind: &str, message: impl Into<String>, details: impl Into<String>) -> Self {
        let (message, details) = (message.into(), details.into());
        Self {
            kind: kind.to_owned(),
            message,
            details,
            extra_info: Map::new(),
        }
    }

    pub(super) fn no_outputs() -> Self {
        Self::new("prompt_no_outputs", "Prompt has no outputs", "")
    }

    pub(super) fn outputs_failed(details: impl Into<String>) -> Self {
        Self::new(
            "prompt_outputs_failed_validation",
            "Prompt outputs failed validation",
            details,
        )
    }
}

impl Rejected {
    /// A refusal that concerns no single node's inputs.
    pub fn whole(error: PromptError) -> Self {
        Self {
            error,
            node_errors: IndexMap::new(),
        }
    }

    /// Takes out the tracebacks that an instance put in: they tell paths of its host.
    pub fn hide_tracebacks(&mut self) {
        for error in self.node_errors.values_mut().flat_map(|node| &mut node.errors) {
            if let Some(traceback) = error.extra_info.get_mut("traceback") {
                *traceback = json!([]);
            }
        }
    }

    /// The refusal of a request without a `prompt`, as ComfyUI words it.
    pub fn no_prompt() -> Self {
        Self::whole(PromptError::new(
            "no_prompt",
            "No prompt provided",
            "No prompt provided",
        ))
    }
}

impl NodeError {
    pub(super) fn new(kind: &str, message: impl Into<String>, details: impl Into<String>) -> Self {
        let (message, details) = (message.into(), details.into());
        Self {
            kind: kind.to_owned(),
            message,
            details,
            extra_info: Map::new(),
        }
    }

    #[must_use]
    pub(super) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.extra_info.insert(key.to_owned(), value.into());
        self
    }

    /// What ComfyUI reports when its own validator raised. We name the cause instead of quoting Python, and the
    /// traceback stays empty: it would tell paths of the server.
    pub(super) fn exception(inner: bool, exception_type: &str, details: impl Into<String>) -> Self {
        let details = details.into();
        let error = if inner {
            let message = "Exception when validating inner node";
            Self::new("exception_during_inner_validation", message, details.clone())
                .with("exception_message", details)
        } else {
            Self::new(
                "exception_during_validation",
                "Exception when validating node",
                details,
            )
        };
        error
            .with("exception_type", exception_type)
            .with("traceback", json!([]))
    }
}

/// A graph that could not even be parsed, in the shape of a failed validation.
impl From<ParseError> for Rejected {
    fn from(error: ParseError) -> Self {
        let text = error.to_string();
        match error {
            ParseError::ClassTypeMissing { node } => Self::whole(PromptError::new(
                "invalid_prompt",
                "Cannot execute because a node is missing the class_type property.",
                format!("Node ID '#{node}'"),
            )),
            ParseError::NodeNotAnObject { node, .. } | ParseError::ClassTypeNotText { node, .. } => {
                let details = format!("Node ID '#{node}'");
                Self::whole(PromptError::new(
                    "invalid_prompt",
                    format!("Cannot execute because {text}."),
                    details,
                ))
            }
            ParseError::InputsMissing { node, class_type } => bad_inputs(node, class_type, "KeyError", text),
            ParseError::InputsNotAnObject { node, class_type, .. } => {
                bad_inputs(node, class_type, "TypeError", text)
            }
            ParseError::NotAnObject { .. } | ParseError::UiFormat | ParseError::TooManyNodes { .. } => {
                Self::whole(PromptError::new(
                    "invalid_prompt",
                    "Cannot execute because the graph is not valid.",
                    text,
                ))
            }
        }
    }
}

fn bad_inputs(node: NodeId, class_type: String, exception_type: &str, text: String) -> Rejected {
    let error = NodeError::exception(false, exception_type, text);
    let details = format!("{}: {}", error.message, error.details);
    let errors = NodeErrors {
        errors: vec![error],
        dependent_outputs: vec![node.clone()],
        class_type,
    };
    Rejected {
        error: PromptError::outputs_failed(details),
        node_errors: [(node, errors)].into(),
    }
}

/// One line for people: the message, and the first thing wrong with a node where the details say nothing.
fn summary(rejected: &Rejected) -> String {
    let PromptError { message, details, .. } = &rejected.error;
    let first = rejected.node_errors.iter().find_map(|(id, node)| {
        let error = node.errors.first()?;
        Some(format!(
            "node '{id}' ({}): {}: {}",
            node.class_type, error.message, error.details
        ))
    });
    match (first, details.as_str()) {
        (Some(first), _) => format!("{message}: {first}"),
        (None, "") => message.clone(),
        (None, details) => format!("{message} ({details})"),
    }
}
