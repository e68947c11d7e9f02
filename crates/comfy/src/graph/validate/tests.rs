//! Recorded answers of ComfyUI 0.3.64, and what has to hold for any JSON at all.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::graph::Node;

fn object_info() -> ObjectInfo {
    let mut info: ObjectInfo =
        serde_json::from_str(include_str!("../../../tests/data/object_info.json")).unwrap();
    // A class that only the recording server had; it validates `text` itself.
    let own = json!({"H1Validate": {
        "input": {"required": {"image": ["IMAGE"], "text": ["STRING", {}]}},
        "output": ["IMAGE"], "output_node": false,
    }});
    info.classes.extend(ObjectInfo::parse(own).unwrap().classes);
    info
}

/// The own validation of two classes, as the recording server had it.
struct Recorded;

impl InputChecks for Recorded {
    fn covers(&self, class_type: &str, input: &str, _spec: &crate::object_info::InputSpec) -> bool {
        matches!(
            (class_type, input),
            ("LoadImage", "image") | ("H1Validate", "text")
        )
    }

    fn check(&self, class_type: &str, literals: &Literals<'_>) -> Vec<Refusal> {
        let refuse = |input: &str, reason: String| {
            vec![Refusal {
                input: input.to_owned(),
                reason: Some(reason),
            }]
        };
        match (class_type, literals.get("image"), literals.get("text")) {
            ("LoadImage", Some(Value::String(name)), _) if name == "nope.png" => {
                refuse("image", format!("Invalid image file: {name}"))
            }
            ("H1Validate", _, Some(text)) if **text != json!("ok") => {
                refuse("text", "text must be ok".to_owned())
            }
            _ => Vec::new(),
        }
    }
}

/// Status and body as `POST /prompt` would give them.
fn answer(graph: &Value) -> (u16, Value) {
    let result = Graph::parse(graph)
        .map_err(|error| Box::new(Rejected::from(error)))
        .and_then(|graph| validate(&graph, &object_info(), None, &Recorded));
    match result {
        Ok(validated) => (200, json!({ "node_errors": validated.node_errors })),
        Err(rejected) => (400, serde_json::to_value(rejected).unwrap()),
    }
}

/// Where we answer better than the recording, with what we answer.
fn differs(workflow: &str) -> Option<Value> {
    let exception = |node: &str, class: &str, inner: bool, kind: &str, details: &str, info: Value| {
        let (name, message) = match inner {
            true => (
                "exception_during_inner_validation",
                "Exception when validating inner node",
            ),
            false => ("exception_during_validation", "Exception when validating node"),
        };
        let mut extra = json!({"exception_type": kind, "traceback": []});
        let merged = extra.as_object_mut().unwrap();
        merged.extend(info.as_object().unwrap().clone());
        if inner {
            merged.insert("exception_message".into(), details.into());
        }
        let output = if inner { "2" } else { node };
        let top = if inner {
            String::new()
        } else {
            format!("{message}: {details}")
        };
        let error = json!({"type": name, "message": message, "details": details, "extra_info": extra});
        json!({
            "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation",
                      "details": top, "extra_info": {}},
            "node_errors": {node: {"errors": [error], "dependent_outputs": [output], "class_type": class}},
        })
    };
    let images = json!(["IMAGE", {"tooltip": "The images to save."}]);
    Some(match workflow {
        // ComfyUI: a traceback with host paths and Python's words.
        "bad_inputs_null.json" => exception(
            "1",
            "PreviewImage",
            false,
            "TypeError",
            "inputs of node '1' must be an object, not null",
            json!({}),
        ),
        "bad_no_inputs_key.json" => exception(
            "1",
            "PreviewImage",
            false,
            "KeyError",
            "node '1' has no inputs",
            json!({}),
        ),
        "bad_link_node.json" => exception(
            "2",
            "SaveImage",
            false,
            "KeyError",
            "images: node '77' does not exist",
            json!({"input_name": "images", "input_config": images, "linked_node": ["77", 0]}),
        ),
        "bad_link_slot.json" => exception(
            "2",
            "SaveImage",
            false,
            "IndexError",
            "images: node '1' (EmptyImage) has 1 outputs, there is no output 7",
            json!({"input_name": "images", "input_config": images, "linked_node": ["1", 7]}),
        ),
        // ComfyUI also names the input of the node below instead of the one that holds the link.
        "bad_link_node_inner.json" => exception(
            "1",
            "ImageInvert",
            true,
            "KeyError",
            "image: node '77' does not exist",
            json!({"input_name": "image", "input_config": ["IMAGE", {}], "linked_node": ["77", 0]}),
        ),
        // ComfyUI: no details and no node_errors.
        "bad_cycle.json" => {
            let details = "image: dependency cycle: 2 -> 1 -> 2";
            let kind = "comfy_execution.graph.DependencyCycleError";
            let mut body = exception(
                "1",
                "ImageInvert",
                true,
                kind,
                details,
                json!({"input_name": "image", "linked_node": ["2", 0], "cycle": ["2", "1"]}),
            );
            body["error"]["details"] = json!("dependency cycle: 2 -> 1 -> 2");
            body["node_errors"]["1"]["dependent_outputs"] = json!(["3"]);
            body
        }
        // ComfyUI: status 500 in plain text.
        "bad_node_not_dict.json" => json!({
            "error": {"type": "invalid_prompt", "details": "Node ID '#1'", "extra_info": {},
                "message": "Cannot execute because node '1' must be an object with class_type and inputs, not a number."},
            "node_errors": {},
        }),
        _ => return None,
    })
}

