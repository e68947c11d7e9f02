//! A caller's values put into the graph.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    Published,
    input::{Input, inputs_of},
    value,
};
use crate::graph::validate::nearest;

/// Problems told at once.
const MAX_PROBLEMS: usize = 20;

/// What kind of mistake a call makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProblemKind {
    /// No input of that name is published.
    UnknownInput,
    /// A required one is missing.
    MissingInput,
    /// The value is of another type.
    WrongType,
    /// The number is too small or too large.
    OutOfRange,
    /// The value is none of the choices.
    NotAChoice,
    /// The value names a file on the caller's own machine.
    LocalPath,
    /// The value is no file.
    BadFile,
}

impl ProblemKind {
    /// A stable word.
    pub fn as_str(self) -> &'static str {
        match self {
            ProblemKind::UnknownInput => "unknown_input",
            ProblemKind::MissingInput => "missing_input",
            ProblemKind::WrongType => "wrong_type",
            ProblemKind::OutOfRange => "out_of_range",
            ProblemKind::NotAChoice => "not_a_choice",
            ProblemKind::LocalPath => "local_path",
            ProblemKind::BadFile => "bad_file",
        }
    }
}

/// One mistake of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input '{input}': {message}")]
pub struct Problem {
    /// What kind.
    pub kind: ProblemKind,
    /// The input's name.
    pub input: String,
    /// For people.
    pub message: String,
}

impl Problem {
    pub(super) fn new(kind: ProblemKind, input: &Input, message: String) -> Self {
        Problem {
            kind,
            input: input.name.clone(),
            message,
        }
    }
}

/// What becomes of seeds.
pub enum Seeds<'a> {
    /// They stay as they stand in the graph.
    Kept,
    /// Every one that the caller did not give becomes what these random bits choose.
    Random(&'a mut dyn FnMut() -> u64),
}

impl Published {
    /// The graph with the caller's values in it. Whatever the caller left out (or gave as null) has its default, or what
    /// stands in the graph.
    ///
    /// # Errors
    /// All that is wrong with the values, in the order of the declared inputs, then of the unknown names.
    pub fn bind(&self, given: &Map<String, Value>, seeds: Seeds<'_>) -> Result<Value, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut values: Vec<(&Input, Value)> = Vec::new();
        let mut chosen = BTreeSet::new();
        for input in &self.inputs {
            match given.get(&input.name).filter(|value| !value.is_null()) {
                Some(value) => match value::check(input, value) {
                    Ok(value) => {
                        chosen.insert((input.node.as_str(), input.field.as_str()));
                        values.push((input, value));
                    }
                    Err(problem) => problems.push(problem),
                },
                None if input.required => {
                    let wanted = match input.description.is_empty() {
                        true => format!("it is required ({})", input.kind.as_str()),
                        false => format!("it is required ({}): {}", input.kind.as_str(), input.description),
                    };
                    problems.push(Problem::new(ProblemKind::MissingInput, input, wanted));
                }
                None => values.extend(input.default.clone().map(|default| (input, default))),
            }
        }
        problems.extend(
            given
                .keys()
                .filter(|name| self.input(name).is_none())
                // Near names are looked for each: no more of them than are told.
                .take(MAX_PROBLEMS)
                .map(|name| self.unknown(name, given)),
        );
        if !problems.is_empty() {
            problems.truncate(MAX_PROBLEMS);
            return Err(problems);
        }
        let mut graph = self.graph.clone();
        if let Seeds::Random(bits) = seeds {
            for seed in &self.seeds {
                if !chosen.contains(&(seed.node.as_str(), seed.field.as_str()))
                    && let Some(inputs) = inputs_of(&mut graph, &seed.node)
                {
                    inputs.insert(seed.field.clone(), Value::from(seed.chosen(bits())));
                }
            }
            values.retain(|(input, _)| {
                let place = (input.node.as_str(), input.field.as_str());
                chosen.contains(&place)
                    || !self
                        .seeds
                        .iter()
                        .any(|s| (s.node.as_str(), s.field.as_str()) == place)
            });
        }
        for (input, value) in values {
            if let Some(inputs) = inputs_of(&mut graph, &input.node) {
                inputs.insert(input.field.clone(), value);
            }
        }
        Ok(graph)
    }

