//! What was recorded of the original, said to the engine: every graph of the corpus, and every route.
//!
//! What differs is listed here by name with its reason; a difference that is gone must leave the list.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{TestEngine, files, story};
use serde_json::{Map, Value, json};

/// Graphs whose classes exist only where they were recorded, or need weights.
const NOT_RUN: [(&str, &str); 13] = [
    ("bad_checkpoint", "needs weights"),
    ("bad_custom_validation", "class of the recording"),
    ("ok_async", "class of the recording"),
    ("ok_expand", "class of the recording"),
    (
        "ok_ischanged_nan",
        "class of the recording; TestNeverCached stands for it in run.rs",
    ),
    ("ok_lazy", "class of the recording"),
    ("ok_list_value", "class of the recording"),
    ("ok_no_ui_text", "class of the recording"),
    (
        "ok_sleep_progress",
        "class of the recording; TestSleep stands for it in run.rs",
    ),
    (
        "run_oom",
        "class of the recording; TestOutOfMemory stands for it in run.rs",
    ),
    (
        "run_raise",
        "class of the recording; TestRaise stands for it in run.rs",
    ),
    ("sd15_tiny", "needs weights"),
    ("ok_load_invert_scale", "run, but there is no recording of it"),
];

/// Graphs that are answered differently.
const ANSWERED_OTHERWISE: [(&str, &str); 8] = [
    (
        "bad_cycle",
        "the original says nothing at all; here the cycle is named",
    ),
    ("bad_inputs_null", WORDS),
    ("bad_link_node", WORDS),
    (
        "bad_link_node_inner",
        "the input that has the bad link is named, not the one behind it",
    ),
    ("bad_link_slot", WORDS),
    (
        "bad_loadimage_traversal",
        "the original reads any file of the machine; here nothing leaves the directories",
    ),
    ("bad_no_inputs_key", WORDS),
    ("bad_node_not_dict", BAD_REQUEST),
];
const WORDS: &str =
    "same types in the same places, but words instead of what Python's exception happens to hold";

/// Routes that are answered differently.
const ROUTES_OTHERWISE: [(&str, &str); 12] = [
    ("/", "the engine has no web page of its own"),
    ("/history?max_items=abc", BAD_REQUEST),
    ("POST free nobody", BAD_REQUEST),
    ("POST prompt: extra_data null", BAD_REQUEST),
    ("POST prompt: invalid json", BAD_REQUEST),
    ("POST prompt: number bad", BAD_REQUEST),
    ("POST prompt: prompt list", BAD_REQUEST),
    ("POST prompt: prompt null", BAD_REQUEST),
    ("POST queue no body", BAD_REQUEST),
    ("view?filename=x.txt&type=input&channel=rgb", BAD_REQUEST),
    ("view?filename=x.txt&type=input&preview=webp", BAD_REQUEST),
    ("view_metadata", "there are no models"),
];
const BAD_REQUEST: &str = "the original fails with a plain 500; here it is a 400 that says what is wrong";

