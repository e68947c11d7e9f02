//! What several boxes can do together.

use serde_json::Value;

use super::{InputKind, InputSpec, NodeClass, ObjectInfo};

impl ObjectInfo {
    /// Every class that any of them has, with every choice that any of them offers. Where they declare a class
    /// differently (versions), the first one's declaration counts.
    pub fn union<'a>(all: impl IntoIterator<Item = &'a ObjectInfo>) -> ObjectInfo {
        let mut union = ObjectInfo::default();
        for info in all {
            for (name, class) in &info.classes {
                match union.classes.get_mut(name) {
                    Some(known) => add_choices(known, class),
                    None => {
                        union.classes.insert(name.clone(), class.clone());
                    }
                }
            }
        }
        union
    }
}

fn add_choices(known: &mut NodeClass, class: &NodeClass) {
    for (section, inputs) in &mut known.input {
        let Some(others) = class.input.get(section) else {
            continue;
        };
        for (name, spec) in inputs {
            if let Some(other) = others.get(name) {
                spec.add_choices_of(other);
            }
        }
    }
}

impl InputSpec {
    /// Adds the choices of another declaration of the same input that this one lacks.
    fn add_choices_of(&mut self, other: &InputSpec) {
        let (Some(mine), Some(theirs)) = (self.choices(), other.choices()) else {
            return;
        };
        let known: std::collections::HashSet<String> = mine.iter().map(Value::to_string).collect();
        let more: Vec<Value> = theirs
            .iter()
            .filter(|value| !known.contains(&value.to_string()))
            .cloned()
            .collect();
        if more.is_empty() {
            return;
        }
        match &mut self.kind {
            InputKind::Choices(choices) => choices.extend(more),
            InputKind::Named(_) => match self.options.get_mut("options") {
                Some(Value::Array(choices)) => choices.extend(more),
                _ => {
                    self.options.insert("options".to_owned(), Value::Array(more));
                }
            },
        }
        // Written as it is now, not as it was read.
        self.raw = None;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_union_has_every_class_and_every_choice_and_the_first_declaration() {
        let one = json!({
            "Load": {"input": {"required": {"ckpt": [["a", "b"]], "new": ["COMBO", {"options": ["x"]}]}}, "display_name": "One"},
        });
        let two = json!({
            "Load": {"input": {"required": {"ckpt": [["b", "c"], {"tooltip": "t"}], "new": ["COMBO", {"options": ["y"]}], "more": ["INT", {}]}}},
            "Flux": {"input": {"required": {}}},
        });
        let (one, two) = (ObjectInfo::parse(one).unwrap(), ObjectInfo::parse(two).unwrap());
        let union = ObjectInfo::union([&one, &two]);
        let load = union.get("Load").unwrap();
        let of = |name: &str| load.input(name).unwrap().choices().unwrap().to_vec();
        assert_eq!(
            (of("ckpt"), of("new")),
            (
                vec![json!("a"), json!("b"), json!("c")],
                vec![json!("x"), json!("y")]
            )
        );
        assert_eq!((load.title(), load.input("more")), ("One", None));
        assert!(union.get("Flux").is_some());
        let written = serde_json::to_value(&union).unwrap();
        assert_eq!(
            written["Load"]["input"]["required"]["ckpt"],
            json!([["a", "b", "c"], {}])
        );
        assert_eq!(ObjectInfo::union([&one]), one);
    }
}
