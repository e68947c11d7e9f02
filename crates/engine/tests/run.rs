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

fn sleep(seconds: f64, seed: &str) -> Value {
    json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "TestSleep", "inputs": {"image": ["1", 0], "seconds": seconds, "steps": 5, "seed": seed}},
        "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    })
}

#[tokio::test]
async fn progress_is_counted_as_recorded() {
    let engine = TestEngine::start().await;
    let (messages, history) = engine.run(&sleep(0.05, "a")).await;
    let steps: Vec<Value> = shape(&messages)
        .into_iter()
        .filter(|m| m[0] == "progress")
        .collect();
    let counted = |n: u64| json!(["progress", n, 5, "2"]);
    assert_eq!(
        steps,
        [counted(1), counted(2), counted(3), counted(4), counted(5)]
    );
    // Before each count comes the table with the same number; at the end the node keeps its maximum.
    let states: Vec<String> = messages
        .iter()
        .filter(|m| m["type"] == "progress_state")
        .filter_map(|m| m["data"]["nodes"].get("2"))
        .map(|n| format!("{}/{} {}", n["value"], n["max"], n["state"].as_str().unwrap()))
        .collect();
    assert_eq!(
        states[..7],
        [
            "0.0/1.0 running",
            "1/5 running",
            "2/5 running",
            "3/5 running",
            "4/5 running",
            "5/5 running",
            "5/5 finished"
        ]
    );
    let file = history["outputs"]["3"]["images"][0]["filename"].as_str().unwrap();
    assert!(engine.file("temp").join(file).is_file());
}

#[tokio::test]
async fn an_interrupt_ends_the_running_prompt_only() {
    let engine = TestEngine::start().await;
    let mut socket = engine.connect("a").await;
    let long = engine.submit(&sleep(60.0, "a"), "a").await;
    let next = engine.submit(&sleep(0.0, "b"), "a").await;
    socket.until("executing").await;
    while socket.next().await["data"]["node"] != "2" {}
    // Names a prompt that waits: no effect on anything.
    assert_eq!(engine.post("/interrupt", json!({"prompt_id": next})).await.0, 200);
    assert_eq!(
        engine.post("/api/interrupt", json!({"prompt_id": long})).await.0,
        200
    );
    let messages = socket.until_end(&long).await;
    let told = messages
        .iter()
        .find(|m| m["type"] == "execution_interrupted")
        .unwrap();
    assert_eq!(told["data"]["node_id"], "2");
    assert_eq!(told["data"]["node_type"], "TestSleep");
    assert_eq!(told["data"]["executed"], json!(["1"]));
    let status = &engine.json(&format!("/history/{long}")).await[&long]["status"];
    assert_eq!(
        (&status["status_str"], &status["completed"]),
        (&json!("error"), &json!(false))
    );
    assert_eq!(status["messages"][2][0], "execution_interrupted");
    socket.until_end(&next).await;
    assert_eq!(
        engine.json(&format!("/history/{next}")).await[&next]["status"]["status_str"],
        "success"
    );
}