fn recorded(file: &str) -> Value {
    let path = format!("{}/../comfy/tests/data/{file}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

async fn engine() -> TestEngine {
    let engine = TestEngine::start().await;
    let golden = format!("{}/tests/golden/inputs", env!("CARGO_MANIFEST_DIR"));
    let input = engine.file("input");
    std::fs::create_dir(input.join("sub")).unwrap();
    for (from, to) in [
        ("rgba_50x40.png", "h1_rgba.png"),
        ("photo_48x64.jpg", "h1_rgb.jpg"),
        ("rgb_64x48.png", "sub/h1_sub.png"),
        ("rgb_64x48.png", "example.png"),
    ] {
        std::fs::copy(format!("{golden}/{from}"), input.join(to)).unwrap();
    }
    std::fs::write(input.join("x.html"), "<script>alert(1)</script>").unwrap();
    std::fs::write(input.join("x.txt"), "hello").unwrap();
    engine
}

#[tokio::test]
async fn every_graph_of_the_corpus_is_answered_as_recorded() {
    let graphs = recorded("workflows");
    let refusals = recorded("validation_errors");
    let transcripts = recorded("transcripts");
    let refusals: BTreeMap<&str, &Value> = refusals
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| {
            let name = entry["workflow"].as_str().unwrap();
            (name.strip_suffix(".json").unwrap_or(name), entry)
        })
        .collect();
    let (mut compared, mut differing) = (0, BTreeMap::new());
    let known = engine().await.json("/object_info").await;
    let mut not_run = BTreeSet::new();
    for (file, graph) in graphs.as_object().unwrap() {
        let name = file.strip_suffix(".json").unwrap();
        let strange = graph.as_object().into_iter().flat_map(Map::values).any(|node| {
            let class = node["class_type"].as_str().unwrap_or_default();
            // A class that never existed is what one of the graphs is about.
            !class.is_empty() && class != "NoSuchNode" && known.get(class).is_none()
        });
        let conversation = match name {
            "ok_empty_save" => &transcripts["success"],
            name => &transcripts[name],
        };
        let difference = match (refusals.get(name), conversation) {
            _ if strange => {
                not_run.insert(name);
                continue;
            }
            (Some(refusal), _) if refusal["status"] != 200 => refused(graph, refusal).await,
            (_, conversation) if conversation.is_object() => ran(name, graph, conversation).await,
            (Some(accepted), _) => accepted_as(graph, accepted).await,
            (None, _) => {
                let (_, history) = engine().await.run(graph).await;
                assert_eq!(history["status"]["status_str"], "success", "{name}");
                not_run.insert(name);
                continue;
            }
        };
        compared += 1;
        if let Err(difference) = difference {
            differing.insert(name, difference);
        }
    }
    println!("{compared} graphs compared, {} not", not_run.len());
    not_run.remove("ok_multibranch");
    same_list("graphs that are not compared", not_run, &NOT_RUN);
    let named = differing.keys().copied().collect();
    if differing.len() != ANSWERED_OTHERWISE.len() {
        println!("{differing:#?}");
    }
    same_list("graphs that differ", named, &ANSWERED_OTHERWISE);
}

fn same_list(what: &str, found: BTreeSet<&str>, listed: &[(&str, &str)]) {
    let listed: BTreeSet<&str> = listed.iter().map(|(name, _)| *name).collect();
    assert_eq!(found, listed, "{what}");
}

async fn post(graph: &Value) -> (u16, Value) {
    engine().await.post("/prompt", json!({"prompt": graph})).await
}

async fn refused(graph: &Value, refusal: &Value) -> Result<(), String> {
    let (status, answer) = post(graph).await;
    same("status", &json!(status), &refusal["status"])?;
    if refusal["response"].is_string() {
        return Ok(());
    }
    same("answer", &comparable(&answer), &comparable(&refusal["response"]))
}

async fn accepted_as(graph: &Value, accepted: &Value) -> Result<(), String> {
    let (status, answer) = post(graph).await;
    same("status", &json!(status), &accepted["status"])?;
    same(
        "node_errors",
        &comparable(&answer["node_errors"]),
        &comparable(&accepted["response"]["node_errors"]),
    )
}

/// Runs a graph on an engine of its own; what was cached in the recording runs here.
async fn ran(name: &str, graph: &Value, conversation: &Value) -> Result<(), String> {
    let engine = engine().await;
    let mut socket = engine.connect("replay").await;
    let (status, reply) = engine
        .post("/prompt", json!({"prompt": graph, "client_id": "replay"}))
        .await;
    let submitted = &conversation["submit"][0];
    same("status", &json!(status), &submitted["status"])?;
    same(
        "node_errors",
        &comparable(&reply["node_errors"]),
        &comparable(&submitted["response"]["node_errors"]),
    )?;
    let id = reply["prompt_id"].as_str().unwrap().to_owned();
    let found = socket.until_end(&id).await;
    let wanted = conversation["messages"].as_array().unwrap();
    let texts: Vec<Value> = wanted.iter().filter_map(|m| m.get("text").cloned()).collect();
    let cached = texts.iter().filter(|m| m["type"] == "execution_cached");
    let cached = cached
        .flat_map(|m| m["data"]["nodes"].as_array().unwrap())
        .map(|id| format!("executing {}", id.as_str().unwrap()));
    let failed = texts.iter().any(|m| m["type"] == "execution_error");
    let (own, mut theirs) = (set(story(&found)), set(story(&texts)));
    theirs.extend(cached);
    if !failed || name.starts_with("run_save") {
        same("messages", &json!(own), &json!(theirs))?;
    }
    same("fields of messages", &fields(&found), &fields(&texts))?;
    let binary = wanted.iter().filter(|m| m["binary"] == true);
    let frames: Vec<Value> = socket
        .binary
        .iter()
        .map(|frame| {
            let number = |at: usize| u32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
            json!([number(0), number(4)])
        })
        .collect();
    let wanted_frames: Vec<Value> = binary.map(|m| json!([m["event"], m["image_format"]])).collect();
    same("binary messages", &json!(frames), &json!(wanted_frames))?;
    let history = engine.json(&format!("/history/{id}")).await[&id].clone();
    let wanted = &conversation["history"][0];
    same(
        "outputs",
        &numbered(&history["outputs"]),
        &numbered(&wanted["outputs"]),
    )?;
    same("meta", &history["meta"], &wanted["meta"])?;
    same("prompt", &history["prompt"][2], &wanted["prompt"][2])?;
    let end = |history: &Value| {
        let status = &history["status"];
        let last = status["messages"].as_array().unwrap().last().unwrap().clone();
        let inputs = last[1]["current_inputs"].as_object();
        json!([
            status["status_str"],
            status["completed"],
            last[0],
            last[1]["node_id"],
            last[1]["exception_type"],
            inputs.map(|inputs| inputs.keys().collect::<BTreeSet<_>>()),
        ])
    };
    same("end", &end(&history), &end(wanted))?;
    let told: BTreeSet<String> = files(&engine.file("output")).into_iter().collect();
    let reported = history["outputs"].as_object().unwrap().values();
    for image in reported.flat_map(|ui| ui["images"].as_array().into_iter().flatten()) {
        let (subfolder, name) = (
            image["subfolder"].as_str().unwrap(),
            image["filename"].as_str().unwrap(),
        );
        let path = if subfolder.is_empty() {
            name.to_owned()
        } else {
            format!("{subfolder}/{name}")
        };
        if image["type"] == "output" && !told.contains(&path) {
            return Err(format!("{path} was reported and is not there"));
        }
    }
    Ok(())
}

fn set(story: Vec<String>) -> BTreeSet<String> {
    story
        .into_iter()
        .filter(|line| line != "execution_cached")
        .collect()
}

/// The fields of every kind of message.
fn fields(messages: &[Value]) -> Value {
    let mut fields: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for message in messages {
        let data = message["data"].as_object().into_iter().flatten();
        let known = fields.entry(message["type"].as_str().unwrap()).or_default();
        known.extend(data.map(|(name, _)| name.as_str()));
    }
    // What the server says on connecting is taken off before the comparison begins.
    fields.entry("status").or_default().remove("sid");
    json!(fields)
}

/// Without what is different in every run: random letters, and the number of a file in a directory that was not empty.
fn numbered(outputs: &Value) -> Value {
    let mut outputs = outputs.clone();
    let nodes = outputs
        .as_object_mut()
        .into_iter()
        .flat_map(|nodes| nodes.values_mut());
    for image in nodes.flat_map(|ui| ui["images"].as_array_mut().into_iter().flatten()) {
        let name = image["filename"]
            .as_str()
            .unwrap()
            .replace(|c: char| c.is_ascii_digit(), "0");
        let name = match name.strip_prefix("ComfyUI_temp_") {
            Some(rest) => format!("ComfyUI_temp_*{}", &rest[5..]),
            None => name,
        };
        image["filename"] = json!(name);
        let subfolder = image["subfolder"]
            .as_str()
            .unwrap()
            .replace(|c: char| c.is_ascii_digit(), "0");
        image["subfolder"] = json!(subfolder);
    }
    outputs
}

/// Without tracebacks, and with the errors of a node in a fixed order: the original walks a set.
fn comparable(answer: &Value) -> Value {
    match answer {
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(comparable).collect();
            if items.iter().all(|item| item.get("extra_info").is_some()) {
                items.sort_by_key(|error| error["details"].to_string());
            }
            Value::Array(items)
        }
        Value::Object(map) => map
            .iter()
            .filter(|(name, _)| *name != "traceback")
            .map(|(name, value)| (name.clone(), comparable(value)))
            .collect::<Map<_, _>>()
            .into(),
        other => other.clone(),
    }
}

