//! What a graph needs of the box it runs on, in the words of the scheduler.

use std::collections::BTreeSet;

use darkroom_core::scheduler::{Need, Needs, Offers};
use serde_json::Value;

use super::{Graph, InputValue, NodeId, validate::InputChecks};
use crate::object_info::{InputSpec, ObjectInfo};

/// What a graph needs that `info` found valid: the classes of all its nodes (ComfyUI refuses a graph with an unknown
/// class anywhere, `comfyui/behaviour.md` §4), and the choices of those that `outputs` depend on.
pub fn needs(graph: &Graph, outputs: &[NodeId], info: &ObjectInfo, hooks: &dyn InputChecks) -> Needs {
    let mut all: BTreeSet<Need> = graph
        .nodes
        .values()
        .map(|node| Need::Class(node.class_type.clone()))
        .collect();
    for id in above(graph, outputs) {
        let Some(node) = graph.get(id) else { continue };
        let Some(class) = info.get(&node.class_type) else {
            continue;
        };
        for (name, value) in &node.inputs {
            let InputValue::Literal(Value::String(value)) = InputValue::classify(value) else {
                continue;
            };
            let spec = class.input(name);
            if spec.is_some_and(|spec| choices(&node.class_type, name, spec, hooks).is_some()) {
                all.insert(Need::Choice(node.class_type.clone(), name.clone(), value.clone()));
            }
        }
    }
    Needs(all)
}

/// What a box with this `object_info` offers.
pub fn offers(info: &ObjectInfo, hooks: &dyn InputChecks) -> Offers {
    let mut offers = Offers::default();
    for (name, class) in &info.classes {
        offers.add_class(name);
        for (input, spec, _) in class.inputs() {
            if let Some(choices) = choices(name, input, spec, hooks) {
                let texts = choices.iter().filter_map(Value::as_str).map(str::to_owned);
                offers.add_choices(name, input, texts);
            }
        }
    }
    offers
}

/// The values that an input is judged by; `None` where validation does not look at them.
fn choices<'a>(
    class: &str,
    input: &str,
    spec: &'a InputSpec,
    hooks: &dyn InputChecks,
) -> Option<&'a [Value]> {
    spec.choices().filter(|_| !hooks.covers(class, input, spec))
}

/// The nodes that these depend on, and themselves.
fn above<'a>(graph: &'a Graph, outputs: &'a [NodeId]) -> BTreeSet<&'a str> {
    let mut seen: BTreeSet<&str> = BTreeSet::new();
    let mut open: Vec<&str> = outputs.iter().map(NodeId::as_str).collect();
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        if let Some((id, node)) = graph.nodes.get_key_value(id) {
            seen.insert(id.as_str());
            for (_, value) in &node.inputs {
                if let InputValue::Link(link) = InputValue::classify(value) {
                    open.push(link.node);
                }
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::graph::validate::Preflight;

    fn info(models: &[&str]) -> ObjectInfo {
        ObjectInfo::parse(json!({
            "Load": {"input": {"required": {"ckpt": [models, {}], "seed": ["INT", {}]}}, "output": ["MODEL"]},
            "LoadImage": {"input": {"required": {"image": [["a.png"], {"image_upload": true}]}}, "output": ["IMAGE"]},
            "Save": {"input": {"required": {"model": ["MODEL"], "image": ["IMAGE"], "text": ["STRING", {}]}}, "output": [], "output_node": true},
            "Note": {"input": {"required": {"mode": [["x", "y"], {}]}}, "output": []},
        }))
        .unwrap()
    }

    fn graph(model: &str) -> Graph {
        Graph::parse(&json!({
            "1": {"class_type": "Load", "inputs": {"ckpt": model, "seed": 1}},
            "2": {"class_type": "LoadImage", "inputs": {"image": "uploaded.png"}},
            "3": {"class_type": "Save", "inputs": {"model": ["1", 0], "image": ["2", 0], "text": "free"}},
            "4": {"class_type": "Note", "inputs": {"mode": "z"}},
        }))
        .unwrap()
    }

    #[test]
    fn a_graph_needs_its_classes_and_the_choices_its_outputs_depend_on() {
        let needs = needs(&graph("sd.ckpt"), &["3".into()], &info(&["sd.ckpt"]), &Preflight);
        let class = |name: &str| Need::Class(name.into());
        let model = Need::Choice("Load".into(), "ckpt".into(), "sd.ckpt".into());
        let want = [
            class("Load"),
            class("LoadImage"),
            class("Save"),
            class("Note"),
            model.clone(),
        ];
        assert_eq!(needs.0, want.into());
        assert!(offers(&info(&["sd.ckpt", "x"]), &Preflight).meets(&needs));
        let other = offers(&info(&["x"]), &Preflight);
        assert_eq!(other.lacks(&needs), [&model]);
    }
}