#[test]
fn every_recorded_answer_is_given_again_but_for_the_listed_differences() {
    let workflows: BTreeMap<String, Value> =
        serde_json::from_str(include_str!("../../../tests/data/workflows.json")).unwrap();
    let recorded: Vec<Value> =
        serde_json::from_str(include_str!("../../../tests/data/validation_errors.json")).unwrap();
    assert_eq!(recorded.len(), 24 + 1);
    for case in &recorded {
        let name = case["workflow"].as_str().unwrap();
        let file = if name.ends_with(".json") {
            name.to_owned()
        } else {
            format!("{name}.json")
        };
        let (status, body) = answer(&workflows[&file]);
        if let Some(expected) = differs(&file) {
            assert_eq!((status, sorted(body)), (400, sorted(expected)), "{file}");
            continue;
        }
        assert_eq!(u64::from(status), case["status"].as_u64().unwrap(), "{file}");
        let mut expected = case["response"].clone();
        if status == 200 {
            expected = json!({"node_errors": expected["node_errors"]});
        }
        assert_eq!(sorted(body), sorted(expected), "{file}");
    }
}

/// The errors of one node come in no order (ComfyUI iterates over a set).
fn sorted(mut body: Value) -> Value {
    for node in body["node_errors"].as_object_mut().unwrap().values_mut() {
        node["errors"]
            .as_array_mut()
            .unwrap()
            .sort_by_key(|error| error["details"].to_string());
    }
    body
}

#[test]
fn every_good_graph_of_the_corpus_passes() {
    let workflows: BTreeMap<String, Value> =
        serde_json::from_str(include_str!("../../../tests/data/workflows.json")).unwrap();
    let mut seen = 0;
    for (name, graph) in workflows.iter().filter(|(name, _)| !name.starts_with("bad_")) {
        if graph.to_string().contains("\"H1") || name.starts_with("sd15") {
            continue;
        }
        let (status, body) = answer(graph);
        assert_eq!(status, 200, "{name}: {body}");
        seen += 1;
    }
    assert!(seen >= 10, "{seen}");
}

fn validated(graph: Value) -> Result<Validated, Box<Rejected>> {
    validate(&Graph::parse(&graph).unwrap(), &object_info(), None, &NoChecks)
}

fn image_and_save(width: Value) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": width, "height": 64, "batch_size": 1, "color": 0}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": 7}},
    })
}

#[test]
fn values_are_converted_in_place() {
    let result = validated(image_and_save(json!("64"))).unwrap();
    assert_eq!(result.graph.get("1").unwrap().inputs["width"], json!(64));
    assert_eq!(
        result.graph.get("2").unwrap().inputs["filename_prefix"],
        json!("7")
    );
    assert_eq!(result.outputs, [NodeId::from("2")]);
    let wrapped = validated(image_and_save(json!({"__value__": 64.9}))).unwrap();
    assert_eq!(wrapped.graph.get("1").unwrap().inputs["width"], json!(64));
    let float = json!({
        "1": {"class_type": "SolidMask", "inputs": {"value": 1, "width": 8, "height": 8}},
        "2": {"class_type": "MaskPreview", "inputs": {"mask": ["1", 0]}},
    });
    let result = validated(float).unwrap();
    assert_eq!(result.graph.get("1").unwrap().inputs["value"].to_string(), "1.0");
}