fn same(what: &str, found: &Value, wanted: &Value) -> Result<(), String> {
    if found == wanted {
        Ok(())
    } else {
        Err(format!("{what}: found {found}, wanted {wanted}"))
    }
}

#[tokio::test]
async fn every_route_is_answered_as_recorded() {
    let path = format!(
        "{}/tests/transcripts/http_routes.json",
        env!("CARGO_MANIFEST_DIR")
    );
    let requests: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for prefix in ["", "/api"] {
        let engine = engine().await;
        // One graph had been run before.
        engine
            .run(&recorded("workflows")["ok_load_invert_scale.json"])
            .await;
        engine.post("/history", json!({"clear": true})).await;
        let mut differing = BTreeMap::new();
        for entry in &requests {
            let path = entry["request"]["path"].as_str().unwrap();
            // These have one place only.
            if !prefix.is_empty() && (path == "/" || path.starts_with("/internal/")) {
                continue;
            }
            if let Err(difference) = answered(&engine, prefix, entry).await {
                differing.insert(entry["label"].as_str().unwrap(), difference);
            }
            if entry["label"]
                .as_str()
                .unwrap()
                .starts_with("POST prompt: partial targets")
            {
                idle(&engine).await;
            }
        }
        let listed: Vec<_> = ROUTES_OTHERWISE
            .iter()
            .filter(|(label, _)| prefix.is_empty() || !label.starts_with("/internal/") && *label != "/")
            .copied()
            .collect();
        let named = differing.keys().copied().collect();
        if differing.len() != listed.len() {
            println!("{differing:#?}");
        }
        same_list("routes that differ", named, &listed);
    }
}

