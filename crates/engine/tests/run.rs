//! Prompts from submission to history, over HTTP and WebSocket.

mod common;

use common::{TestEngine, files, story};
use serde_json::{Value, json};

fn empty_and_save(width: i32, prefix: &str) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": width, "height": 8, "batch_size": 1, "color": 255}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    })
}

/// The messages of a recorded run: kinds and the parts that are the same in every run.
fn shape(messages: &[Value]) -> Vec<Value> {
    let part = |message: &Value| {
        let data = &message["data"];
        match message["type"].as_str().unwrap() {
            "status" => json!(["status", data["status"]["exec_info"]["queue_remaining"]]),
            "progress_state" => {
                let nodes = data["nodes"].as_object().unwrap().iter();
                let states: Vec<Value> = nodes
                    .map(|(id, n)| json!([id, n["value"], n["max"], n["state"]]))
                    .collect();
                json!(["progress_state", states])
            }
            "executing" => json!(["executing", data["node"], data.get("display_node")]),
            "executed" => json!(["executed", data["node"], data["output"]["images"][0]["type"]]),
            "execution_cached" => json!(["execution_cached", data["nodes"]]),
            "progress" => json!(["progress", data["value"], data["max"], data["node"]]),
            kind => json!([kind]),
        }
    };
    messages.iter().map(part).collect()
}

#[tokio::test]
async fn a_run_tells_what_the_original_tells() {
    let engine = TestEngine::start().await;
    let (messages, history) = engine.run(&empty_and_save(8, "h1")).await;
    let one = |value, state| json!(["1", value, 1.0, state]);
    let two = |value, state| json!(["2", value, 1.0, state]);
    assert_eq!(
        shape(&messages),
        [
            json!(["status", 1]),
            json!(["status", 1]),
            json!(["execution_start"]),
            json!(["execution_cached", []]),
            json!(["progress_state", [one(0.0, "running")]]),
            json!(["executing", "1", "1"]),
            json!(["progress_state", [one(1.0, "finished")]]),
            json!(["progress_state", [one(1.0, "finished"), two(0.0, "running")]]),
            json!(["executing", "2", "2"]),
            json!(["executed", "2", "output"]),
            json!(["progress_state", [one(1.0, "finished"), two(1.0, "finished")]]),
            json!(["execution_success"]),
            json!(["status", 0]),
            json!(["executing", null, null]),
        ]
    );
    let images = json!([{"filename": "h1_00001_.png", "subfolder": "", "type": "output"}]);
    assert_eq!(history["outputs"], json!({"2": {"images": images}}));
    assert_eq!(history["status"]["status_str"], "success");
    assert_eq!(history["status"]["completed"], true);
    let kinds: Vec<&Value> = history["status"]["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m[0])
        .collect();
    assert_eq!(
        kinds,
        ["execution_start", "execution_cached", "execution_success"]
    );
    let meta = json!({"node_id": "2", "display_node": "2", "parent_node": null, "real_node_id": "2"});
    assert_eq!(history["meta"], json!({"2": meta}));
    assert_eq!(history["prompt"][0], 0);
    assert_eq!(history["prompt"][2], empty_and_save(8, "h1"));
    assert_eq!(history["prompt"][3], json!({"client_id": "runner"}));
    assert_eq!(history["prompt"][4], json!(["2"]));
    assert_eq!(files(&engine.file("output")), ["h1_00001_.png"]);
}

#[tokio::test]
async fn an_equal_graph_is_served_from_the_cache_and_writes_nothing() {
    let engine = TestEngine::start().await;
    engine.run(&empty_and_save(8, "a")).await;
    let (messages, history) = engine.run(&empty_and_save(8, "a")).await;
    assert_eq!(
        story(&messages),
        [
            "execution_start",
            "execution_cached",
            "executed 2",
            "execution_success",
            "executing"
        ]
    );
    assert_eq!(messages[3]["data"]["nodes"], json!(["1", "2"]));
    // Whole numbers here, fractions where a node ran: so does the original.
    assert_eq!(messages[5]["data"]["nodes"]["2"]["value"].to_string(), "1");
    assert_eq!(history["outputs"]["2"]["images"][0]["filename"], "a_00001_.png");
    assert_eq!(files(&engine.file("output")), ["a_00001_.png"]);
    engine.run(&empty_and_save(9, "a")).await;
    assert_eq!(files(&engine.file("output")), ["a_00001_.png", "a_00002_.png"]);
    // Only the last prompt is kept.
    let (messages, _) = engine.run(&empty_and_save(8, "a")).await;
    assert_eq!(messages[3]["data"]["nodes"], json!([]));
}