    fn unknown(&self, name: &str, given: &Map<String, Value>) -> Problem {
        let names = self.inputs.iter().map(|input| input.name.as_str());
        let near = nearest(name, names.clone(), 64);
        let known: Vec<&str> = names.take(MAX_PROBLEMS).collect();
        let mut message = match known.is_empty() {
            true => "this workflow takes no inputs".to_owned(),
            false => format!("this workflow has no such input; it has {}", known.join(", ")),
        };
        if !near.is_empty() {
            message = format!("{message} (did you mean {}?)", near.join(", "));
        }
        // A habit of other vendors' clients (`protocols/speedpix.md` §9).
        if matches!(name, "input" | "inputs") && given.len() == 1 && given[name].is_object() {
            message = format!(
                "{message}; the values belong directly into inputs, without another '{name}' around them"
            );
        }
        let name: String = name.chars().take(80).collect();
        Problem {
            kind: ProblemKind::UnknownInput,
            input: name,
            message,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::published::{Kind, SeedField};

    fn input(name: &str, node: &str, field: &str, kind: Kind) -> Input {
        Input {
            name: name.to_owned(),
            node: node.to_owned(),
            field: field.to_owned(),
            kind,
            default: None,
            min: None,
            max: None,
            choices: None,
            required: false,
            seed: false,
            description: String::new(),
        }
    }

    fn published() -> Published {
        let seed = |node: &str| SeedField {
            node: node.to_owned(),
            field: "seed".to_owned(),
            min: 0,
            max: 99,
        };
        Published {
            graph: json!({
                "3": {"class_type": "K", "inputs": {"seed": 1, "steps": 20, "model": ["4", 0]}},
                "5": {"class_type": "K", "inputs": {"seed": 2}},
                "6": {"class_type": "T", "inputs": {"text": "stored"}},
            }),
            inputs: vec![
                Input {
                    required: true,
                    ..input("text", "6", "text", Kind::String)
                },
                Input {
                    default: Some(json!(7)),
                    ..input("seed", "3", "seed", Kind::Integer)
                },
                input("steps", "3", "steps", Kind::Integer),
            ],
            outputs: vec![],
            seeds: vec![seed("3"), seed("5")],
        }
    }

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn given_values_go_in_and_the_rest_keeps_default_or_graph() {
        let graph = published()
            .bind(&map(json!({"text": "new", "steps": null})), Seeds::Kept)
            .unwrap();
        assert_eq!(graph["6"]["inputs"]["text"], "new");
        assert_eq!(
            graph["3"]["inputs"],
            json!({"seed": 7, "steps": 20, "model": ["4", 0]})
        );
        assert_eq!(graph["5"]["inputs"]["seed"], 2);
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let given = map(json!({"txt": 1, "steps": "many"}));
        let problems = published().bind(&given, Seeds::Kept).unwrap_err();
        let kinds: Vec<_> = problems
            .iter()
            .map(|p| (p.kind.as_str(), p.input.as_str()))
            .collect();
        assert_eq!(
            kinds,
            [
                ("missing_input", "text"),
                ("wrong_type", "steps"),
                ("unknown_input", "txt")
            ]
        );
        assert!(
            problems[2].message.contains("did you mean text?"),
            "{}",
            problems[2]
        );
        let wrapped = published()
            .bind(&map(json!({"input": {"text": "x"}})), Seeds::Kept)
            .unwrap_err();
        assert!(
            wrapped[1].message.contains("directly into inputs"),
            "{}",
            wrapped[1]
        );
    }

    #[test]
    fn seeds_that_were_not_given_become_random_and_given_ones_win() {
        let mut next = 40;
        let mut bits = || {
            next += 1;
            next
        };
        let given = map(json!({"text": "a"}));
        let graph = published().bind(&given, Seeds::Random(&mut bits)).unwrap();
        assert_eq!(
            (&graph["3"]["inputs"]["seed"], &graph["5"]["inputs"]["seed"]),
            (&json!(41), &json!(42))
        );
        let given = map(json!({"text": "a", "seed": 5}));
        let graph = published().bind(&given, Seeds::Random(&mut bits)).unwrap();
        assert_eq!(
            (&graph["3"]["inputs"]["seed"], &graph["5"]["inputs"]["seed"]),
            (&json!(5), &json!(43))
        );
    }

    proptest! {
        /// Whatever callers send: a graph of the same shape in which only published fields differ, or problems.
        #[test]
        fn only_published_fields_ever_change(
            values in proptest::collection::btree_map("text|seed|steps|[a-z]{1,6}", prop_oneof![
                any::<i64>().prop_map(Value::from), any::<f64>().prop_map(|f| json!(f)),
                ".{0,12}".prop_map(Value::from), any::<bool>().prop_map(Value::from), Just(Value::Null),
                Just(json!(["4", 0])), Just(json!({"a": 1})),
            ], 0..5),
        ) {
            let workflow = published();
            let given: Map<String, Value> = values.into_iter().collect();
            match workflow.bind(&given, Seeds::Kept) {
                Err(problems) => prop_assert!(!problems.is_empty()),
                Ok(mut graph) => {
                    for input in &workflow.inputs {
                        let stored = workflow.graph[&input.node]["inputs"][&input.field].clone();
                        prop_assert!(!graph[&input.node]["inputs"][&input.field].is_array());
                        graph[&input.node]["inputs"][&input.field] = stored;
                    }
                    prop_assert_eq!(graph, workflow.graph);
                }
            }
        }
    }
}
