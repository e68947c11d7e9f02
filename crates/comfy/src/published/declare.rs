//! What a publisher chose, completed with what the node classes say of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{
    bind::ProblemKind,
    finding::Finding,
    input::{Input, InputWish, Kind, SeedField},
    number::compare,
    output::{OutputField, OutputWish},
    value,
};
use crate::{
    graph::{Graph, InputValue, Node, validate::nearest},
    object_info::{InputSpec, ObjectInfo},
};

/// Longest name of an input or output, in characters.
const MAX_NAME_CHARS: usize = 64;
/// Nodes shown in one message.
const SHOWN_NODES: usize = 12;

/// Inputs, outputs and seeds of a graph, and what is to be said of them.
#[derive(Debug, Default)]
pub struct Declared {
    /// The inputs that could be made out.
    pub inputs: Vec<Input>,
    /// The outputs that could be made out.
    pub outputs: Vec<OutputField>,
    /// Where the graph holds seeds.
    pub seeds: Vec<SeedField>,
    /// Mistakes, and things to know.
    pub findings: Vec<Finding>,
}

/// Declares what a publisher chose. Without `info` (no instance of the endpoint has told yet what it can do) types come
/// from the values that stand in the graph.
pub fn declare(
    graph: &Graph,
    info: Option<&ObjectInfo>,
    inputs: &[InputWish],
    outputs: &[OutputWish],
) -> Declared {
    let mut declared = Declared::default();
    let mut places = BTreeMap::new();
    let mut names = BTreeSet::new();
    for wish in inputs {
        let declare = Declare { graph, info };
        match declare.input(wish) {
            Ok(input) => {
                if let Some(finding) = bad_name(&input.name, "input", &mut names) {
                    declared.findings.push(finding);
                    continue;
                }
                let place = (input.node.clone(), input.field.clone());
                if let Some(first) = places.insert(place, input.name.clone()) {
                    let message = format!("inputs '{first}' and '{}' are the same field", input.name);
                    let finding = Finding::error("duplicate_field", message);
                    declared
                        .findings
                        .push(finding.at(&input.node, Some(&input.field)));
                }
                declared.inputs.push(input);
            }
            Err(finding) => declared.findings.push(*finding),
        }
    }
    let mut names = BTreeSet::new();
    for wish in outputs {
        match (Declare { graph, info }).output(wish) {
            Ok(output) => match bad_name(&output.name, "output", &mut names) {
                Some(finding) => declared.findings.push(finding),
                None => declared.outputs.push(output),
            },
            Err(finding) => declared.findings.push(*finding),
        }
    }
    declared.seeds = seeds(graph, info);
    declared
}

fn bad_name(name: &str, what: &str, taken: &mut BTreeSet<String>) -> Option<Finding> {
    let chars = name.chars().count();
    if chars == 0 || chars > MAX_NAME_CHARS || name.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let message = format!(
            "'{name:.80}' is no name of an {what}: use 1 to {MAX_NAME_CHARS} characters without blanks"
        );
        return Some(Finding::error("bad_name", message));
    }
    (!taken.insert(name.to_owned())).then(|| {
        let message = format!("two {what}s are called '{name}': give one of them another name");
        Finding::error("duplicate_name", message)
    })
}

fn seeds(graph: &Graph, info: Option<&ObjectInfo>) -> Vec<SeedField> {
    let nodes = graph.nodes.iter();
    nodes
        .flat_map(|(id, node)| {
            let class = info.and_then(|info| info.get(&node.class_type));
            node.inputs.iter().filter_map(move |(field, value)| {
                SeedField::of(
                    id.as_str(),
                    field,
                    value,
                    class.and_then(|class| class.input(field)),
                )
            })
        })
        .collect()
}

struct Declare<'a> {
    graph: &'a Graph,
    info: Option<&'a ObjectInfo>,
}

