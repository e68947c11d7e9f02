//! A node's inputs: links resolved, literals as they are, lists mapped over calls.

use darkroom_comfy::{
    graph::{Graph, InputValue, Link, Node},
    object_info::NodeClass,
};
use indexmap::IndexMap;
use serde_json::{Map, Value as Json};

use crate::{
    nodes::call::Inputs,
    value::{Value, python},
};

/// Every input has a list of values; most have one.
pub type Lists = IndexMap<String, Vec<Value>>;

/// The inputs that are no links.
pub fn literals(node: &Node) -> Inputs {
    let literal = |(name, value): (&String, &Json)| match InputValue::classify(value) {
        InputValue::Literal(json) => Some((name.clone(), Value::Json(json.clone()))),
        InputValue::Link(_) | InputValue::BadLink(_) => None,
    };
    node.inputs.iter().filter_map(literal).collect()
}

/// The inputs that the class declares. A link whose source has nothing to give is left out; names the class does not know are ignored.
pub fn resolve(
    node: &Node,
    class: Option<&NodeClass>,
    source: impl Fn(Link<'_>) -> Option<Vec<Value>>,
) -> Lists {
    let declared = |name: &str| class.is_none_or(|class| class.input(name).is_some());
    let value = |(name, value): (&String, &Json)| {
        let values = match InputValue::classify(value) {
            InputValue::Link(link) => source(link)?,
            InputValue::Literal(json) => vec![Value::Json(json.clone())],
            InputValue::BadLink(items) => vec![Value::Json(Json::from(items))],
        };
        Some((name.clone(), values))
    };
    node.inputs
        .iter()
        .filter(|(name, _)| declared(name))
        .filter_map(value)
        .collect()
}

/// One set of inputs for each call: as many as the longest list, shorter ones repeat their last value. A class that
/// takes lists is called once, and finds the first item of each here.
pub fn calls(lists: &Lists, takes_lists: bool) -> impl Iterator<Item = Inputs> {
    let longest = match lists.values().map(Vec::len).max() {
        Some(longest) if !takes_lists => longest.max(1),
        _ => 1,
    };
    (0..longest).map(move |index| {
        let pick = |(name, values): (&String, &Vec<Value>)| {
            Some((name.clone(), values.get(index).or(values.last())?.clone()))
        };
        lists.iter().filter_map(pick).collect()
    })
}

/// The inputs as an error message shows them: plain values as they are, everything else as text.
pub fn shown(lists: &Lists) -> Map<String, Json> {
    let show = |value: &Value| match value {
        Value::Json(json @ (Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_))) => json.clone(),
        other => Json::String(other.to_python_text()),
    };
    lists
        .iter()
        .map(|(name, values)| (name.clone(), values.iter().map(show).collect()))
        .collect()
}

/// Adds what the class is given without asking for it, as the original shows it too.
pub fn show_hidden(
    class: Option<&NodeClass>,
    graph: &Graph,
    extra_data: &Map<String, Json>,
    shown: &mut Map<String, Json>,
) {
    let hidden = class.and_then(|class| class.input.get("hidden"));
    for name in hidden.into_iter().flat_map(|section| section.keys()) {
        let value = match name.as_str() {
            "prompt" => Json::from(python::repr(&graph.to_value())),
            "extra_pnginfo" => match extra_data.get(name) {
                None => Json::Null,
                Some(extra) => Json::from(python::repr(extra)),
            },
            _ => continue,
        };
        shown.insert(name.clone(), Json::from(vec![value]));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_longest_list_decides_how_often_a_node_is_called() {
        let list = |items: &[i32]| items.iter().map(|i| Value::Json(json!(i))).collect();
        let lists: Lists = [("a".to_owned(), list(&[1, 2, 3])), ("b".to_owned(), list(&[7]))].into();
        let texts: Vec<_> = calls(&lists, false)
            .map(|c| c["a"].to_python_text() + "," + &c["b"].to_python_text())
            .collect();
        assert_eq!(texts, ["1,7", "2,7", "3,7"]);
        assert_eq!(calls(&Lists::new(), false).count(), 1);
        assert_eq!(calls(&[("a".to_owned(), Vec::new())].into(), false).count(), 1);
        let whole: Vec<_> = calls(&lists, true).collect();
        assert_eq!((whole.len(), whole[0]["a"].to_python_text()), (1, "1".to_owned()));
    }
}
