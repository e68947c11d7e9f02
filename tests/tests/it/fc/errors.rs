//! The error table (reference §8).

use darkroom_tests::{Options, Server, fc, graphs, server};
use reqwest::Method;
use serde_json::{Value, json};

use super::{RUN, ended, error_body, jobs, post, refused};

fn saved(of: Value) -> Value {
    json!({"class_type": "SaveImage", "inputs": {"images": of, "filename_prefix": "x"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_workflow_is_500_with_comfyuis_own_words() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let mut graph = graphs::plain(1, 8, 8);
    graph["1"]["inputs"]["width"] = json!(-5);
    let answer = fc::run(&api, "", &graph).await;
    let body = refused(&answer, 500, "PROMPT_ERROR");
    let message = body["error_message"].as_str().unwrap_or_default();
    assert!(
        message.starts_with("ComfyUI prompt api failed with 400: Prompt outputs failed validation"),
        "{message}"
    );
    assert_eq!(body["raw"]["error"]["type"], "prompt_outputs_failed_validation");
    assert_eq!(
        body["raw"]["error"]["message"],
        "Prompt outputs failed validation"
    );
    let node = &body["raw"]["node_errors"]["1"];
    assert_eq!(node["class_type"], "EmptyImage");
    assert_eq!(node["errors"][0]["type"], "value_smaller_than_min");
    assert_eq!(node["errors"][0]["extra_info"]["input_name"], "width");
    assert_eq!(node["dependent_outputs"], json!(["9"]));
    // The client's mistake, told by the platform as the function's: not its own.
    assert_eq!(answer.header("x-fc-error-type"), Some("HandledInvocationError"));

    graph["1"]["inputs"]
        .as_object_mut()
        .expect("inputs")
        .remove("width");
    let body = refused(&fc::run(&api, "", &graph).await, 500, "PROMPT_ERROR");
    assert_eq!(
        body["raw"]["node_errors"]["1"]["errors"][0]["type"],
        "required_input_missing"
    );

    let body = refused(&fc::run(&api, "", &json!({})).await, 500, "PROMPT_ERROR");
    assert_eq!(body["raw"]["error"]["type"], "prompt_no_outputs");
    assert_eq!(body["raw"]["node_errors"], json!({}));
    assert_eq!(jobs(&api).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_class_on_the_embedded_engine_says_what_to_do() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let graph = json!({
        "3": {"class_type": "KSampler", "inputs": {"seed": -1}}, "9": saved(json!(["3", 0])),
    });
    let body = refused(&fc::run(&api, "", &graph).await, 500, "PROMPT_ERROR");
    let message = body["error_message"].as_str().unwrap_or_default();
    for part in ["KSampler", "embedded engine", "comfyui", "darkroom.toml"] {
        assert!(message.contains(part), "'{part}' is not in: {message}");
    }
    // A slip of the pen is told with the nearest name.
    let graph = json!({
        "1": {"class_type": "EmptyImge", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "9": saved(json!(["1", 0])),
    });
    let body = refused(&fc::run(&api, "", &graph).await, 500, "PROMPT_ERROR");
    assert!(
        body["error_message"]
            .as_str()
            .unwrap_or_default()
            .contains("EmptyImage"),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_raises_is_500_with_what_comfyui_told() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let raise = super::raise("boom");
    let answer = post(&api, RUN, &[("X-Fc-Trace-Id", "raises")], raise.to_string()).await;
    let body = refused(&answer, 500, "EXECUTION_FAILED");
    assert_eq!(answer.header("x-fc-request-id"), Some("raises"));
    assert_eq!(body["error_message"], "ComfyUI execution error: boom");
    let raw = &body["raw"];
    assert_eq!(raw["node_id"], "5");
    assert_eq!(raw["node_type"], "TestRaise");
    assert_eq!(raw["exception_type"], "ValueError");
    assert_eq!(raw["exception_message"].as_str().map(str::trim_end), Some("boom"));
    for key in [
        "prompt_id",
        "executed",
        "traceback",
        "current_inputs",
        "current_outputs",
    ] {
        assert!(raw.get(key).is_some(), "{key} is not in {raw}");
    }
    assert_eq!(
        ended(&api, "raises").await.pop().expect("an end"),
        body,
        "the same object can be polled"
    );

    let memory = super::through("TestOutOfMemory", json!({}), "b");
    let body = refused(&fc::run(&api, "", &memory).await, 500, "EXECUTION_FAILED");
    assert!(
        body["error_message"]
            .as_str()
            .unwrap_or_default()
            .contains("memory"),
        "{body}"
    );
    // The endpoint goes on.
    fc::run(&api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_dies_or_takes_too_long_is_execution_failed() {
    let limits = "limits = { execution_timeout = \"4s\", cancel_grace = \"1s\" }\n";
    let config = server::endpoint_with_test_nodes("default", limits);
    let server = Server::start(Options::default().with_config(&config)).await;
    let api = server.api();
    for (what, node) in [
        ("takes too long", super::sleep(30.0, "a")),
        ("dies", super::through("TestExit", json!({"code": 1}), "b")),
    ] {
        let answer = fc::run(&api, "", &node).await;
        let body = refused(&answer, 500, "EXECUTION_FAILED");
        assert!(
            body["error_message"].as_str().is_some_and(|m| m.len() > 10),
            "{what}: {body}"
        );
    }
    fc::run(&api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_that_only_the_instance_knows_to_be_bad_is_a_prompt_error() {
    // Nothing is known of these nodes before the first instance ran: what it refuses is told as if at once.
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let graph = json!({"1": {"class_type": "Nonsense", "inputs": {}}, "9": saved(json!(["1", 0]))});
    let body = refused(&fc::run(&api, "", &graph).await, 500, "PROMPT_ERROR");
    assert!(
        body["error_message"]
            .as_str()
            .unwrap_or_default()
            .contains("Nonsense"),
        "{body}"
    );
    assert!(body["raw"].is_object(), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_task_ends_for_whoever_waits() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let waiting = {
        let api = api.clone();
        let graph = super::sleep(60.0, "a").to_string();
        tokio::spawn(async move { post(&api, RUN, &[("X-Fc-Trace-Id", "waits")], graph).await })
    };
    let id = darkroom_tests::eventually("the job runs", super::LIMIT, async || {
        let list = api.get("/darkroom/v1/jobs?state=running").await.json();
        list["jobs"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    api.post(&format!("/darkroom/v1/jobs/{id}/cancel"), &json!({}))
        .await
        .expect(200);
    let answer = waiting.await.expect("no panic");
    refused(&answer, 500, "EXECUTION_FAILED");
    error_body(
        ended(&api, "waits").await.last().expect("an end"),
        "EXECUTION_FAILED",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_says_when_to_come_again() {
    let config = "[endpoints.default]\ncommand = [\"/nobody\", \"{port}\"]\nscaling = { max_instances = 0 }\nlimits = { max_queued = 2 }\n";
    let server = Server::start(Options::default().with_config(config)).await;
    let api = server.api();
    let graph = graphs::plain(1, 8, 8);
    for id in ["one", "two"] {
        fc::run_async(&api, id, "", &graph).await.expect(202);
    }
    let answer = fc::run_async(&api, "three", "", &graph).await;
    refused(&answer, 429, "ResourceExhausted");
    assert!(
        answer
            .header("retry-after")
            .and_then(|s| s.parse::<u32>().ok())
            .is_some()
    );
    assert_eq!(jobs(&api).await, 2);
    // The id was not used up by the refusal.
    let first = api.get("/darkroom/v1/jobs").await.json()["jobs"][0]["id"].clone();
    let first = first.as_str().expect("an id");
    api.post(&format!("/darkroom/v1/jobs/{first}/cancel"), &json!({}))
        .await
        .expect(200);
    fc::run_async(&api, "three", "", &graph).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_not_there_and_methods_that_are_not() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let graph = graphs::plain(1, 8, 8).to_string();
    for name in ["nowhere", "...", "..%2F", "a%2Fb", "x%00"] {
        let answer = post(&api, &format!("/e/{name}{RUN}"), &[], graph.clone()).await;
        assert!(
            [404, 405].contains(&answer.status.as_u16()),
            "{name}: {} {}",
            answer.status,
            answer.text()
        );
    }
    let answer = post(&api, "/e/nowhere/api/serverless/run", &[], graph.clone()).await;
    refused(&answer, 404, "FunctionNotFound");
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        let answer = api
            .send(api.request(method.clone(), RUN).body(graph.clone()))
            .await;
        assert_eq!(answer.status, 405, "{method}");
    }
    // `default` by its name is the same as the root.
    post(&api, "/e/default/api/serverless/run", &[], graph)
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_stops_answers_those_who_wait_and_goes_on_afterwards() {
    let mut server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let waiting = {
        let api = api.clone();
        let graph = super::sleep(8.0, "a").to_string();
        tokio::spawn(async move { post(&api, RUN, &[("X-Fc-Trace-Id", "restart")], graph).await })
    };
    darkroom_tests::eventually("the job runs", super::LIMIT, async || {
        let list = api.get("/darkroom/v1/jobs?state=running").await.json();
        list["jobs"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    assert!(server.stop().await.success());
    let answer = waiting.await.expect("an answer, not a broken connection");
    refused(&answer, 503, "ResourceThrottled");
    assert!(answer.header("retry-after").is_some());
    server.restart().await;
    let last = ended(&api, "restart").await.pop().expect("an end");
    assert_eq!(last["type"], "serverless_api", "{last}");
    assert_eq!(fc::results(&last).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_at_any_moment_of_a_start_leaves_no_process_and_loses_no_task() {
    // That nothing is left is asserted when the server is dropped.
    for ms in [0, 2, 10, 30, 80] {
        let mut server = Server::start(Options::default()).await;
        let api = server.api();
        fc::run_async(&api, "accepted", "", &graphs::plain(1, 8, 8))
            .await
            .expect(202);
        tokio::time::sleep(std::time::Duration::from_millis(ms)).await;
        assert!(server.stop().await.success(), "{ms} ms: {}", server.log());
        server.restart().await;
        let last = ended(&api, "accepted").await.pop().expect("an end");
        assert_eq!(last["type"], "serverless_api", "{ms} ms: {last}");
    }
}
