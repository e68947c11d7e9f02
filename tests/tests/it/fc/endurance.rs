//! Many callers, slow readers, long waits, and instances and servers that go away in the middle.

use base64::{Engine, prelude::BASE64_STANDARD};
use darkroom_tests::{Options, Server, eventually, fc, graphs, pixels, processes, within};
use futures::{SinkExt, StreamExt};
use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{LIMIT, RUN, WITH_PARKED, ended, error_body, post};

/// The picture of a result that was asked for as base64.
fn picture(result: &Value) -> Vec<u8> {
    let content = fc::results(result)[0]["output"]["base64"]["content"].clone();
    BASE64_STANDARD
        .decode(content.as_str().expect("content"))
        .expect("base64")
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_in_every_mode_each_get_their_own_picture() {
    let config = "[endpoints.default]\nscaling = { max_instances = 3 }\n";
    let server = Server::start(Options::default().with_config(config)).await;
    let calls = (0..48_u32).map(|n| {
        let api = server.api();
        async move {
            let colour = 0x01_05_07 * (n + 1);
            let graph = graphs::plain(colour, 8, 8);
            let query = "output_base64=1";
            let result = match n % 4 {
                0 => fc::run(&api, query, &graph).await.expect(200).json(),
                1 => fc::stream(&api, query, &graph).await.pop().expect("a message"),
                2 => fc::websocket(&api, query, &graph).await.pop().expect("a message"),
                _ => {
                    let id = format!("{n}-many");
                    fc::run_async(&api, &id, query, &graph).await.expect(202);
                    ended(&api, &id).await.pop().expect("a message")
                }
            };
            pixels::assert_plain(&picture(&result), colour, 8, 8);
            result["data"]["prompt_id"].to_string()
        }
    });
    let mut prompts = futures::future::join_all(calls).await;
    prompts.sort_unstable();
    prompts.dedup();
    assert_eq!(prompts.len(), 48, "one job each");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_gets_the_result_all_the_same() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let mut graph = super::through("TestSleep", json!({"seconds": 1.0, "steps": 5000}), "slow");
    graph["9"]["inputs"]["filename_prefix"] = json!("x".repeat(150));
    let request = api
        .request(Method::POST, &format!("{RUN}?stream=1"))
        .header("X-Fc-Trace-Id", "slow")
        .json(&graph);
    let response = request.send().await.expect("an answer");
    // Not a byte is read before the job is over.
    ended(&api, "slow").await;
    let text = within("the whole stream", LIMIT, response.text())
        .await
        .expect("it ends in order");
    let last = text
        .lines()
        .rfind(|line| line.starts_with("data: "))
        .expect("a message");
    let last: Value = serde_json::from_str(&last[6..]).expect("JSON");
    assert_eq!(last["type"], "serverless_api");
}

#[tokio::test(flavor = "multi_thread")]
async fn more_events_than_are_kept_do_not_hide_the_end() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let mut graph = graphs::plain(0x40_40_40, 8, 8);
    let mut before = "1".to_owned();
    for n in 0..2500 {
        let id = format!("i{n}");
        graph[&id] = json!({"class_type": "ImageInvert", "inputs": {"image": [before, 0]}});
        before = id;
    }
    graph["9"]["inputs"]["images"] = json!([before, 0]);
    let headers = [("X-Fc-Trace-Id", "long")];
    let answer = post(&api, &format!("{RUN}?stream=1"), &headers, graph.to_string()).await;
    let streamed: Vec<Value> = answer
        .text()
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).expect("JSON"))
        .collect();
    for messages in [streamed, fc::status(&api, "long").await] {
        let kinds = fc::kinds(&messages);
        assert_eq!(kinds.last().map(String::as_str), Some("serverless_api"));
        for kind in ["execution_start", "executed", "execution_success"] {
            assert_eq!(kinds.iter().filter(|k| *k == kind).count(), 1, "{kind}");
        }
        assert_eq!(fc::results(&messages[messages.len() - 1]).len(), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_connections_are_kept_open_by_signs_of_life() {
    let server = Server::start(Options::default().with_config(WITH_PARKED)).await;
    let api = server.api();
    let graph = graphs::plain(1, 8, 8);
    let comment = async {
        let path = format!("/e/parked{RUN}?stream=1");
        let mut response = api
            .request(Method::POST, &path)
            .json(&graph)
            .send()
            .await
            .expect("an answer");
        let mut text = String::new();
        while let Some(chunk) = response.chunk().await.expect("a chunk") {
            text.push_str(&String::from_utf8_lossy(&chunk));
            if text.lines().any(|line| line.starts_with(':')) {
                break;
            }
        }
        text
    };
    let ping = async {
        let url = format!(
            "{}/e/parked/api/serverless/ws",
            api.base().replacen("http", "ws", 1)
        );
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("it opens");
        socket.send(Message::text(graph.to_string())).await.expect("sent");
        while let Some(Ok(frame)) = socket.next().await {
            if let Message::Ping(_) = frame {
                return true;
            }
        }
        false
    };
    let both = futures::future::join(comment, ping);
    let (text, pinged) = within("signs of life", LIMIT, both).await;
    assert!(
        text.lines()
            .all(|line| { line.is_empty() || line.starts_with(':') || line.starts_with("data: {") }),
        "{text}"
    );
    assert!(pinged);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_killed_in_the_middle_costs_a_retry_and_no_result_twice() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let graph = super::sleep(5.0, "killed");
    fc::run_async(&api, "killed", "output_base64=1", &graph)
        .await
        .expect(202);
    eventually("a node runs", LIMIT, async || {
        let task = api.get("/api/serverless/task/killed").await.expect(200).json();
        task["progress"]["data"]["value"].is_number().then_some(())
    })
    .await;
    let pids = server.instance_pids();
    assert_eq!(pids.len(), 1);
    for pid in pids {
        processes::signal(pid, rustix::process::Signal::KILL);
    }
    let messages = ended(&api, "killed").await;
    let kinds = fc::kinds(&messages);
    assert_eq!(
        kinds.iter().filter(|kind| *kind == "serverless_api").count(),
        1,
        "{kinds:?}"
    );
    let result = messages.last().expect("a result");
    pixels::assert_plain(&picture(result), 0x0a_0b_0c, 16, 16);
    for message in &messages {
        let named = &message["data"]["prompt_id"];
        assert!(
            named.is_null() || *named == result["data"]["prompt_id"],
            "one id for the caller, however many attempts: {message}"
        );
    }
    let task = api.get("/api/serverless/task/killed").await.expect(200).json();
    assert_eq!(task["status"], "Succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_a_word_when_the_server_stops_and_the_tasks_go_on() {
    let mut server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let graph = super::sleep(8.0, "stops");
    let stream = {
        let (api, graph) = (api.clone(), graph.to_string());
        let headers = [("X-Fc-Trace-Id", "streamed")];
        tokio::spawn(async move { post(&api, &format!("{RUN}?stream=1"), &headers, graph).await })
    };
    let socket = {
        let (api, graph) = (api.clone(), graph.clone());
        tokio::spawn(async move { fc::websocket(&api, "", &graph).await })
    };
    eventually("one runs, one waits", LIMIT, async || {
        let list = api.get("/darkroom/v1/jobs").await.json();
        let states: Vec<&str> = list["jobs"]
            .as_array()?
            .iter()
            .filter_map(|job| job["state"].as_str())
            .collect();
        (states.len() == 2 && states.contains(&"running")).then_some(())
    })
    .await;
    assert!(server.stop().await.success());
    let text = stream.await.expect("no panic").text();
    let last = text
        .lines()
        .rfind(|line| line.starts_with("data: "))
        .expect("a message");
    error_body(
        &serde_json::from_str(&last[6..]).expect("JSON"),
        "ResourceThrottled",
    );
    let frames = socket.await.expect("no panic");
    error_body(frames.last().expect("a frame"), "ResourceThrottled");
    server.restart().await;
    let last = ended(&api, "streamed").await.pop().expect("an end");
    assert_eq!(last["type"], "serverless_api", "{last}");
    let list = api.get("/api/serverless/tasks").await.expect(200).json();
    for task in list["tasks"].as_array().expect("a list") {
        let id = task["taskId"].as_str().expect("an id");
        let last = ended(&api, id).await.pop().expect("an end");
        assert_eq!(last["type"], "serverless_api", "{id}: {last}");
    }
}
