//! One input of one node: conversion, range, choices, and the type of a link.
#![expect(
    clippy::result_large_err,
    reason = "the error is the answer here, made once per faulty input"
)]

use std::cmp::Ordering;

use serde_json::Value;

use super::errors::NodeError;
use super::python;
use super::suggest::Suggester;
use crate::graph::InputValue;
use crate::object_info::{InputKind, InputSpec};

/// Longer texts are cut in messages; `received_value` always has the whole.
const SHOWN_CHARS: usize = 300;
/// ComfyUI's bound for lists of choices in an error.
const SHOWN_CHOICES: usize = 20;

/// An input as it is looked at.
#[derive(Clone, Copy)]
pub(super) struct Input<'a> {
    pub name: &'a str,
    pub spec: &'a InputSpec,
    /// True if the class judges range and choices itself.
    pub covered: bool,
}

impl Input<'_> {
    /// Converts a literal as Python would and checks it. `Some` is the value to put in the old one's place.
    pub(super) fn literal(
        &self,
        value: &Value,
        suggester: &mut Suggester,
    ) -> Result<Option<Value>, NodeError> {
        let wrapped = value;
        let value = match InputValue::classify(value) {
            InputValue::Literal(value) => value,
            InputValue::Link(_) | InputValue::BadLink(_) => value,
        };
        let converted = self.convert(value)?;
        let current = converted.as_ref().unwrap_or(value);
        if !self.covered {
            self.check_range(current)?;
            self.check_choice(current, suggester)?;
        }
        let unwrapped = !std::ptr::eq(wrapped, value);
        Ok(converted.or_else(|| unwrapped.then(|| value.clone())))
    }

    /// The new value, or `None` where the type needs no conversion or the value has it already.
    fn convert(&self, value: &Value) -> Result<Option<Value>, NodeError> {
        let converted = match (self.spec.type_name(), value) {
            ("STRING", Value::String(_)) | ("BOOLEAN", Value::Bool(_)) => return Ok(None),
            ("INT", _) => python::int_of(value),
            ("FLOAT", _) => python::float_of(value),
            ("STRING", _) => Ok(Value::String(python::str_of(value))),
            ("BOOLEAN", _) => Ok(Value::Bool(python::truth(value))),
            _ => return Ok(None),
        };
        match converted {
            // JSON knows 7 and 7.0 apart, and so does what reads the graph later.
            Ok(converted) => Ok((converted != *value).then_some(converted)),
            Err(exception) => {
                let kind = self.spec.type_name();
                let message = format!("Failed to convert an input value to a {kind} value");
                let details = format!("{}, {}, {exception}", self.name, shown(value));
                let error = self
                    .error("invalid_input_type", message, details)
                    .with("received_value", value.clone());
                Err(error.with("exception_message", exception))
            }
        }
    }

    fn check_range(&self, value: &Value) -> Result<(), NodeError> {
        let limits = [
            (
                self.spec.min(),
                Ordering::Less,
                "value_smaller_than_min",
                "smaller than min",
            ),
            (
                self.spec.max(),
                Ordering::Greater,
                "value_bigger_than_max",
                "bigger than max",
            ),
        ];
        for (limit, wrong, kind, relation) in limits {
            let Some(limit) = limit else { continue };
            if python::compare(value, limit) == Some(wrong) {
                let message = format!("Value {} {relation} of {}", shown(value), python::str_of(limit));
                return Err(self
                    .error(kind, message, self.name)
                    .with("received_value", value.clone()));
            }
        }
        Ok(())
    }

    fn check_choice(&self, value: &Value, suggester: &mut Suggester) -> Result<(), NodeError> {
        let Some(choices) = self.spec.choices() else {
            return Ok(());
        };
        let offered = |value: &Value| choices.iter().any(|choice| python::equal(choice, value));
        let several = self.spec.options.get("multiselect") == Some(&Value::Bool(true));
        let fine = match value {
            Value::Array(values) if several => values.iter().all(offered),
            value => offered(value),
        };
        if fine {
            return Ok(());
        }
        let list = match choices.len() {
            0..=SHOWN_CHOICES => python::repr(&Value::Array(choices.to_vec())),
            length => format!("(list of length {length})"),
        };
        let details = format!("{}: '{}' not in {list}", self.name, shown(value));
        let error = self.error("value_not_in_list", "Value not in list", details);
        let mut error = error.with("received_value", value.clone());
        if let Value::String(text) = value {
            let near = suggester.nearest(text, choices.iter().filter_map(Value::as_str));
            if !near.is_empty() {
                error = error.with("suggestions", near);
            }
        }
        Err(error)
    }

    /// A list whose length is not two.
    pub(super) fn wrong_length(&self, value: &Value) -> NodeError {
        let message = "Bad linked input, must be a length-2 list of [node_id, slot_index]";
        self.error("bad_linked_input", message, self.name)
            .with("received_value", value.clone())
    }

    /// A link whose output has another type than this input takes.
    pub(super) fn type_mismatch(&self, link: &Value, received: &Value) -> NodeError {
        let wanted = match &self.spec.kind {
            InputKind::Choices(choices) if choices.len() <= SHOWN_CHOICES => {
                python::repr(&Value::Array(choices.clone()))
            }
            _ => self.spec.type_name().to_owned(),
        };
        let details = format!(
            "{}, received_type({}) mismatch input_type({wanted})",
            self.name,
            python::str_of(received)
        );
        self.error(
            "return_type_mismatch",
            "Return type mismatch between linked nodes",
            details,
        )
        .with("received_type", received.clone())
        .with("linked_node", link.clone())
    }

    /// A link that leads nowhere, or a list that is no link.
    pub(super) fn broken_link(
        &self,
        inner: bool,
        exception_type: &str,
        link: &Value,
        why: String,
    ) -> NodeError {
        NodeError::exception(inner, exception_type, format!("{}: {why}", self.name))
            .with("input_name", self.name)
            .with("input_config", self.config())
            .with("linked_node", link.clone())
    }

    fn error(&self, kind: &str, message: impl Into<String>, details: impl Into<String>) -> NodeError {
        NodeError::new(kind, message, details)
            .with("input_name", self.name)
            .with("input_config", self.config())
    }

    /// `input_config`: null for long lists of choices, which would repeat a whole model directory per error.
    fn config(&self) -> Value {
        match self.spec.choices() {
            Some(choices) if choices.len() > SHOWN_CHOICES => Value::Null,
            _ => self.spec.config(),
        }
    }
}