/// Waits until nothing is queued: what follows looks for files.
async fn idle(engine: &TestEngine) {
    loop {
        let left = engine.json("/prompt").await["exec_info"]["queue_remaining"].clone();
        if left == 0 {
            return;
        }
        tokio::task::yield_now().await;
    }
}

async fn answered(engine: &TestEngine, prefix: &str, entry: &Value) -> Result<(), String> {
    let request = &entry["request"];
    let method = request["method"].as_str().unwrap().parse().unwrap();
    let url = format!("{}{prefix}{}", engine.base, request["path"].as_str().unwrap());
    let mut send = engine.http.request(method, url);
    for (name, value) in request["headers"].as_object().into_iter().flatten() {
        // The origin that was right in the recording was the server's own.
        let value = match value.as_str().unwrap() {
            origin if name == "Origin" && origin.contains("127.0.0.1") => &engine.base,
            value => value,
        };
        send = send.header(name, value);
    }
    if let Some(body) = request.get("json") {
        send = send.body(body.to_string());
    } else if let Some(raw) = request["raw"].as_str() {
        send = send.body(raw.to_owned());
    }
    let answer = send.send().await.unwrap();
    same("status", &json!(answer.status().as_u16()), &entry["status"])?;
    let media_type = |text: &str| text.split(';').next().unwrap_or_default().to_owned();
    let found = answer
        .headers()
        .get("content-type")
        .map(|value| media_type(value.to_str().unwrap()));
    let text = answer.bytes().await.unwrap();
    let text = String::from_utf8_lossy(&text);
    if let (Some(wanted), false) = (entry["content_type"].as_str(), text.is_empty()) {
        same("media type", &json!(found), &json!(media_type(wanted)))?;
    }
    if let Some(wanted) = entry.get("json") {
        let body: Value = serde_json::from_str(&text).map_err(|_| format!("not JSON: {text}"))?;
        if entry["status"] == 200 {
            return same("fields", &keys(&body), &keys(wanted));
        }
        return same("body", &body, wanted);
    }
    Ok(())
}

/// What is in an object, without the values; a list's items are not looked at.
fn keys(value: &Value) -> Value {
    match value {
        Value::Object(map) => json!(map.keys().collect::<BTreeSet<_>>()),
        Value::Array(_) => json!("a list"),
        _ => json!("a value"),
    }
}
