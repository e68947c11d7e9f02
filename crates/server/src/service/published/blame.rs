//! A refused submit in the words of who called a published workflow: they know inputs by name, and neither nodes nor fields.

use darkroom_comfy::published::{Input, Problem, ProblemKind, Published};
use serde_json::Value;

use super::CallError;
use crate::service::{Error, intake::NO_SUCH_FILE};

/// The refusal as problems of inputs, where all of it is about published ones; else as it is.
pub(super) fn of_inputs(error: Error, published: &Published) -> CallError {
    let at = |node: &str, field: &str| {
        let mut inputs = published.inputs.iter();
        inputs.find(|input| input.node == node && input.field == field)
    };
    let problems = match &error {
        Error::InputUnavailable(why) => {
            let input = why.place.as_ref().and_then(|(node, field)| at(node, field));
            input.map(|input| vec![problem(input, ProblemKind::BadFile, why.plain.clone())])
        }
        Error::InvalidGraph(refusal) => {
            let nodes = refusal.node_errors.as_object().into_iter().flatten();
            let faults = nodes.flat_map(|(node, of_it)| {
                let errors = of_it["errors"].as_array().into_iter().flatten();
                errors.map(move |error| (node, error))
            });
            let found: Option<Vec<Problem>> = faults
                .map(|(node, error)| {
                    let field = error.pointer("/extra_info/input_name").and_then(Value::as_str)?;
                    Some(of_fault(at(node, field)?, error))
                })
                .collect();
            found.filter(|problems| !problems.is_empty())
        }
        _ => None,
    };
    problems.map_or(CallError::Service(error), CallError::Inputs)
}

fn of_fault(input: &Input, error: &Value) -> Problem {
    let details = error["details"].as_str().unwrap_or_default();
    let plain = details
        .strip_prefix(&format!("{} - ", input.field))
        .unwrap_or(details);
    if let Some(name) = plain.strip_prefix(NO_SUCH_FILE) {
        let message = format!(
            "there is no file '{name}': give an address, a data URI, or the name of a file that was uploaded"
        );
        return problem(input, ProblemKind::BadFile, message);
    }
    let kind = match error["type"].as_str().unwrap_or_default() {
        _ if input.kind.is_file() => ProblemKind::BadFile,
        "value_not_in_list" => ProblemKind::NotAChoice,
        "value_smaller_than_min" | "value_bigger_than_max" => ProblemKind::OutOfRange,
        _ => ProblemKind::WrongType,
    };
    let message = match (input.kind.is_file(), error["message"].as_str()) {
        (false, Some(message)) => format!("{message}: {plain}"),
        _ => plain.to_owned(),
    };
    problem(input, kind, message)
}

fn problem(input: &Input, kind: ProblemKind, message: String) -> Problem {
    Problem {
        kind,
        input: input.name.clone(),
        message,
    }
}
