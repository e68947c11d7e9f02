use serde_json::{Value, json};

use super::*;

fn info() -> ObjectInfo {
    let text = include_str!("../../../tests/data/object_info.json");
    serde_json::from_str(text).unwrap()
}

fn api(file: &Value) -> Value {
    to_api_format(file, &info()).unwrap()
}

/// `{node id: inputs}` of the converted file.
fn inputs(file: &Value) -> Value {
    let graph = api(file);
    let nodes = graph.as_object().unwrap().iter();
    Value::Object(
        nodes
            .map(|(id, node)| (id.clone(), node["inputs"].clone()))
            .collect(),
    )
}

/// A node with its sockets as `(name, type, link)`.
fn node(id: i64, kind: &str, sockets: &[(&str, &str, Option<i64>)], values: Value) -> Value {
    let sockets = sockets
        .iter()
        .map(|(name, kind, link)| json!({"name": name, "type": kind, "link": link}));
    json!({"id": id, "type": kind, "mode": 0, "order": id, "inputs": sockets.collect::<Vec<_>>(), "widgets_values": values})
}

fn save(id: i64, link: i64) -> Value {
    node(
        id,
        "SaveImage",
        &[("images", "IMAGE", Some(link))],
        json!(["kept"]),
    )
}

fn image(id: i64) -> Value {
    node(id, "EmptyImage", &[], json!([64, 32, 1, 255]))
}

fn file(nodes: Value, links: Value) -> Value {
    json!({"nodes": nodes, "links": links, "version": 0.4})
}

const IMAGE_INPUTS: fn() -> Value = || json!({"width": 64, "height": 32, "batch_size": 1, "color": 255});

#[test]
fn values_are_named_in_the_order_of_the_classs_inputs_past_what_belongs_to_the_page() {
    // The control behind a seed: as text, as early editors wrote it, and not at all.
    for control in [json!(["randomize"]), json!([true]), json!([])] {
        let mut values = vec![json!(18_446_744_073_709_551_615_u64)];
        values.extend(control.as_array().unwrap().clone());
        values.extend([json!(20), json!(8), json!("euler"), json!("normal"), json!(0.5)]);
        let sampler = node(3, "KSampler", &[], Value::Array(values));
        assert_eq!(
            inputs(&file(json!([sampler]), json!([])))["3"],
            json!({"seed": 18_446_744_073_709_551_615_u64, "steps": 20, "cfg": 8, "sampler_name": "euler",
                "scheduler": "normal", "denoise": 0.5}),
            "{control}"
        );
    }
    // An upload button is a widget of the page, and values may stand under their names.
    let load = node(1, "LoadImage", &[], json!(["a.png", "image"]));
    let named = node(2, "EmptyImage", &[], json!({"width": 8, "color": 1, "mine": 3}));
    assert_eq!(
        inputs(&file(json!([load, named]), json!([]))),
        json!({"1": {"image": "a.png"}, "2": {"width": 8, "color": 1}})
    );
}

#[test]
fn a_node_says_its_class_and_the_title_that_people_gave_it() {
    let mut titled = image(1);
    titled["title"] = json!("图像");
    let graph = api(&file(
        json!([titled, save(9, 1)]),
        json!([[1, 1, 0, 9, 0, "IMAGE"]]),
    ));
    assert_eq!(
        graph,
        json!({
            "1": {"class_type": "EmptyImage", "_meta": {"title": "图像"}, "inputs": IMAGE_INPUTS()},
            "9": {"class_type": "SaveImage", "_meta": {"title": "Save Image"},
                "inputs": {"images": ["1", 0], "filename_prefix": "kept"}},
        })
    );
}

#[test]
fn what_only_exists_on_the_page_is_seen_through() {
    let sampler = json!({"id": 3, "type": "KSampler", "order": 3, "inputs": [
        {"name": "seed", "type": "INT", "link": 7, "widget": {"name": "seed"}},
    ], "widgets_values": [1, "fixed", 20, 8, "euler", "normal", 1]});
    let nodes = json!([
        image(1),
        node(2, "Reroute", &[("", "*", Some(1))], json!([])),
        node(4, "SetNode", &[("IMAGE", "IMAGE", Some(2))], json!(["picture"])),
        node(5, "GetNode", &[], json!(["picture"])),
        node(6, "PrimitiveNode", &[], json!([42, "randomize"])),
        node(7, "Note", &[], json!(["read me"])),
        node(8, "MarkdownNote", &[], json!(["# read me"])),
        sampler,
        save(9, 3),
        save(10, 4),
    ]);
    let links = json!([
        [1, 1, 0, 2, 0, "*"],
        [2, 2, 0, 4, 0, "IMAGE"],
        [3, 5, 0, 9, 0, "IMAGE"],
        [4, 2, 0, 10, 0, "IMAGE"],
        [7, 6, 0, 3, 0, "INT"],
    ]);
    let inputs = inputs(&file(nodes, links));
    assert_eq!(
        inputs.as_object().unwrap().keys().collect::<Vec<_>>(),
        ["1", "3", "9", "10"],
        "in the order of the editor"
    );
    assert_eq!(inputs["3"]["seed"], 42, "a primitive's value");
    assert_eq!(inputs["9"]["images"], json!(["1", 0]));
    assert_eq!(inputs["10"]["images"], json!(["1", 0]));
}

