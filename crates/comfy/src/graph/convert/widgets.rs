//! Which value of `widgets_values` belongs to which input.

use std::{iter::Peekable, slice::Iter};

use serde_json::Value;

use super::read::UiNode;
use crate::object_info::{InputSpec, NodeClass};

/// What the page does with a value after each run. It stands behind the value in the file; files of early editors say
/// yes or no there.
const AFTER_GENERATE: [&str; 5] = ["fixed", "increment", "decrement", "randomize", "increment-wrap"];
/// Integers that get such a control unless their class says no.
const SEEDS: [&str; 2] = ["seed", "noise_seed"];
/// Types whose inputs are widgets unless the class forces a socket.
const WIDGET_TYPES: [&str; 6] = ["INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR"];

/// The values of a node's widgets by input, in order.
pub(super) fn values(node: &UiNode, class: Option<&NodeClass>) -> Vec<(String, Value)> {
    match (&node.widgets_values, class) {
        (Value::Object(by_name), Some(class)) => class
            .inputs()
            .filter_map(|(name, ..)| Some((name.to_owned(), by_name.get(name)?.clone())))
            .collect(),
        (Value::Object(by_name), None) => by_name.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        (Value::Array(values), Some(class)) => by_class(values, class),
        (Value::Array(values), None) => by_sockets(node, values),
        _ => Vec::new(),
    }
}

/// The one value of a primitive.
pub(super) fn first(node: &UiNode) -> Option<Value> {
    node.widgets_values.get(0).cloned()
}

/// The value that an instance of a subgraph holds for one of its inputs.
pub(super) fn of_instance(instance: &UiNode, slot: usize) -> Option<Value> {
    let input = instance.inputs.get(slot)?;
    let name = input.widget.as_deref()?;
    match &instance.widgets_values {
        Value::Object(by_name) => by_name.get(name).cloned(),
        values => {
            let before = instance.inputs.iter().take(slot);
            let before = before.filter(|i| i.widget.is_some()).count();
            values.get(before).filter(|value| !value.is_null()).cloned()
        }
    }
}

fn by_class(values: &[Value], class: &NodeClass) -> Vec<(String, Value)> {
    let mut rest = values.iter().peekable();
    let mut named = Vec::new();
    for section in [NodeClass::REQUIRED, NodeClass::OPTIONAL] {
        let mut uploads = false;
        for (name, spec) in class.section(section) {
            uploads |= spec.is_file_picker();
            if !is_widget(spec) {
                continue;
            }
            let Some(value) = rest.next() else { break };
            named.push((name.to_owned(), value.clone()));
            if has_control(name, spec) {
                skip_control(&mut rest, spec.type_name() == "COMBO");
            }
        }
        // The upload button and a player are widgets of their own behind those of their section.
        while uploads && rest.next_if(|next| is_of_upload(next)).is_some() {}
    }
    named
}

/// Newer editors list a socket for every widget, in the order of the widgets.
fn by_sockets(node: &UiNode, values: &[Value]) -> Vec<(String, Value)> {
    let mut rest = values.iter().peekable();
    let mut named = Vec::new();
    for name in node.inputs.iter().filter_map(|input| input.widget.as_deref()) {
        let Some(value) = rest.next() else { break };
        named.push((name.to_owned(), value.clone()));
        if SEEDS.contains(&name) {
            skip_control(&mut rest, false);
        }
    }
    named
}

/// A combo's control has a filter behind it.
fn skip_control(rest: &mut Peekable<Iter<'_, Value>>, combo: bool) {
    let control = |next: &&Value| match next {
        Value::String(text) => AFTER_GENERATE.contains(&text.as_str()),
        Value::Bool(_) => true,
        _ => false,
    };
    if rest.next_if(control).is_some() && combo {
        rest.next_if(|next| next.is_string());
    }
}

fn is_widget(spec: &InputSpec) -> bool {
    let flag = |name: &str| spec.options.get(name) == Some(&Value::Bool(true));
    WIDGET_TYPES.contains(&spec.type_name()) && !flag("forceInput") && !flag("rawLink")
}

fn has_control(name: &str, spec: &InputSpec) -> bool {
    match spec.options.get("control_after_generate") {
        Some(asked) if !asked.is_null() => *asked != Value::Bool(false),
        _ => spec.type_name() == "INT" && SEEDS.contains(&name),
    }
}

fn is_of_upload(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => {
            matches!(text.as_str(), "" | "image" | "upload" | "audio" | "video") || text.contains("/view?")
        }
        _ => false,
    }
}
