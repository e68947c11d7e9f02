//! Function Compute's "ComfyUI Serverless API": every way of calling, compared pixel by pixel.

use std::{collections::BTreeSet, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use darkroom_tests::{Options, Server, eventually, fc, graphs, pixels};
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

const LIMIT: Duration = Duration::from_secs(30);

/// Picture of result `index`, by base64 and by URL; both must be the same bytes.
async fn picture(server: &Server, answer: &Value, index: usize) -> Vec<u8> {
    let output = &fc::results(answer)[index]["output"];
    let inline = BASE64_STANDARD
        .decode(
            output["base64"]["content"]
                .as_str()
                .expect("base64 was asked for"),
        )
        .expect("content is base64");
    let url = output["oss"]["url"].as_str().expect("a URL was asked for");
    let fetched = server.api_as(None).get(url).await.expect(200);
    assert_eq!(fetched.header("content-type"), Some("image/png"));
    assert_eq!(fetched.body, inline, "the URL and base64 are the same file");
    inline
}

const BOTH: &str = "output_base64=true&output_oss=true";

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_call_answers_with_the_result() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let original = pixels::gradient(33, 21);
    let graph = graphs::invert(&pixels::data_uri(&pixels::encode(&original)));
    let answer = fc::run(&api, BOTH, &graph).await.expect(200);
    assert!(answer.header("x-fc-request-id").is_some());
    let answer = answer.json();
    pixels::assert_inverse(&picture(&server, &answer, 0).await, &original);

    let result = &fc::results(&answer)[0];
    assert_eq!(result["node_id"], "9");
    assert_eq!(result["batch_id"], 0);
    assert_eq!(result["output"]["type"], "images");
    let raw = &result["output"]["raw"];
    assert_eq!(raw["type"], "output");
    let name = raw["filename"].as_str().unwrap_or_default();
    assert_eq!(raw["filepath"], format!("output/{name}"));
    assert!(result["output"]["oss"]["object"].is_string(), "{result}");
    assert!(answer["data"]["prompt_id"].is_string());
    assert!(answer["data"]["execution_time"].is_number());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_options_nothing_is_inlined_and_every_key_is_there() {
    let server = Server::start(Options::default()).await;
    let answer = fc::run(&server.api(), "", &graphs::plain(7, 8, 8))
        .await
        .expect(200)
        .json();
    let output = &fc::results(&answer)[0]["output"];
    assert_eq!(output["base64"], json!({"content": null}));
    assert_eq!(
        output["oss"]["object"],
        Value::Null,
        "the samples read this key: it must be there"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_gives_one_result_per_file_in_order() {
    let server = Server::start(Options::default()).await;
    let mut graph = graphs::plain(9, 8, 8);
    graph["1"]["inputs"]["batch_size"] = json!(3);
    let answer = fc::run(&server.api(), BOTH, &graph).await.expect(200).json();
    let order: Vec<Value> = fc::results(&answer)
        .iter()
        .map(|r| r["batch_id"].clone())
        .collect();
    assert_eq!(order, [0, 1, 2].map(Value::from));
    let names: BTreeSet<String> = fc::results(&answer)
        .iter()
        .map(|r| r["output"]["raw"]["filename"].to_string())
        .collect();
    assert_eq!(names.len(), 3);
    for index in 0..3 {
        pixels::assert_plain(&picture(&server, &answer, index).await, 9, 8, 8);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_every_event_and_ends_with_the_result() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let events = fc::stream(&api, BOTH, &graphs::sleep(0.3, "a", 0x0a_0b_0c)).await;
    let kinds = fc::kinds(&events);
    assert_eq!(
        kinds.last().map(String::as_str),
        Some("serverless_api"),
        "{kinds:?}"
    );
    let place = |kind: &str| {
        kinds
            .iter()
            .position(|k| k == kind)
            .unwrap_or_else(|| panic!("no {kind} in {kinds:?}"))
    };
    assert!(place("execution_start") < place("executing"));
    assert!(place("executing") < place("executed"));
    assert!(place("executed") < place("execution_success"));
    assert!(kinds.iter().any(|kind| kind.starts_with("progress")), "{kinds:?}");
    let last = events.last().expect("a result");
    pixels::assert_plain(&picture(&server, last, 0).await, 0x0a_0b_0c, 16, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_call_tells_the_same() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let events = fc::websocket(&api, BOTH, &graphs::sleep(0.2, "a", 0x01_02_03)).await;
    let last = events.last().expect("a result");
    pixels::assert_plain(&picture(&server, last, 0).await, 0x01_02_03, 16, 16);
    assert!(fc::kinds(&events).contains(&"execution_start".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_async_call_is_accepted_at_once_and_polled() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    // The sample's id is a UUID, which may begin with a digit.
    let task = format!("1{}", &Uuid::from_u128(0x0123_4567_89ab_cdef).to_string()[1..]);
    assert!(
        fc::status(&api, &task).await.is_empty(),
        "an unknown task has no events yet"
    );
    let accepted = fc::run_async(&api, &task, BOTH, &graphs::plain(0x40_50_60, 8, 8))
        .await
        .expect(202);
    assert!(accepted.body.is_empty());
    assert_eq!(accepted.header("x-fc-request-id"), Some(task.as_str()));
    let events = eventually("the result is the last element", LIMIT, async || {
        let events = fc::status(&api, &task).await;
        (events.last()?["type"] == "serverless_api").then_some(events)
    })
    .await;
    let last = events.last().expect("a result");
    pixels::assert_plain(&picture(&server, last, 0).await, 0x40_50_60, 8, 8);

    let answer = api
        .get(&format!("/api/serverless/task/{task}"))
        .await
        .expect(200)
        .json();
    assert_eq!(answer["status"], "Succeeded", "{answer}");
    assert!(answer["durationMs"].is_number(), "{answer}");
    let list = api.get("/api/serverless/tasks?limit=10").await.expect(200).json();
    assert_eq!(list["tasks"][0]["taskId"], task.as_str(), "{list}");
    api.get("/api/serverless/task/no-such-task").await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_id_is_taken_once() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let submit = async |id: &str| {
        let request = api
            .request(Method::POST, "/api/serverless/run")
            .header("X-Fc-Invocation-Type", "Async")
            .header("X-Fc-Async-Task-Id", id)
            .json(&graphs::plain(1, 8, 8));
        api.send(request).await
    };
    submit("task-1").await.expect(202);
    submit("task-1").await.expect(409);
    submit("1-begins-with-a-digit").await.expect(400);
    let too_large = api
        .request(Method::POST, "/api/serverless/run")
        .header("X-Fc-Invocation-Type", "async")
        .body("x".repeat(128 * 1024 + 1));
    let _ = api.send(too_large).await.expect(400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_run_says_so_in_every_mode() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let raise = graphs::through("TestRaise", json!({"message": "boom"}), "a", 1);
    let sync = fc::run(&api, "", &raise).await.expect(500).json();
    assert_eq!(sync["error_code"], "EXECUTION_FAILED", "{sync}");
    assert!(
        sync["error_message"].as_str().unwrap_or("").contains("boom"),
        "{sync}"
    );

    let events = fc::stream(&api, "", &raise).await;
    assert_eq!(
        events.last().expect("an end")["type"],
        "error",
        "the stream ends: {events:?}"
    );
    let events = fc::websocket(&api, "", &raise).await;
    assert_eq!(events.last().expect("an end")["type"], "error", "{events:?}");

    let unknown = json!({"1": {"class_type": "KSamplr", "inputs": {}}, "9": {"class_type": "SaveImage",
        "inputs": {"images": ["1", 0], "filename_prefix": "x"}}});
    let refused = fc::run(&api, "", &unknown).await.expect(500).json();
    assert_eq!(refused["error_code"], "PROMPT_ERROR", "{refused}");
    assert!(refused["raw"].is_object(), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_does_not_stop_its_job() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let request = api
        .request(Method::POST, "/api/serverless/run")
        .header("X-Fc-Trace-Id", "left-early")
        .timeout(Duration::from_millis(700))
        .json(&graphs::sleep(1.5, "a", 0x77_77_77));
    assert!(api.try_send(request).await.is_err(), "the client gave up");
    eventually("the job ends all the same", LIMIT, async || {
        (fc::status(&api, "left-early").await.last()?["type"] == "serverless_api").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_of_minus_one_is_replaced_only_in_ksampler() {
    let server = Server::start(Options::default()).await;
    // The engine has no KSampler, so the refusal shows the value that would have run.
    let graph = json!({"3": {"class_type": "KSampler", "inputs": {"seed": -1}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}}});
    let refused = fc::run(&server.api(), "", &graph).await.expect(500).json();
    assert_eq!(refused["error_code"], "PROMPT_ERROR", "{refused}");
    let text = refused.to_string();
    assert!(text.contains("KSampler"), "{text}");
}