#[test]
fn an_unknown_class_suggests_near_names() {
    let error = validated(json!({"9": {"class_type": "SaveImge", "inputs": {}}})).unwrap_err();
    assert_eq!(
        error.error.message,
        "Cannot execute because node SaveImge does not exist."
    );
    assert_eq!(error.error.details, "Node ID '#9'");
    assert_eq!(error.error.extra_info["suggestions"][0], json!("SaveImage"));
}

#[test]
fn a_wrong_choice_suggests_near_ones() {
    let graph = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "2": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "upscale_method": "bilinaer", "scale_by": 2}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    });
    let error = validated(graph).unwrap_err();
    assert_eq!(
        error.node_errors["2"].errors[0].extra_info["suggestions"],
        json!(["bilinear"])
    );
    assert!(error.to_string().contains("node '2' (ImageScaleBy)"), "{error}");
}

#[test]
fn targets_restrict_the_outputs_and_unknown_ones_leave_none() {
    let graph = Graph::parse(&json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "PreviewImage", "inputs": {}},
    }))
    .unwrap();
    let info = object_info();
    let only = validate(&graph, &info, Some(&["2".into()]), &NoChecks).unwrap();
    assert!(only.node_errors.is_empty());
    let both = validate(&graph, &info, None, &NoChecks).unwrap();
    assert_eq!(
        both.node_errors.keys().map(NodeId::as_str).collect::<Vec<_>>(),
        ["3"]
    );
    let none = validate(&graph, &info, Some(&["1".into()]), &NoChecks).unwrap_err();
    assert_eq!(none.error.kind, "prompt_no_outputs");
}

#[test]
fn a_faulty_node_names_exactly_the_outputs_that_need_it() {
    let empty = |width: Value| json!({"class_type": "EmptyImage", "inputs": {"width": width, "height": 64, "batch_size": 1, "color": 0}});
    let preview = |node: &str| json!({"class_type": "PreviewImage", "inputs": {"images": [node, 0]}});
    let graph = json!({
        "a": empty(json!(0)), "b": empty(json!(0)),
        "1": preview("a"), "2": preview("b"), "3": preview("a"),
    });
    let error = validated(graph).unwrap_err();
    assert_eq!(error.node_errors["a"].dependent_outputs, ["1".into(), "3".into()]);
    assert_eq!(error.node_errors["b"].dependent_outputs, ["2".into()]);
}

#[test]
fn the_preflight_leaves_file_pickers_to_the_instance() {
    let graph = Graph::parse(&json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": "uploaded-later.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }))
    .unwrap();
    assert!(validate(&graph, &object_info(), None, &Preflight).is_ok());
    let error = validate(&graph, &object_info(), None, &NoChecks).unwrap_err();
    assert_eq!(error.node_errors["1"].errors[0].kind, "value_not_in_list");
}

