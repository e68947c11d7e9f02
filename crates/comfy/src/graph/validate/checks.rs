//! How a server that knows more than `object_info` takes part in validation.

use indexmap::IndexMap;
use serde_json::Value;

use crate::graph::is_file_input;
use crate::object_info::InputSpec;

/// The literal inputs of one node after conversion, without links.
pub type Literals<'a> = IndexMap<&'a str, &'a Value>;

/// A node class's own validation (ComfyUI's `VALIDATE_INPUTS`). The defaults say: no class validates itself.
pub trait InputChecks {
    /// True if the class judges this input itself: then the range and the list of choices are not looked at.
    fn covers(&self, class_type: &str, input: &str, spec: &InputSpec) -> bool {
        let _ = (class_type, input, spec);
        false
    }

    /// True if the class judges the types of its links itself (it asks for `input_types`).
    fn covers_link_types(&self, class_type: &str) -> bool {
        let _ = class_type;
        false
    }

    /// The class's verdict over its literal inputs; empty if it has no objection.
    fn check(&self, class_type: &str, literals: &Literals<'_>) -> Vec<Refusal> {
        let _ = (class_type, literals);
        Vec::new()
    }
}

/// One input that a class's own validation refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub input: String,
    /// What the class said, if more than no.
    pub reason: Option<String>,
}

/// Nothing beyond `object_info` is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoChecks;

impl InputChecks for NoChecks {}

/// Checks for a graph that will run elsewhere, against an `object_info` fetched earlier: choices that depend on
/// the instance's directories at the time of the run (uploads, lists fetched by the browser) are not judged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Preflight;

impl InputChecks for Preflight {
    fn covers(&self, class_type: &str, input: &str, spec: &InputSpec) -> bool {
        is_file_input(class_type, input, spec) || spec.options.contains_key("remote")
    }
}