#[test]
fn muted_nodes_are_forgotten_and_bypassed_ones_passed_through() {
    let with_mode = |mode: i64| {
        let sockets = [("mask", "MASK", None), ("image", "IMAGE", Some(1))];
        let mut between = node(2, "ImageInvert", &sockets, json!([]));
        between["mode"] = json!(mode);
        let links = json!([[1, 1, 0, 2, 1, "IMAGE"], [2, 2, 0, 9, 0, "IMAGE"]]);
        inputs(&file(json!([image(1), between, save(9, 2)]), links))
    };
    assert_eq!(with_mode(0)["9"]["images"], json!(["2", 0]));
    let muted = with_mode(2);
    assert!(muted.get("2").is_none());
    assert_eq!(
        muted["9"],
        json!({"filename_prefix": "kept"}),
        "no link to what is not there"
    );
    let bypassed = with_mode(4);
    assert!(bypassed.get("2").is_none());
    assert_eq!(bypassed["9"]["images"], json!(["1", 0]), "by type, not by place");
}

/// A subgraph of one EmptyImage whose width is an input of the subgraph, within another that passes it on.
fn nested(width: Value) -> Value {
    let inner = json!({"id": "inner-id", "inputNode": {"id": -10}, "outputNode": {"id": -20},
    "nodes": [{"id": 1, "type": "EmptyImage", "widgets_values": [64, 32, 1, 255],
        "inputs": [{"name": "width", "type": "INT", "link": 1, "widget": {"name": "width"}}]}],
    "links": [
        {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 1, "target_slot": 0, "type": "INT"},
        {"id": 2, "origin_id": 1, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE"},
    ]});
    let outer = json!({"id": "outer-id",
    "nodes": [{"id": 5, "type": "inner-id", "inputs": [{"name": "width", "type": "INT", "link": 1}]}],
    "links": [
        {"id": 1, "origin_id": -10, "origin_slot": 0, "target_id": 5, "target_slot": 0, "type": "INT"},
        {"id": 2, "origin_id": 5, "origin_slot": 0, "target_id": -20, "target_slot": 0, "type": "IMAGE"},
    ]});
    let mut instance = json!({"id": 7, "type": "outer-id", "mode": 0, "order": 0,
        "inputs": [{"name": "width", "type": "INT", "link": null, "widget": {"name": "width"}}]});
    instance["widgets_values"] = width;
    let mut whole = file(json!([instance, save(9, 1)]), json!([[1, 7, 0, 9, 0, "IMAGE"]]));
    whole["definitions"] = json!({"subgraphs": [outer, inner]});
    whole
}

#[test]
fn subgraphs_are_spread_out_with_what_their_instance_is_given() {
    assert_eq!(
        inputs(&nested(json!([128]))),
        json!({
            "7:5:1": {"width": 128, "height": 32, "batch_size": 1, "color": 255},
            "9": {"images": ["7:5:1", 0], "filename_prefix": "kept"},
        })
    );
    // Nothing is given there: the inner widget keeps its own value.
    for nothing in [json!([null]), json!([]), json!(null)] {
        assert_eq!(inputs(&nested(nothing))["7:5:1"], IMAGE_INPUTS());
    }
    let mut muted = nested(json!([128]));
    muted["nodes"][0]["mode"] = json!(2);
    assert_eq!(inputs(&muted), json!({"9": {"filename_prefix": "kept"}}));
}

#[test]
fn a_list_is_written_so_that_it_is_no_link() {
    let listed = node(1, "EmptyImage", &[], json!([[1, 2], 32, 1, 255]));
    assert_eq!(
        inputs(&file(json!([listed]), json!([])))["1"]["width"],
        json!({"__value__": [1, 2]})
    );
}

#[test]
fn a_class_that_nobody_knows_keeps_the_names_of_the_file() {
    let unknown = json!({"id": 1, "type": "Unheard", "inputs": [
        {"name": "a", "type": "IMAGE", "link": null},
        {"name": "seed", "type": "INT", "widget": {"name": "seed"}},
        {"name": "b", "type": "STRING", "widget": {"name": "b"}},
    ], "widgets_values": [7, "randomize", "text"]});
    assert_eq!(
        api(&file(json!([unknown]), json!([]))),
        json!({"1": {"class_type": "Unheard", "inputs": {"seed": 7, "b": "text"}, "_meta": {"title": "Unheard"}}})
    );
}

#[test]
fn what_cannot_be_converted_says_why() {
    let refused = |file: Value| to_api_format(&file, &info()).unwrap_err().to_string();
    assert!(refused(json!({"nodes": [1]})).contains("'nodes'"));
    assert!(refused(file(json!([]), json!([[1]]))).contains("'links'"));
    let group = node(4, "workflow>Mine", &[], json!([]));
    let group = refused(file(json!([group]), json!([])));
    assert!(
        group.contains("node 4") && group.contains("Export (API)"),
        "{group}"
    );
    let round = json!([
        node(1, "Reroute", &[("", "*", Some(2))], json!([])),
        node(2, "Reroute", &[("", "*", Some(1))], json!([])),
        save(9, 3),
    ]);
    let links = json!([[1, 1, 0, 2, 0, "*"], [2, 2, 0, 1, 0, "*"], [3, 2, 0, 9, 0, "*"]]);
    let round = refused(file(round, links));
    assert!(round.contains("'images'") && round.contains("node 9"), "{round}");
}

#[test]
fn small_files_that_would_spread_out_without_end_are_refused() {
    let of_itself = json!({"id": "a", "nodes": [{"id": 1, "type": "a"}], "links": []});
    let mut endless = file(json!([{"id": 1, "type": "a"}]), json!([]));
    endless["definitions"] = json!({"subgraphs": [of_itself]});
    let refused = to_api_format(&endless, &info()).unwrap_err();
    assert!(matches!(refused, Error::TooDeep { .. }), "{refused}");

    // Many outputs of one node that is passed through, each of which looks through its many inputs.
    let sockets = vec![json!({"name": "x", "type": "MASK", "link": 1}); 30_000];
    let between = json!({"id": 1, "type": "Between", "mode": 4, "inputs": sockets});
    let wanting: Vec<Value> = (0..30_000)
        .map(|n| json!({"name": "y", "type": "IMAGE", "link": n}))
        .collect();
    let wanting = json!({"id": 2, "type": "Wanting", "inputs": wanting});
    let links = (0..30_000).map(|n| json!([n, 1, n, 2, n, "IMAGE"])).collect();
    let refused = to_api_format(&file(json!([between, wanting]), links), &info()).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");

    // Each of 30 subgraphs holds the next one ten times.
    let definitions = (0..30).map(|n| {
        let nodes: Vec<Value> = (0..10)
            .map(|id| json!({"id": id, "type": format!("s{}", n + 1)}))
            .collect();
        json!({"id": format!("s{n}"), "nodes": nodes, "links": []})
    });
    let mut wide = file(json!([{"id": 1, "type": "s0"}]), json!([]));
    wide["definitions"] = json!({"subgraphs": definitions.collect::<Vec<_>>()});
    let refused = to_api_format(&wide, &info()).unwrap_err();
    assert!(matches!(refused, Error::TooLarge { .. }), "{refused}");

    // Ten notes beside each instance, with its id: whoever goes down by ids goes down eleven times at each of 30 levels.
    let definitions = (0..30).map(|n| {
        let mut nodes = vec![json!({"id": 1, "type": format!("s{}", n + 1)})];
        nodes.extend((0..10).map(|_| json!({"id": 1, "type": "Note"})));
        json!({"id": format!("s{n}"), "nodes": nodes, "links": []})
    });
    let mut twins = file(json!([{"id": 1, "type": "s0"}]), json!([]));
    twins["definitions"] = json!({"subgraphs": definitions.collect::<Vec<_>>()});
    let refused = to_api_format(&twins, &info()).unwrap_err();
    assert!(matches!(refused, Error::Malformed { part: "nodes" }), "{refused}");

    // A thousand instances of a heavy node; and few nodes below ids that are long together.
    let heavy = json!({"id": "h", "nodes": [{"id": 1, "type": "Text", "widgets_values": ["x".repeat(1 << 20)]}], "links": []});
    let many: Vec<Value> = (0..1000).map(|id| json!({"id": id, "type": "h"})).collect();
    let mut heavy_file = file(json!(many), json!([]));
    heavy_file["definitions"] = json!({"subgraphs": [heavy]});
    let refused = to_api_format(&heavy_file, &info()).unwrap_err();
    assert!(matches!(refused, Error::TooManyBytes { .. }), "{refused}");
    let long = json!({"nodes": [{"id": "i".repeat(1000), "type": "Note"}], "links": []});
    let refused = to_api_format(&long, &info()).unwrap_err();
    assert!(matches!(refused, Error::Malformed { part: "nodes" }), "{refused}");
}
