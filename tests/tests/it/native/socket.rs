//! `/ws`: each client hears of its own prompts, in ComfyUI's order, and of nobody else's.

use darkroom_tests::{
    Options, Server, graphs,
    native::{Client, Frame, kinds, prompt_ids},
    server::endpoint_with_test_nodes,
};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_socket_tells_the_queue_and_answers_flags_and_wakes_nothing() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let mut client = Client::connect(&api, "", "c-1").await;
    let first =
        json!({"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "c-1"}});
    assert_eq!(client.next().await, Frame::Text(first));
    client
        .say(&json!({"type": "feature_flags", "data": {"supports_preview_metadata": true}}))
        .await;
    let flags = client.until("feature_flags").await;
    assert_eq!(flags["data"]["supports_preview_metadata"], true);
    // The same id again takes over.
    let mut newer = Client::connect(&api, "/api", "c-1").await;
    assert_eq!(newer.until("status").await["data"]["sid"], "c-1");
    while client.next().await != Frame::Closed {}
    assert!(api.instances().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_on_three_instances_hear_their_own_prompts_in_order_and_find_files_and_history_there() {
    let endpoint = endpoint_with_test_nodes(
        "default",
        "scaling = { max_instances = 3 }\ngpus = [\"0\", \"1\", \"2\"]",
    );
    let server = Server::start(Options::default().with_config(&endpoint)).await;
    let api = server.api();
    let clients = (0..5).map(async |n: u32| {
        let mut client = Client::connect(&api, "/e/default", &format!("client-{n}")).await;
        client.until("status").await;
        let mut own = Vec::new();
        for round in 0..3u32 {
            let graph = graphs::sleep(0.2, &format!("{n}-{round}"), n * 16 + round);
            own.push(client.submit(&api, "", &graph).await);
        }
        let mut frames = Vec::new();
        for id in &own {
            if !frames.iter().any(|f: &Frame| ends(f, id)) {
                frames.extend(client.until_end(id).await);
            }
        }
        assert_eq!(prompt_ids(&frames), own.iter().cloned().collect());
        for id in &own {
            let of_it: Vec<Frame> = frames.iter().filter(|f| names(f, id)).cloned().collect();
            let told = kinds(&of_it);
            assert_eq!(
                told.first().map(String::as_str),
                Some("execution_start"),
                "{told:?}"
            );
            assert_eq!(
                told.get(1).map(String::as_str),
                Some("execution_cached"),
                "{told:?}"
            );
            let last: Vec<&str> = told.iter().rev().take(3).map(String::as_str).collect();
            assert_eq!(last, ["executing", "execution_success", "executed"], "{told:?}");
            let history = api.get(&format!("/history/{id}")).await.expect(200).json();
            assert_eq!(
                history[id]["status"]["completed"], true,
                "history is there when the end is told"
            );
        }
    });
    futures::future::join_all(clients).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_back_learns_which_node_runs_and_how_it_ends() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let mut client = Client::connect(&api, "", "back").await;
    let id = client.submit(&api, "", &endless("s")).await;
    client.until("progress").await;
    drop(client);
    let mut again = Client::connect(&api, "", "back").await;
    again.until("status").await;
    assert_eq!(
        again.next().await,
        Frame::Text(json!({"type": "executing", "data": {"node": "5"}}))
    );
    api.post("/interrupt", &json!({"prompt_id": id}))
        .await
        .expect(200);
    let told = kinds(&again.until_end(&id).await);
    assert_eq!(told, ["execution_interrupted", "executing"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_and_a_failed_prompt_end_with_their_own_word() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let mut client = Client::connect(&api, "", "ends").await;
    let id = client.submit(&api, "", &endless("i")).await;
    client.until("progress").await;
    api.post("/interrupt", &json!({})).await.expect(200);
    let told = kinds(&client.until_end(&id).await);
    assert!(
        told.ends_with(&["execution_interrupted".to_owned(), "executing".to_owned()]),
        "{told:?}"
    );
    let raising = graphs::through("TestRaise", json!({"message": "boom"}), "r", 1);
    let id = client.submit(&api, "", &raising).await;
    let told = kinds(&client.until_end(&id).await);
    assert!(
        told.ends_with(&["execution_error".to_owned(), "executing".to_owned()]),
        "{told:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_prompt_made_before_it_failed_is_told_and_there() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let mut client = Client::connect(&api, "", "partly").await;
    let mut graph = graphs::through("TestRaise", json!({"message": "boom"}), "partly", 3);
    graph["7"] = json!({"class_type": "TestFile", "inputs": {
        "image": ["1", 0], "filename": "sub/note.txt", "content": "so far", "kind": "images", "folder": "output"
    }});
    graph["5"]["inputs"]["image"] = json!(["7", 0]);
    let id = client.submit(&api, "", &graph).await;
    let frames = client.until_end(&id).await;
    let told = kinds(&frames);
    let end = ["executed", "execution_error", "executing"].map(str::to_owned);
    assert!(told.ends_with(&end), "{told:?}");
    let history = api.get(&format!("/history/{id}")).await.expect(200).json();
    assert_eq!(history[&id]["status"]["status_str"], "error", "{history}");
    let file = &history[&id]["outputs"]["7"]["images"][0];
    let executed = frames.iter().find_map(|frame| match frame {
        Frame::Text(text) if text["type"] == "executed" => Some(&text["data"]["output"]["images"][0]),
        Frame::Text(_) | Frame::Binary(_) | Frame::Closed => None,
    });
    assert_eq!(executed, Some(file));
    let name = file["filename"].as_str().expect("a name");
    let view = format!("/view?filename={name}&subfolder=sub&type=output");
    assert_eq!(api.get(&view).await.expect(200).text(), "so far");
}

/// Runs until it is interrupted, with progress ten times a second.
fn endless(seed: &str) -> Value {
    graphs::through("TestSleep", json!({"seconds": 600, "steps": 6000}), seed, 9)
}

fn ends(frame: &Frame, id: &str) -> bool {
    matches!(frame, Frame::Text(text) if text["type"] == "executing" && text["data"]["node"].is_null() && text["data"]["prompt_id"] == id)
}

fn names(frame: &Frame, id: &str) -> bool {
    matches!(frame, Frame::Text(text) if text["data"]["prompt_id"] == id)
}