/// The error of a required input that is absent.
pub(super) fn missing(name: &str) -> NodeError {
    NodeError::new("required_input_missing", "Required input is missing", name).with("input_name", name)
}

/// The error of an input that the class's own validation refused.
pub(super) fn refused(name: &str, reason: Option<&str>) -> NodeError {
    let details = reason.map_or_else(|| name.to_owned(), |reason| format!("{name} - {reason}"));
    NodeError::new(
        "custom_validation_failed",
        "Custom validation failed for node",
        details,
    )
    .with("input_name", name)
}

/// Whether an output of type `received` may feed this input: equal types, `*` on either side, or one common
/// name in comma-separated lists. Old-style combos match an equal list of choices only.
pub(super) fn types_overlap(received: &Value, spec: &InputSpec) -> bool {
    match (received, &spec.kind) {
        (Value::String(received), _) if received == "*" => true,
        (_, InputKind::Named(wanted)) if wanted == "*" => true,
        (Value::String(received), InputKind::Named(wanted)) => received
            .split(',')
            .any(|r| wanted.split(',').any(|w| r.trim() == w.trim())),
        (Value::Array(received), InputKind::Choices(wanted)) => received == wanted,
        _ => false,
    }
}

fn shown(value: &Value) -> String {
    let text = python::str_of(value);
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
