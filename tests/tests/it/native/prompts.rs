//! `POST /prompt` and what is read of it afterwards.

use std::collections::{BTreeMap, BTreeSet};

use darkroom_tests::{Options, Server, config, eventually, graphs, http::JOB_LIMIT};
use reqwest::Method;
use serde_json::{Value, json};

/// ComfyUI's own answers to these graphs, recorded; tracebacks and input configurations left out.
const RECORDED: &str = include_str!("../../../data/native/validation.json");

/// Waits until the prompt stands in history.
async fn ended(api: &darkroom_tests::Api, path: &str, prompt_id: &str) -> Value {
    eventually("the prompt ends", JOB_LIMIT, async || {
        let history = api
            .get(&format!("{path}/history/{prompt_id}"))
            .await
            .expect(200)
            .json();
        history.get(prompt_id).cloned()
    })
    .await
}

/// Where our words differ from ComfyUI's, and ours: graphs that are no graphs are refused before any node is looked at (two
/// of them make ComfyUI's own code fail, one is a plain 500 there), and a cycle is called one.
const OWN_WORDS: &[(&str, &str)] = &[
    ("bad_inputs_null", "invalid_prompt"),
    ("bad_no_inputs_key", "invalid_prompt"),
    ("bad_node_not_dict", "invalid_prompt"),
    ("bad_no_class_type", "invalid_prompt"),
    ("bad_cycle", "prompt_outputs_failed_validation"),
];