#[tokio::test]
async fn a_node_that_does_not_listen_stops_the_next_one() {
    let engine = TestEngine::start().await;
    let mut socket = engine.connect("a").await;
    let graph = json!({
        "1": {"class_type": "TestIgnoreInterrupt", "inputs": {"seconds": 0.2, "steps": 2}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let id = engine.submit(&graph, "a").await;
    socket.until("executing").await;
    engine.post("/interrupt", json!({})).await;
    let messages = socket.until_end(&id).await;
    let told = messages
        .iter()
        .find(|m| m["type"] == "execution_interrupted")
        .unwrap();
    assert_eq!(
        (&told["data"]["node_id"], &told["data"]["executed"]),
        (&json!("2"), &json!(["1"]))
    );
}

/// Unoptimized, the nodes would take far longer than anything here is waited for.
#[tokio::test]
async fn an_interrupt_ends_a_node_in_the_middle_of_its_pixels() {
    let engine = TestEngine::start().await;
    let empty = |side: i32| {
        json!({"class_type": "EmptyImage",
            "inputs": {"width": side, "height": side, "batch_size": 1, "color": 255}})
    };
    let scale = json!({"class_type": "ImageScale", "inputs": {
        "image": ["1", 0], "upscale_method": "bicubic", "width": 10_000, "height": 10_000, "crop": "disabled"}});
    let blur =
        json!({"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 31, "sigma": 1.0}});
    for (small, slow) in [(empty(64), scale), (empty(2500), blur)] {
        let mut socket = engine.connect("a").await;
        let graph = json!({
            "1": small,
            "2": slow,
            "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
        });
        let id = engine.submit(&graph, "a").await;
        while socket.until("executing").await.last().unwrap()["data"]["node"] != "2" {}
        engine.post("/interrupt", json!({})).await;
        let messages = socket.until_end(&id).await;
        let told = messages
            .iter()
            .find(|m| m["type"] == "execution_interrupted")
            .unwrap();
        assert_eq!(told["data"]["node_id"], "2");
        assert_eq!(told["data"]["executed"], json!(["1"]));
    }
    let (_, history) = engine.run(&empty_and_save(8, "after")).await;
    assert_eq!(history["status"]["status_str"], "success");
}

#[tokio::test]
async fn a_failure_names_the_node_and_keeps_what_was_made() {
    let engine = TestEngine::start().await;
    let graph = |class: &str, inputs: Value| {
        json!({
            "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
            "2": {"class_type": class, "inputs": inputs},
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "h1"}},
            "4": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        })
    };
    let raise = graph("TestRaise", json!({"image": ["1", 0], "message": "boom"}));
    let (messages, history) = engine.run(&raise).await;
    let error = &messages.iter().find(|m| m["type"] == "execution_error").unwrap()["data"];
    assert_eq!(
        (&error["node_id"], &error["node_type"]),
        (&json!("2"), &json!("TestRaise"))
    );
    assert_eq!(error["exception_type"], "ValueError");
    assert_eq!(error["exception_message"], "boom\n");
    assert_eq!(error["executed"], json!(["1", "4"]));
    assert_eq!(error["current_inputs"]["message"], json!(["boom"]));
    assert!(
        error["current_inputs"]["image"][0]
            .as_str()
            .unwrap()
            .starts_with("tensor([[[[0., 0., 0.],")
    );
    assert_eq!(error["current_outputs"], json!(["1", "2", "3", "4"]));
    let parts: Vec<&String> = error.as_object().unwrap().keys().collect();
    assert_eq!(
        parts,
        [
            "prompt_id",
            "node_id",
            "node_type",
            "executed",
            "exception_message",
            "exception_type",
            "traceback",
            "current_inputs",
            "current_outputs",
            "timestamp"
        ]
    );
    let traceback = error["traceback"].as_array().unwrap();
    assert!(!traceback.is_empty() && traceback.iter().all(Value::is_string));
    assert_eq!(
        history["outputs"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["4"]
    );
    // A resubmission goes on after what succeeded.
    let (messages, _) = engine.run(&raise).await;
    assert_eq!(messages[3]["data"]["nodes"], json!(["1", "4"]));

    let (messages, _) = engine
        .run(&graph("TestOutOfMemory", json!({"image": ["1", 0]})))
        .await;
    let error = &messages.iter().find(|m| m["type"] == "execution_error").unwrap()["data"];
    assert_eq!(error["exception_type"], "torch.OutOfMemoryError");
    assert!(error["exception_message"].as_str().unwrap().contains("TIPS"));
    let everything = json!([messages, engine.json("/history").await]).to_string();
    assert!(
        !everything.contains(engine.dir.path().to_str().unwrap()),
        "a path of this machine got out"
    );
}

#[tokio::test]
async fn without_a_client_only_progress_is_told_and_to_everyone() {
    let engine = TestEngine::start().await;
    let mut listener = engine.connect("listener").await;
    let (_, reply) = engine.post("/prompt", json!({"prompt": sleep(0.0, "x")})).await;
    let mut messages = Vec::new();
    while messages
        .last()
        .is_none_or(|m: &Value| m["data"]["status"]["exec_info"]["queue_remaining"] != 0)
    {
        messages.push(listener.next().await);
    }
    let kinds: std::collections::BTreeSet<&str> =
        messages.iter().map(|m| m["type"].as_str().unwrap()).collect();
    assert_eq!(
        kinds.into_iter().collect::<Vec<_>>(),
        ["progress", "progress_state", "status"]
    );
    let id = reply["prompt_id"].as_str().unwrap();
    assert_eq!(
        engine.json(&format!("/history/{id}")).await[id]["status"]["completed"],
        true
    );
}

#[tokio::test]
async fn the_queue_runs_by_number_and_then_by_arrival() {
    let engine = TestEngine::start().await;
    let mut socket = engine.connect("a").await;
    let first = engine.submit(&sleep(60.0, "first"), "a").await;
    socket.until("executing").await;
    for (id, extra) in [
        ("second", json!({})),
        ("third", json!({})),
        ("front1", json!({"front": true})),
        ("front2", json!({"front": true})),
        ("low", json!({"number": -100})),
        ("gone", json!({})),
        // Equal number and equal id kill the original's worker.
        ("tie", json!({"number": "50"})),
        ("tie", json!({"number": 50})),
    ] {
        let mut body = json!({"prompt": empty_and_save(4, id), "client_id": "a", "prompt_id": id});
        body.as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        assert_eq!(engine.post("/prompt", body).await.0, 200);
    }
    engine
        .post("/queue", json!({"delete": ["gone", "unknown"]}))
        .await;
    let queue = engine.json("/queue").await;
    let ids = |list: &Value| -> Vec<String> {
        list.as_array()
            .unwrap()
            .iter()
            .map(|item| item[1].as_str().unwrap().to_owned())
            .collect()
    };
    assert_eq!(ids(&queue["queue_running"]), [first.as_str()]);
    assert_eq!(
        ids(&queue["queue_pending"]),
        ["low", "front2", "front1", "second", "third", "tie", "tie"]
    );
    assert_eq!(queue["queue_pending"][0][0].to_string(), "-100.0");
    assert_eq!(
        engine.json("/prompt").await,
        json!({"exec_info": {"queue_remaining": 8}})
    );
    engine
        .http
        .post(format!("{}/interrupt", engine.base))
        .send()
        .await
        .unwrap();
    let mut order = Vec::new();
    while order.len() < 7 {
        let message = socket.next().await;
        if message["type"] == "execution_success" {
            order.push(message["data"]["prompt_id"].as_str().unwrap().to_owned());
        }
    }
    assert_eq!(
        order,
        ["low", "front2", "front1", "second", "third", "tie", "tie"]
    );
}

#[tokio::test]
async fn a_dead_worker_leaves_the_server_up_and_everything_waiting() {
    let engine = TestEngine::start().await;
    let mut socket = engine.connect("a").await;
    let graph = json!({
        "1": {"class_type": "TestKillWorker", "inputs": {}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let killer = engine.submit(&graph, "a").await;
    socket.until("executing").await;
    let waiting = engine.submit(&empty_and_save(4, "x"), "a").await;
    let queue = engine.json("/queue").await;
    assert_eq!(queue["queue_running"][0][1], json!(killer));
    assert_eq!(queue["queue_pending"][0][1], json!(waiting));
    assert_eq!(engine.json(&format!("/history/{killer}")).await, json!({}));
    assert_eq!(engine.get("/system_stats").await.status(), 200);
}

#[tokio::test]
async fn test_nodes_write_and_show_what_they_are_asked_to() {
    let engine = TestEngine::start().await;
    let graph = json!({
        "1": {"class_type": "TestFile", "inputs": {"filename": "a/b.mp4", "content": "x", "kind": "gifs", "folder": "output"}},
        "2": {"class_type": "TestFile", "inputs": {"filename": "extra.bin", "content": "y", "kind": "hidden", "folder": "output"}},
        "3": {"class_type": "TestText", "inputs": {"text": "héllo"}},
        "4": {"class_type": "TestFile", "inputs": {"filename": "../out.bin", "content": "y", "kind": "hidden", "folder": "output"}},
    });
    let (_, history) = engine.run(&graph).await;
    assert_eq!(history["outputs"]["1"]["gifs"][0]["subfolder"], "a");
    assert_eq!(history["outputs"].get("2"), None);
    assert_eq!(history["outputs"]["3"]["text"], json!(["héllo"]));
    assert_eq!(history["status"]["messages"][2][1]["node_id"], "4");
    assert_eq!(files(&engine.file("output")), ["a/b.mp4", "extra.bin"]);
    assert!(!engine.file("out.bin").exists());
}

#[tokio::test]
async fn a_class_that_is_never_cached_runs_every_time() {
    let engine = TestEngine::start().await;
    let graph = json!({
        "1": {"class_type": "TestNeverCached", "inputs": {}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let (_, first) = engine.run(&graph).await;
    let (messages, second) = engine.run(&graph).await;
    assert_eq!(messages[3]["data"]["nodes"], json!([]));
    let name = |history: &Value| {
        history["outputs"]["2"]["images"][0]["filename"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    // The node object and with it the random letters stay; the counter goes on.
    assert_eq!(name(&first).replace("00001", "00002"), name(&second));
}

#[tokio::test]
async fn free_memory_forgets_all_results() {
    let engine = TestEngine::start().await;
    engine.run(&empty_and_save(8, "a")).await;
    assert_eq!(
        engine
            .post("/free", json!({"unload_models": true, "free_memory": true}))
            .await
            .0,
        200
    );
    let (messages, _) = engine.run(&empty_and_save(8, "a")).await;
    assert_eq!(messages[3]["data"]["nodes"], json!([]));
}

#[tokio::test]
async fn previews_go_before_or_after_the_count_by_what_the_client_understands() {
    let engine = TestEngine::start().await;
    let graph = |seed: i32| {
        json!({
            "1": {"class_type": "TestPreview", "inputs": {"count": 2, "seed": seed}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        })
    };
    let mut old = engine.connect("old").await;
    let id = engine.submit(&graph(1), "old").await;
    old.until_end(&id).await;
    assert_eq!(old.binary.len(), 2);
    assert_eq!(old.binary[0][..8], [0, 0, 0, 1, 0, 0, 0, 1]);
    assert_eq!(old.binary[0][8..10], [0xff, 0xd8]);

    let mut new = engine.connect("new").await;
    new.send(json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}}))
        .await;
    assert_eq!(new.next().await["data"]["supports_preview_metadata"], true);
    let id = engine.submit(&graph(2), "new").await;
    new.until_end(&id).await;
    let frame = &new.binary[0];
    assert_eq!(frame[..4], [0, 0, 0, 4]);
    let length = u32::from_be_bytes(frame[4..8].try_into().unwrap()) as usize;
    let metadata: Value = serde_json::from_slice(&frame[8..8 + length]).unwrap();
    assert_eq!(
        (&metadata["node_id"], &metadata["prompt_id"]),
        (&json!("1"), &json!(id))
    );
    assert_eq!(frame[8 + length..8 + length + 2], [0xff, 0xd8]);
}

#[tokio::test]
async fn a_client_that_comes_back_is_told_the_running_node() {
    let engine = TestEngine::start().await;
    let mut socket = engine.connect("a").await;
    let id = engine.submit(&sleep(60.0, "a"), "a").await;
    while socket.next().await["data"]["node"] != "2" {}
    drop(socket);
    let mut again = engine.connect("a").await;
    assert_eq!(
        again.next().await,
        json!({"type": "executing", "data": {"node": "2"}})
    );
    engine.post("/interrupt", json!({})).await;
    again.until_end(&id).await;
}

fn load_and_save(name: &str) -> Value {
    json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "l"}},
    })
}

#[tokio::test]
async fn a_replaced_input_file_is_noticed_and_a_deleted_output_is_not() {
    let engine = TestEngine::start().await;
    let golden = |name: &str| format!("{}/tests/golden/inputs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::copy(golden("rgb_64x48.png"), engine.file("input/a.png")).unwrap();
    engine.run(&load_and_save("a.png")).await;
    std::fs::remove_file(engine.file("output/l_00001_.png")).unwrap();
    let (messages, history) = engine.run(&load_and_save("a.png")).await;
    assert_eq!(messages[3]["data"]["nodes"], json!(["1", "2"]));
    assert_eq!(history["outputs"]["2"]["images"][0]["filename"], "l_00001_.png");
    assert!(
        files(&engine.file("output")).is_empty(),
        "what is cached is not written again"
    );
    std::fs::copy(golden("rgba_50x40.png"), engine.file("input/a.png")).unwrap();
    let (messages, _) = engine.run(&load_and_save("a.png")).await;
    assert_eq!(messages[3]["data"]["nodes"], json!([]));
    // History shows the graph as it was sent, not as it is embedded in the file.
    assert_eq!(history["prompt"][2], load_and_save("a.png"));
}

#[tokio::test]
async fn only_the_wanted_outputs_run() {
    let engine = TestEngine::start().await;
    let mut graph = empty_and_save(8, "a");
    graph["3"] = json!({"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "b"}});
    let mut socket = engine.connect("a").await;
    let body =
        json!({"prompt": graph, "client_id": "a", "prompt_id": "p", "partial_execution_targets": ["3"]});
    assert_eq!(engine.post("/prompt", body).await.0, 200);
    socket.until_end("p").await;
    assert_eq!(files(&engine.file("output")), ["b_00001_.png"]);
    assert_eq!(engine.json("/history/p").await["p"]["prompt"][4], json!(["3"]));
}

#[tokio::test]
async fn equal_save_nodes_share_one_file() {
    let engine = TestEngine::start().await;
    let mut graph = empty_and_save(8, "two");
    graph["3"] = graph["2"].clone();
    let (_, history) = engine.run(&graph).await;
    assert_eq!(history["outputs"]["2"], history["outputs"]["3"]);
    assert_eq!(files(&engine.file("output")), ["two_00001_.png"]);
}

#[tokio::test]
async fn the_temporary_directory_is_empty_after_a_start() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("temp/sub")).unwrap();
    std::fs::create_dir_all(dir.path().join("output")).unwrap();
    std::fs::write(dir.path().join("temp/sub/old.png"), "x").unwrap();
    std::fs::write(dir.path().join("output/kept.png"), "x").unwrap();
    let engine = TestEngine::start_in(dir).await;
    assert_eq!(files(engine.dir.path()), ["output/kept.png"]);
}

#[tokio::test]
async fn a_text_where_an_image_belongs_fails_in_the_node_and_the_worker_lives() {
    let engine = TestEngine::start().await;
    let graph =
        json!({"1": {"class_type": "SaveImage", "inputs": {"images": "str", "filename_prefix": "x"}}});
    let (_, history) = engine.run(&graph).await;
    assert_eq!(history["status"]["messages"][2][0], "execution_error");
    let (_, history) = engine.run(&empty_and_save(8, "a")).await;
    assert_eq!(history["status"]["status_str"], "success");
}

#[tokio::test]
async fn a_large_graph_runs_and_its_messages_stay_small() {
    let engine = TestEngine::start().await;
    let mut graph = serde_json::Map::new();
    graph.insert(
        "0".into(),
        json!({"class_type": "SolidMask", "inputs": {"value": 0.5, "width": 2, "height": 2}}),
    );
    for i in 1..300 {
        let inputs = json!({"mask": [(i - 1).to_string(), 0]});
        graph.insert(
            i.to_string(),
            json!({"class_type": "InvertMask", "inputs": inputs}),
        );
    }
    graph.insert(
        "out".into(),
        json!({"class_type": "PreviewAny", "inputs": {"source": ["299", 0]}}),
    );
    let (messages, history) = engine.run(&Value::Object(graph)).await;
    assert_eq!(history["status"]["status_str"], "success");
    assert!(messages.iter().all(|message| message.to_string().len() < 30_000));
}

#[tokio::test]
async fn a_list_runs_what_follows_once_for_each_item() {
    let engine = TestEngine::start().await;
    let graph = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 5, "color": 0}},
        "2": {"class_type": "RebatchImages", "inputs": {"images": ["1", 0], "batch_size": 2}},
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "l"}},
    });
    let (messages, history) = engine.run(&graph).await;
    let told = messages.iter().filter(|m| m["type"] == "executed");
    assert_eq!(told.count(), 1, "one message for all calls");
    let images = history["outputs"]["4"]["images"].as_array().unwrap();
    let names: Vec<&str> = images.iter().map(|i| i["filename"].as_str().unwrap()).collect();
    // Three calls with 2, 2 and 1 images; the counter goes on from call to call.
    let wanted: Vec<String> = (1..=5).map(|n| format!("l_{n:05}_.png")).collect();
    assert_eq!(names, wanted);
    assert_eq!(files(&engine.file("output")), wanted);
}

#[tokio::test]
async fn widget_values_are_brought_to_their_types() {
    let engine = TestEngine::start().await;
    let mut graph = empty_and_save(8, "c");
    graph["1"]["inputs"] = json!({"width": "16", "height": 8.9, "batch_size": true, "color": "255"});
    graph["2"]["inputs"]["filename_prefix"] = json!(12);
    let (_, history) = engine.run(&graph).await;
    assert_eq!(history["status"]["status_str"], "success", "{history}");
    assert_eq!(files(&engine.file("output")), ["12_00001_.png"]);
    let bytes = std::fs::read(engine.file("output/12_00001_.png")).unwrap();
    let frames = darkroom_engine::pixels::decode::frames(&bytes).unwrap();
    assert_eq!((frames[0].width, frames[0].height), (16, 8));
    assert_eq!(frames[0].rgb[..3], [0, 0, 255]);
}