impl Declare<'_> {
    fn input(&self, wish: &InputWish) -> Result<Input, Box<Finding>> {
        let (id, node) = self.node(&wish.node)?;
        let field = wish.field.as_str();
        let class = self.info.and_then(|info| info.get(&node.class_type));
        let spec = class.and_then(|class| class.input(field));
        let at = |finding: Finding| Box::new(finding.at(id, Some(field)));
        if let (Some(class), None) = (class, spec) {
            let names: Vec<&str> = class.inputs().map(|(name, ..)| name).collect();
            let message = format!(
                "node {id} ({}) has no input '{field}'; it has {}",
                node.class_type,
                names.join(", ")
            );
            let near = nearest(field, names.into_iter(), 64);
            return Err(at(Finding::error("unknown_field", message).near(near)));
        }
        let fitted;
        let wish = match spec.filter(|_| wish.as_far_as_here) {
            Some(spec) => {
                fitted = as_far_as_here(wish, spec);
                &fitted
            }
            None => wish,
        };
        let stored = node.inputs.get(field);
        if class.is_none() && stored.is_none() {
            let names: Vec<&str> = node.inputs.keys().map(String::as_str).collect();
            let message = format!(
                "node {id} ({}) has no input '{field}' in this graph; it has {}",
                node.class_type,
                names.join(", ")
            );
            let near = nearest(field, names.into_iter(), 64);
            return Err(at(Finding::error("unknown_field", message).near(near)));
        }
        let literal = stored.and_then(|value| match InputValue::classify(value) {
            InputValue::Literal(value) => Some(value.clone()),
            InputValue::Link(_) | InputValue::BadLink(_) => None,
        });
        let own = match spec {
            Some(spec) => Kind::declared(&node.class_type, field, spec),
            None => Kind::of_loader(&node.class_type, field).or(literal.as_ref().map(Kind::of_value)),
        };
        let Some(kind) = wish.kind.or(own) else {
            let of = spec.map_or("a link", InputSpec::type_name);
            let message = format!(
                "input '{field}' of node {id} ({}) takes what another node makes ({of}), not a value",
                node.class_type
            );
            return Err(at(Finding::error("not_a_value", message)));
        };
        let class_default = spec
            .and_then(|spec| spec.default().cloned())
            .filter(|_| stored.is_none());
        let is_number = matches!(kind, Kind::Integer | Kind::Number);
        let mut input = Input {
            name: wish.name.clone(),
            node: id.to_owned(),
            field: field.to_owned(),
            kind,
            default: wish.default.clone().or(literal).or(class_default),
            min: wish
                .min
                .clone()
                .or(spec.and_then(|s| s.min().cloned()))
                .filter(|_| is_number),
            max: wish
                .max
                .clone()
                .or(spec.and_then(|s| s.max().cloned()))
                .filter(|_| is_number),
            choices: match kind {
                Kind::Choice => wish
                    .choices
                    .clone()
                    .or(spec.and_then(|s| s.choices().map(<[Value]>::to_vec))),
                _ => None,
            },
            required: false,
            seed: stored.is_some_and(|value| SeedField::of(id, field, value, spec).is_some()),
            description: wish.description.clone().unwrap_or_else(|| tooltip(spec)),
        };
        // A link that stands there is what it has without a value.
        let has_value = input.default.is_some() || stored.is_some();
        input.required = wish.required.unwrap_or(!has_value);
        if wish.as_far_as_here && input.kind == Kind::Choice {
            let offered = |default: &Value| input.choices.as_ref().is_none_or(|all| all.contains(default));
            if !input.default.as_ref().is_none_or(offered) {
                // Not to be had here: whoever calls chooses.
                (input.default, input.required) = (None, true);
            }
        }
        match Self::fault(&input, wish, spec) {
            Some(finding) => Err(at(finding)),
            None => Ok(input),
        }
    }

    /// The declaration against the class, and the default against the declaration.
    fn fault(input: &Input, wish: &InputWish, spec: Option<&InputSpec>) -> Option<Finding> {
        use std::cmp::Ordering;
        let name = &input.name;
        let beyond = |own: &Option<Value>, of_class: Option<&Value>, order: Ordering| match (own, of_class) {
            (Some(own), Some(of_class)) => compare(own, of_class) == Some(order),
            _ => false,
        };
        for (bound, what) in [(&wish.min, "min"), (&wish.max, "max")] {
            if bound.as_ref().is_some_and(|bound| !bound.is_number()) {
                return Some(Finding::error(
                    "bad_range",
                    format!("input '{name}': {what} is not a number"),
                ));
            }
        }
        if beyond(&input.min, spec.and_then(InputSpec::min), Ordering::Less)
            || beyond(&input.max, spec.and_then(InputSpec::max), Ordering::Greater)
        {
            let message = format!("input '{name}': the range goes beyond what the node takes");
            return Some(Finding::error("bad_range", message));
        }
        if beyond(&input.min, input.max.as_ref(), Ordering::Greater) {
            return Some(Finding::error(
                "bad_range",
                format!("input '{name}': min is larger than max"),
            ));
        }
        if let Some(choices) = &wish.choices {
            if input.kind != Kind::Choice || choices.is_empty() {
                let message =
                    format!("input '{name}': choices are for inputs of type choice, and at least one");
                return Some(Finding::error("bad_choices", message));
            }
            let offered = spec.and_then(InputSpec::choices).unwrap_or_default();
            if let Some(strange) = choices
                .iter()
                .find(|choice| !offered.is_empty() && !offered.contains(choice))
            {
                let near = nearest(
                    strange.as_str().unwrap_or_default(),
                    offered.iter().filter_map(Value::as_str),
                    100,
                );
                let message = format!("input '{name}': the node does not offer {strange}");
                return Some(Finding::error("bad_choices", message).near(near));
            }
        }
        if let Some(default) = &input.default {
            // A file that stands in the graph is named there as the node names it, whatever the name looks like.
            let problem = value::check(input, default).err();
            let problem = problem.filter(|p| {
                wish.default.is_some() || !matches!(p.kind, ProblemKind::LocalPath | ProblemKind::BadFile)
            });
            if let Some(problem) = problem {
                let message = format!("the default of {problem}");
                return Some(Finding::error("bad_default", message));
            }
        }
        None
    }

    fn output(&self, wish: &OutputWish) -> Result<OutputField, Box<Finding>> {
        let (id, node) = self.node(&wish.node)?;
        let class = self.info.and_then(|info| info.get(&node.class_type));
        if class.is_some_and(|class| !class.output_node) {
            let message = format!(
                "node {id} ({}) makes nothing that is kept: publish the node that saves or previews",
                node.class_type
            );
            return Err(Box::new(Finding::error("no_output_node", message).at(id, None)));
        }
        Ok(OutputField {
            name: wish.name.clone(),
            node: id.to_owned(),
            kind: wish.kind.clone().unwrap_or_else(|| "images".to_owned()),
            shape: wish.shape.unwrap_or_default(),
            description: wish.description.clone().unwrap_or_default(),
        })
    }

    /// A node by its id, else by a title or a class that only one has.
    fn node(&self, name: &str) -> Result<(&str, &Node), Box<Finding>> {
        if let Some((id, node)) = self.graph.nodes.get_key_value(name) {
            return Ok((id.as_str(), node));
        }
        let by = |matches: &dyn Fn(&Node) -> bool| -> Vec<(&str, &Node)> {
            let nodes = self.graph.nodes.iter().filter(|(_, node)| matches(node));
            nodes.map(|(id, node)| (id.as_str(), node)).collect()
        };
        let mut found = by(&|node| node.title().is_some_and(|title| title.eq_ignore_ascii_case(name)));
        if found.is_empty() {
            found = by(&|node| node.class_type.eq_ignore_ascii_case(name));
        }
        match found.as_slice() {
            [one] => Ok(*one),
            [] => {
                let all = self.graph.nodes.iter();
                let some: Vec<String> = all
                    .take(SHOWN_NODES)
                    .map(|(id, node)| format!("{id} ({})", node.class_type))
                    .collect();
                let message = format!("the graph has no node '{name:.80}'; it has {}", some.join(", "));
                Err(Box::new(Finding::error("unknown_node", message).at(name, None)))
            }
            many => {
                let ids: Vec<&str> = many.iter().map(|(id, _)| *id).collect();
                let message = format!("'{name:.80}' is ambiguous: nodes {}", ids.join(", "));
                Err(Box::new(Finding::error("unknown_node", message).at(name, None)))
            }
        }
    }
}