#[tokio::test(flavor = "multi_thread")]
async fn graphs_are_refused_in_comfyuis_words() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let recorded: Vec<Value> = serde_json::from_str(RECORDED).unwrap();
    assert_eq!(recorded.len(), 21);
    let mut differ = Vec::new();
    for case in &recorded {
        let answer = api.post("/prompt", &json!({"prompt": case["graph"]})).await;
        let (name, status) = (case["name"].as_str().unwrap(), answer.status.as_u16());
        let told = answer.json();
        let own = OWN_WORDS.iter().find(|(of, _)| *of == name);
        if let Some((_, kind)) = own {
            assert_eq!(
                (status, &told["error"]["type"]),
                (400, &json!(kind)),
                "{name}: {told}"
            );
            assert_ne!(told["error"]["details"], "", "{name}: {told}");
            continue;
        }
        assert_eq!(u64::from(status), case["status"], "{name}: {told}");
        for (part, ours, theirs) in differences(&told, &case["answer"]) {
            differ.push(format!("{name} {part}: {ours} for {theirs}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

/// The parts of two answers that clients show or paint which are not the same. Our messages may go on where ComfyUI's end,
/// and its own exceptions name the input of another node.
fn differences(ours: &Value, theirs: &Value) -> Vec<(String, Value, Value)> {
    let (ours, theirs) = (parts(ours), parts(theirs));
    let of = |side: &BTreeMap<String, Value>, part: &str| side.get(part).cloned().unwrap_or_default();
    let all: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let told = all
        .into_iter()
        .map(|part| (part.clone(), of(&ours, part), of(&theirs, part)));
    told.filter(|(_, ours, theirs)| match (ours, theirs) {
        (Value::String(ours), Value::String(theirs)) => !ours.starts_with(theirs.as_str()),
        _ => ours != theirs,
    })
    .collect()
}

fn parts(answer: &Value) -> BTreeMap<String, Value> {
    let mut parts = BTreeMap::new();
    for key in ["type", "message"] {
        parts.insert(format!("error {key}"), answer["error"][key].clone());
    }
    for (node, said) in answer["node_errors"].as_object().into_iter().flatten() {
        for key in ["dependent_outputs", "class_type"] {
            parts.insert(format!("{node} {key}"), said[key].clone());
        }
        for error in said["errors"].as_array().into_iter().flatten() {
            let kind = error["type"].as_str().unwrap_or_default();
            let input = match kind.starts_with("exception_during") {
                true => &Value::Null,
                false => &error["extra_info"]["input_name"],
            };
            parts.insert(format!("{node} {kind} of {input}"), error["message"].clone());
        }
    }
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_make_no_sense_are_a_clean_400() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let graph = graphs::plain(1, 8, 8);
    for (body, kind) in [
        ("{oops".to_owned(), "invalid_json"),
        (String::new(), "invalid_json"),
        ("[1]".to_owned(), "no_prompt"),
        ("{}".to_owned(), "no_prompt"),
        (json!({"prompt": null}).to_string(), "invalid_prompt"),
        (json!({"prompt": [1]}).to_string(), "invalid_prompt"),
        (
            json!({"prompt": graph, "number": "x"}).to_string(),
            "invalid_number",
        ),
        (
            json!({"prompt": graph, "extra_data": 3}).to_string(),
            "invalid_extra_data",
        ),
        (
            json!({"prompt": graph, "prompt_id": ""}).to_string(),
            "invalid_prompt_id",
        ),
        (
            json!({"prompt": graph, "client_id": []}).to_string(),
            "invalid_client_id",
        ),
        (
            json!({"prompt": graph, "partial_execution_targets": []}).to_string(),
            "prompt_no_outputs",
        ),
    ] {
        let request = api.request(Method::POST, "/api/prompt").body(body.clone());
        let answer = api.send(request).await.expect(400);
        assert_eq!(answer.json()["error"]["type"], kind, "{body}");
    }
    for path in [
        "/history?max_items=abc",
        "/history?offset=x",
        "/api/jobs?status=x",
        "/api/jobs?limit=0",
    ] {
        api.get(path).await.expect(400);
    }
    for path in ["/queue", "/history"] {
        api.send(api.request(Method::POST, path)).await.expect(400);
    }
    api.get("/ws").await.expect(400);
    assert_eq!(
        api.get("/queue").await.json(),
        json!({"queue_running": [], "queue_pending": []})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_durable_and_holds_what_comfyuis_would() {
    let mut server = Server::start(Options::default()).await;
    let api = server.api();
    let workflow = json!({"id": "w-1", "nodes": []});
    let body = json!({
        "prompt": graphs::plain(7, 8, 8), "prompt_id": "图 \"1\"",
        "extra_data": {
            "extra_pnginfo": {"workflow": workflow},
            "api_key_comfy_org": "comfyui-very-secret", "auth_token_comfy_org": "eyJ-very-secret",
        },
    });
    let answer = api.post("/prompt", &body).await.expect(200).json();
    assert_eq!(answer["prompt_id"], "图 \"1\"");
    assert_eq!(answer["node_errors"], json!({}));
    let history = eventually("the prompt ends", JOB_LIMIT, async || {
        let history = api.get("/history?max_items=20").await.expect(200).json();
        history.get("图 \"1\"").cloned()
    })
    .await;
    server.stop().await;
    server.restart().await;
    let again = api.get("/history").await.expect(200);
    for path in ["/history", "/api/jobs", "/api/jobs/%E5%9B%BE%20%221%22", "/queue"] {
        let told = api.get(path).await.expect(200).text();
        assert!(!told.contains("very-secret"), "{path}: {told}");
    }
    assert!(!server.log().contains("very-secret"));
    assert_eq!(again.json()["图 \"1\""], history);
    assert_eq!(history["prompt"][0], answer["number"]);
    assert_eq!(history["prompt"][2], graphs::plain(7, 8, 8));
    assert_eq!(history["prompt"][3]["extra_pnginfo"]["workflow"], workflow);
    assert_eq!(history["prompt"][4], json!(["9"]));
    let status = &history["status"];
    assert_eq!(
        (&status["status_str"], &status["completed"]),
        (&json!("success"), &json!(true))
    );
    let messages = status["messages"].as_array().unwrap();
    let kinds: Vec<&str> = messages.iter().filter_map(|m| m[0].as_str()).collect();
    assert_eq!(
        kinds,
        ["execution_start", "execution_cached", "execution_success"]
    );
    assert_eq!(messages[0][1]["prompt_id"], "图 \"1\"");
    let image = &history["outputs"]["9"]["images"][0];
    assert_eq!(
        (&image["type"], &image["subfolder"]),
        (&json!("output"), &json!(""))
    );

    let jobs = api
        .get("/api/jobs?status=completed&limit=200&offset=0")
        .await
        .expect(200)
        .json();
    assert_eq!(
        jobs["pagination"],
        json!({"offset": 0, "limit": 200, "total": 1, "has_more": false})
    );
    let job = &jobs["jobs"][0];
    assert_eq!(
        (&job["status"], &job["workflow_id"]),
        (&json!("completed"), &json!("w-1"))
    );
    assert_eq!(job["preview_output"]["filename"], image["filename"]);
    assert_eq!(job["outputs_count"], 1);
    api.post("/history", &json!({"delete": ["图 \"1\"", "unknown"]}))
        .await
        .expect(200);
    assert_eq!(api.get("/history").await.json(), json!({}));
    assert_eq!(api.get("/api/jobs").await.json()["pagination"]["total"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_prompt_says_why_in_history_and_in_the_list() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let graph = graphs::through("TestRaise", json!({"message": "boom"}), "r", 1);
    let answer = api
        .post("/prompt", &json!({"prompt": graph}))
        .await
        .expect(200)
        .json();
    let id = answer["prompt_id"].as_str().unwrap();
    let history = ended(&api, "", id).await;
    assert_eq!(history["status"]["status_str"], "error");
    let last = history["status"]["messages"]
        .as_array()
        .unwrap()
        .last()
        .unwrap()
        .clone();
    assert_eq!(
        (&last[0], &last[1]["node_id"]),
        (&json!("execution_error"), &json!("5"))
    );
    let job = api.get(&format!("/api/jobs/{id}")).await.expect(200).json();
    assert_eq!(job["status"], "failed");
    assert_eq!(job["execution_error"]["node_id"], "5");
    assert_eq!(job["workflow"]["prompt"], graph);
    assert_eq!(
        api.get("/api/jobs/unknown").await.expect(404).json(),
        json!({"error": "Job not found"})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_prompts_alone() {
    let keys = config::alice_and_bob() + "[endpoints.default]\n";
    let server = Server::start(Options::default().with_config(&keys)).await;
    let (alice, bob) = (server.api_as(Some("sk_alice")), server.api_as(Some("sk_bob")));
    let body = json!({"prompt": graphs::plain(3, 8, 8), "prompt_id": "same"});
    alice.post("/prompt", &body).await.expect(200);
    ended(&alice, "", "same").await;
    for path in ["/history/same", "/history"] {
        assert_eq!(bob.get(path).await.expect(200).json(), json!({}));
    }
    assert_eq!(bob.get("/api/jobs").await.json()["jobs"], json!([]));
    bob.get("/api/jobs/same").await.expect(404);
    bob.post("/history", &json!({"clear": true, "delete": ["same"]}))
        .await
        .expect(200);
    bob.post("/api/jobs/same/cancel", &json!({})).await.expect(404);
    assert_eq!(alice.get("/history").await.json().as_object().unwrap().len(), 1);
}