/// Recorded: `Value 1e+22 bigger than max of 9223372036854775807`.
#[test]
fn limits_are_told_as_python_prints_them() {
    let graph = json!({
        "1": {"class_type": "PrimitiveFloat", "inputs": {"value": 1e22}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    });
    let error = validated(graph).unwrap_err();
    let error = &error.node_errors["1"].errors[0];
    assert_eq!(
        error.message,
        "Value 1e+22 bigger than max of 9223372036854775807"
    );
    assert_eq!(error.kind, "value_bigger_than_max");
}

#[test]
fn a_link_id_that_is_a_number_is_explained() {
    let error =
        validated(json!({"2": {"class_type": "PreviewImage", "inputs": {"images": [1, 0]}}})).unwrap_err();
    assert!(
        error.error.details.contains("the id as text"),
        "{}",
        error.error.details
    );
}

/// A hundred thousand nodes: one chain, all faulty, all cyclic. Bounded work, no recursion.
#[test]
fn huge_graphs_are_answered_quickly() {
    let info = object_info();
    let count = 100_000;
    let invert = |above: String| Node::new("ImageInvert").with_input("image", json!([above, 0]));
    let mut graph = Graph::default();
    graph.nodes.insert("0".into(), Node::new("EmptyImage"));
    for i in 1..count {
        graph
            .nodes
            .insert(i.to_string().into(), invert((i - 1).to_string()));
    }
    let preview = Node::new("PreviewImage").with_input("images", json!([(count - 1).to_string(), 0]));
    graph.nodes.insert("out".into(), preview);
    let error = validate(&graph, &info, None, &NoChecks).unwrap_err();
    assert_eq!(
        error.node_errors.keys().map(NodeId::as_str).collect::<Vec<_>>(),
        ["0"]
    );

    // Every node also links back to the first: as many cycles as nodes.
    let mut cyclic = graph.clone();
    cyclic.nodes.insert("0".into(), invert((count - 1).to_string()));
    let error = validate(&cyclic, &info, None, &NoChecks).unwrap_err();
    assert!(
        error.error.details.starts_with("dependency cycle: "),
        "{}",
        error.error.details
    );

    // Faulty nodes and outputs that all depend on all of them.
    let mut fan = Graph::default();
    for i in 0..10_000 {
        let above = if i == 0 {
            "9999".to_owned()
        } else {
            (i - 1).to_string()
        };
        fan.nodes.insert(
            i.to_string().into(),
            Node::new("ImageBlend").with_input("image1", json!([above, 0])),
        );
        let preview = Node::new("PreviewImage").with_input("images", json!([i.to_string(), 0]));
        fan.nodes.insert(format!("p{i}").into(), preview);
    }
    let error = validate(&fan, &info, None, &NoChecks).unwrap_err();
    assert_eq!(error.node_errors.len(), 10_000);
    assert!(
        error
            .node_errors
            .values()
            .all(|node| !node.dependent_outputs.is_empty())
    );
}

/// Any JSON, but made of the words that mean something here.
fn json_value() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "1",
        "2",
        "3",
        "inputs",
        "class_type",
        "_meta",
        "__value__",
        "EmptyImage",
        "SaveImage",
        "PreviewAny",
        "ImageInvert",
        "LoadImage",
        "KSampler",
        "images",
        "image",
        "width",
        "source",
        "abc",
        "",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|f| json!(f)),
        word.clone().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((word.clone(), inner), 0..5).prop_map(|entries| entries
                .into_iter()
                .map(|(k, v)| (k.to_owned(), v))
                .collect::<Value>()),
        ]
    })
}

/// Graphs of existing classes with inputs of any kind, so that the walk is reached.
fn graph_value() -> impl Strategy<Value = Value> {
    let class = prop::sample::select(vec![
        "EmptyImage",
        "SaveImage",
        "PreviewAny",
        "ImageInvert",
        "LoadImage",
        "KSampler",
        "ImageScale",
        "PrimitiveFloat",
        "PrimitiveInt",
        "PrimitiveBoolean",
    ]);
    let input = prop::sample::select(vec![
        "images",
        "image",
        "width",
        "height",
        "source",
        "filename_prefix",
        "seed",
        "value",
        "upscale_method",
    ]);
    let link =
        (prop::sample::select(vec!["1", "2", "3", "9"]), 0..2u8).prop_map(|(node, slot)| json!([node, slot]));
    let value = prop_oneof![2 => link, 1 => json_value()];
    let node = (class, prop::collection::vec((input, value), 0..5)).prop_map(|(class, inputs)| {
        let inputs: Value = inputs.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        json!({"class_type": class, "inputs": inputs, "extra": 1})
    });
    prop::collection::vec(node, 0..4).prop_map(|nodes| {
        nodes
            .into_iter()
            .enumerate()
            .map(|(i, node)| ((i + 1).to_string(), node))
            .collect::<Value>()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_gets_an_answer_and_a_parsed_graph_is_written_back_as_it_was(value in json_value()) {
        match Graph::parse(&value) {
            Ok(graph) => prop_assert_eq!(graph.to_value().to_string(), value.to_string()),
            Err(error) => prop_assert!(!Rejected::from(error).error.message.is_empty()),
        }
    }

    #[test]
    fn any_graph_is_accepted_with_outputs_or_refused_with_a_reason(value in graph_value()) {
        let info = INFO.with(Clone::clone);
        let graph = Graph::parse(&value).expect("nodes are well formed");
        prop_assert_eq!(graph.to_value().to_string(), value.to_string());
        match validate(&graph, &info, None, &Recorded) {
            Ok(validated) => {
                prop_assert!(!validated.outputs.is_empty());
                // What was converted once stays: validation is idempotent.
                let again = validate(&validated.graph, &info, None, &Recorded);
                let again = again.expect("a converted graph is valid");
                prop_assert_eq!(again, validated);
            }
            Err(rejected) => {
                let named = !rejected.node_errors.is_empty() || rejected.error.kind == "prompt_no_outputs";
                prop_assert!(named, "{:?}", rejected);
            }
        }
    }
}

thread_local! {
    static INFO: std::rc::Rc<ObjectInfo> = std::rc::Rc::new(object_info());
}
