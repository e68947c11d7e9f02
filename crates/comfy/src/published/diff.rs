//! What two versions differ in.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::Published;

/// The differences from one version to another.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Diff {
    /// Nodes that only the second has: id and class.
    pub nodes_added: Vec<NodeChange>,
    /// Nodes that only the first has.
    pub nodes_removed: Vec<NodeChange>,
    /// Nodes of both with other classes or values.
    pub nodes_changed: Vec<NodeChange>,
    /// Published inputs, by name.
    pub inputs: Changed,
    /// Published outputs, by name.
    pub outputs: Changed,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeChange {
    /// Its id.
    pub id: String,
    /// Its class, in the second version where it is in both.
    pub class_type: String,
    /// The class that it had, if that is another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_before: Option<String>,
    /// Its inputs that differ.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldChange>,
}

/// One input of a node; null stands for "none".
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldChange {
    /// Its name.
    pub field: String,
    /// What stood there.
    pub from: Option<Value>,
    /// What stands there now.
    pub to: Option<Value>,
}

/// Names that were added, removed, or declared anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Only in the second.
    pub added: Vec<String>,
    /// Only in the first.
    pub removed: Vec<String>,
    /// In both, and different.
    pub changed: Vec<String>,
}

impl Diff {
    /// From `old` to `new`. What the editor notes beside a node (`_meta`) does not count: nothing runs otherwise for it.
    pub fn between(old: &Published, new: &Published) -> Diff {
        let empty = Map::new();
        let (before, after) = (
            old.graph.as_object().unwrap_or(&empty),
            new.graph.as_object().unwrap_or(&empty),
        );
        let only = |here: &Map<String, Value>, there: &Map<String, Value>| -> Vec<NodeChange> {
            let nodes = here.iter().filter(|(id, _)| !there.contains_key(*id));
            nodes
                .map(|(id, node)| change(id, node, None, Vec::new()))
                .collect()
        };
        let mut diff = Diff {
            nodes_added: only(after, before),
            nodes_removed: only(before, after),
            nodes_changed: Vec::new(),
            inputs: changed(&old.inputs, &new.inputs, |input| &input.name),
            outputs: changed(&old.outputs, &new.outputs, |output| &output.name),
        };
        for (id, node) in after {
            let Some(old) = before.get(id) else { continue };
            let class_before = (class(old) != class(node)).then(|| class(old).to_owned());
            let fields = fields(&old["inputs"], &node["inputs"]);
            if class_before.is_some() || !fields.is_empty() {
                diff.nodes_changed.push(change(id, node, class_before, fields));
            }
        }
        diff
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        *self == Diff::default()
    }
}

fn change(id: &str, node: &Value, class_before: Option<String>, fields: Vec<FieldChange>) -> NodeChange {
    NodeChange {
        id: id.to_owned(),
        class_type: class(node).to_owned(),
        class_before,
        fields,
    }
}

fn class(node: &Value) -> &str {
    node["class_type"].as_str().unwrap_or_default()
}

fn fields(before: &Value, after: &Value) -> Vec<FieldChange> {
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .into_iter()
            .flat_map(Map::keys)
            .cloned()
            .collect()
    };
    let names: BTreeSet<String> = keys(before).into_iter().chain(keys(after)).collect();
    let of = |field: String| {
        let (from, to) = (before.get(&field).cloned(), after.get(&field).cloned());
        (from != to).then_some(FieldChange { field, from, to })
    };
    names.into_iter().filter_map(of).collect()
}

fn changed<T: Serialize>(before: &[T], after: &[T], name: impl Fn(&T) -> &String) -> Changed {
    let find =
        |list: &'_ [T], wanted: &str| list.iter().find(|one| name(one) == wanted).map(|one| json!(one));
    let mut found = Changed::default();
    for one in after {
        match find(before, name(one)) {
            None => found.added.push(name(one).clone()),
            Some(old) if old != json!(one) => found.changed.push(name(one).clone()),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|one| find(after, name(one)).is_none());
    found.removed = gone.map(|one| name(one).clone()).collect();
    found
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(graph: Value) -> Published {
        Published {
            graph,
            inputs: vec![],
            outputs: vec![],
            seeds: vec![],
        }
    }

    #[test]
    fn added_removed_and_changed_nodes_are_told_apart() {
        let old = of(json!({
            "1": {"class_type": "A", "inputs": {"x": 1, "y": ["2", 0], "gone": true}},
            "2": {"class_type": "B", "inputs": {}},
            "4": {"class_type": "D", "inputs": {}, "_meta": {"title": "one"}},
        }));
        let new = of(json!({
            "1": {"class_type": "A2", "inputs": {"x": 2, "y": ["2", 0]}},
            "3": {"class_type": "C", "inputs": {}},
            "4": {"class_type": "D", "inputs": {}, "_meta": {"title": "two"}},
        }));
        let diff = json!(Diff::between(&old, &new));
        assert_eq!(diff["nodes_added"], json!([{"id": "3", "class_type": "C"}]));
        assert_eq!(diff["nodes_removed"], json!([{"id": "2", "class_type": "B"}]));
        assert_eq!(
            diff["nodes_changed"],
            json!([{"id": "1", "class_type": "A2", "class_before": "A", "fields": [
                {"field": "gone", "from": true, "to": null}, {"field": "x", "from": 1, "to": 2},
            ]}])
        );
    }

    /// Does to a graph what a diff says.
    fn apply(graph: &mut Value, diff: &Diff) {
        let nodes = graph.as_object_mut().unwrap();
        for node in &diff.nodes_removed {
            nodes.remove(&node.id);
        }
        for node in &diff.nodes_changed {
            let own = &mut nodes[&node.id];
            own["class_type"] = json!(node.class_type);
            for field in &node.fields {
                let inputs = own["inputs"].as_object_mut().unwrap();
                match &field.to {
                    Some(to) => inputs.insert(field.field.clone(), to.clone()),
                    None => inputs.remove(&field.field),
                };
            }
        }
    }

    fn graphs() -> impl Strategy<Value = Value> {
        let fields = proptest::collection::btree_map("[xyz]", 0..3i64, 0..3);
        let nodes = proptest::collection::btree_map("[1-4]", ("[AB]", fields), 0..4);
        nodes.prop_map(|nodes| {
            let nodes = nodes.into_iter();
            nodes
                .map(|(id, (class, inputs))| (id, json!({"class_type": class, "inputs": inputs})))
                .collect::<Map<_, _>>()
                .into()
        })
    }

    proptest! {
        #[test]
        fn what_a_diff_says_is_all_that_differs(a in graphs(), b in graphs()) {
            prop_assert!(Diff::between(&of(a.clone()), &of(a.clone())).is_empty());
            let diff = Diff::between(&of(a.clone()), &of(b.clone()));
            let mut made = a;
            apply(&mut made, &diff);
            for node in &diff.nodes_added {
                made[&node.id] = b[&node.id].clone();
            }
            prop_assert_eq!(made, b);
        }
    }
}