/// A wish with the choices and within the range that the class has here. Where it has none of the choices, its own count.
fn as_far_as_here(wish: &InputWish, spec: &InputSpec) -> InputWish {
    use std::cmp::Ordering;
    let tighter = |own: &Option<Value>, class: Option<&Value>, beyond: Ordering| {
        let within = |own: &Value| class.and_then(|class| compare(own, class)) != Some(beyond);
        own.clone().filter(within).or(class.cloned())
    };
    let offered = spec.choices().unwrap_or_default();
    let choices = wish.choices.as_ref().map(|all| {
        let here = all
            .iter()
            .filter(|one| offered.is_empty() || offered.contains(one));
        here.cloned().collect::<Vec<Value>>()
    });
    InputWish {
        min: tighter(&wish.min, spec.min(), Ordering::Less),
        max: tighter(&wish.max, spec.max(), Ordering::Greater),
        choices: choices.filter(|choices| !choices.is_empty()),
        ..wish.clone()
    }
}

fn tooltip(spec: Option<&InputSpec>) -> String {
    let text = spec
        .and_then(|spec| spec.options.get("tooltip"))
        .and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn info() -> ObjectInfo {
        ObjectInfo::parse(json!({
            "Load": {"input": {"required": {"image": [["a.png"], {"image_upload": true}]}}, "output": ["IMAGE"]},
            "Text": {"input": {"required": {"text": ["STRING", {"tooltip": "what to paint"}]}}, "output": ["C"]},
            "Sample": {"input": {"required": {
                "c": ["C", {}], "seed": ["INT", {"min": 0, "max": 100}], "cfg": ["FLOAT", {"default": 8.0, "min": 0, "max": 30}],
                "sampler": [["euler", "dpmpp"], {}],
            }, "optional": {"note": ["STRING", {}]}}, "output": ["IMAGE"]},
            "Save": {"input": {"required": {"images": ["IMAGE", {}]}}, "output": [], "output_node": true},
        }))
        .unwrap()
    }

    fn graph() -> Graph {
        Graph::parse(&json!({
            "1": {"class_type": "Load", "inputs": {"image": "mine.png"}},
            "6": {"class_type": "Text", "inputs": {"text": "a cat"}, "_meta": {"title": "Prompt"}},
            "3": {"class_type": "Sample", "inputs": {"c": ["6", 0], "seed": 5, "sampler": "euler"}},
            "10": {"class_type": "Save", "inputs": {"images": ["3", 0]}},
        }))
        .unwrap()
    }

    fn wish(name: &str, node: &str, field: &str) -> InputWish {
        InputWish {
            name: name.to_owned(),
            node: node.to_owned(),
            field: field.to_owned(),
            ..InputWish::default()
        }
    }

    fn of(wishes: &[InputWish]) -> Declared {
        declare(&graph(), Some(&info()), wishes, &[])
    }

    fn code(wish: InputWish) -> String {
        let declared = of(&[wish]);
        declared
            .findings
            .first()
            .map(|f| f.code.clone())
            .unwrap_or_default()
    }

    #[test]
    fn types_ranges_defaults_and_words_come_from_the_classes() {
        let declared = of(&[
            wish("image", "1", "image"),
            wish("text", "prompt", "text"),
            wish("seed", "sample", "seed"),
            wish("cfg", "3", "cfg"),
            wish("sampler", "3", "sampler"),
            wish("note", "3", "note"),
        ]);
        assert_eq!(declared.findings, []);
        let shown: Vec<_> = declared
            .inputs
            .iter()
            .map(|i| (i.node.as_str(), i.kind, i.required))
            .collect();
        assert_eq!(
            shown,
            [
                ("1", Kind::Image, false),
                ("6", Kind::String, false),
                ("3", Kind::Integer, false),
                ("3", Kind::Number, false),
                ("3", Kind::Choice, false),
                ("3", Kind::String, true),
            ]
        );
        let [image, text, seed, cfg, sampler, _] = &declared.inputs[..] else {
            unreachable!()
        };
        assert_eq!(image.choices, None, "whose files those are is nobody's business");
        assert_eq!(text.description, "what to paint");
        assert_eq!(
            (seed.seed, seed.max.clone(), seed.default.clone()),
            (true, Some(json!(100)), Some(json!(5)))
        );
        assert_eq!(
            cfg.default,
            Some(json!(8.0)),
            "the class's, where the graph has none"
        );
        assert_eq!(sampler.choices, Some(vec![json!("euler"), json!("dpmpp")]));
        assert_eq!(declared.seeds.len(), 1);
    }

    #[test]
    fn mistakes_are_found_by_name() {
        assert_eq!(code(wish("x", "7", "text")), "unknown_node");
        assert_eq!(code(wish("x", "6", "txt")), "unknown_field");
        assert_eq!(code(wish("x", "3", "c")), "not_a_value");
        assert_eq!(code(wish("a b", "6", "text")), "bad_name");
        assert_eq!(
            code(InputWish {
                max: Some(json!(101)),
                ..wish("x", "3", "seed")
            }),
            "bad_range"
        );
        assert_eq!(
            code(InputWish {
                min: Some(json!("a")),
                ..wish("x", "3", "seed")
            }),
            "bad_range"
        );
        assert_eq!(
            code(InputWish {
                min: Some(json!(6)),
                ..wish("x", "3", "seed")
            }),
            "bad_default"
        );
        assert_eq!(
            code(InputWish {
                default: Some(json!(1)),
                ..wish("x", "6", "text")
            }),
            "bad_default"
        );
        assert_eq!(
            code(InputWish {
                choices: Some(vec![json!("eular")]),
                ..wish("x", "3", "sampler")
            }),
            "bad_choices"
        );
        let twice = of(&[wish("x", "6", "text"), wish("x", "3", "seed")]);
        assert_eq!(twice.findings[0].code, "duplicate_name");
        let same = of(&[wish("x", "6", "text"), wish("y", "6", "text")]);
        assert_eq!(same.findings[0].code, "duplicate_field");
        let near = of(&[wish("x", "6", "txt")]).findings.remove(0);
        assert_eq!(
            (near.nearest, near.node.as_deref()),
            (vec!["text".to_owned()], Some("6"))
        );
    }

    #[test]
    fn outputs_are_of_nodes_that_keep_something() {
        let wish = |node: &str| OutputWish {
            name: "images".to_owned(),
            node: node.to_owned(),
            ..OutputWish::default()
        };
        let declared = declare(
            &graph(),
            Some(&info()),
            &[],
            &[wish("10"), wish("3"), wish("Save")],
        );
        assert_eq!(declared.outputs.len(), 1);
        assert_eq!(
            (
                declared.outputs[0].node.as_str(),
                declared.outputs[0].kind.as_str()
            ),
            ("10", "images")
        );
        let codes: Vec<_> = declared.findings.iter().map(|f| f.code.as_str()).collect();
        assert_eq!(codes, ["no_output_node", "duplicate_name"]);
    }

    #[test]
    fn without_classes_the_values_say_the_types() {
        let declared = declare(
            &Graph::parse(&json!({
                "1": {"class_type": "LoadImage", "inputs": {"image": "a.png", "on": true, "n": 3, "l": ["2", 0]}},
            }))
            .unwrap(),
            None,
            &[wish("image", "1", "image"), wish("on", "1", "on"), wish("n", "1", "n"), wish("l", "1", "l"), wish("m", "1", "m")],
            &[],
        );
        let kinds: Vec<_> = declared.inputs.iter().map(|i| i.kind).collect();
        assert_eq!(kinds, [Kind::Image, Kind::Boolean, Kind::Integer]);
        let codes: Vec<_> = declared.findings.iter().map(|f| f.code.as_str()).collect();
        assert_eq!(codes, ["not_a_value", "unknown_field"]);
    }
}
