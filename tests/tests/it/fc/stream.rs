//! Server-sent events, byte by byte (reference §5).

use darkroom_tests::{Api, Options, Server, fc, graphs, http::Answer};
use reqwest::Method;
use serde_json::{Value, json};

use super::{LIMIT, RUN, ended, error_body, post, refused};

async fn stream(api: &Api, graph: &Value) -> Answer {
    post(api, &format!("{RUN}?stream=true"), &[], graph.to_string()).await
}

/// The messages of a stream whose every byte is as the reference says.
fn strict(answer: &Answer) -> Vec<Value> {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    let text = answer.text();
    assert!(!text.contains('\r'), "lines end in \\n alone");
    assert!(
        text.ends_with("\n\n"),
        "the last event ends in an empty line, too"
    );
    let mut messages = Vec::new();
    for event in text.trim_end_matches('\n').split("\n\n") {
        assert!(!event.contains('\n'), "one line per event: {event}");
        if event.starts_with(':') {
            continue;
        }
        let data = event
            .strip_prefix("data: ")
            .unwrap_or_else(|| panic!("neither data nor a comment: {event}"));
        assert!(
            data.starts_with('{'),
            "exactly one blank after the colon: {event}"
        );
        messages.push(serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}")));
    }
    messages
}

/// The words of the messages without progress, and `executing` with its node.
fn outline(messages: &[Value]) -> Vec<String> {
    let word = |message: &Value| match message["type"].as_str().expect("a type") {
        "progress" | "progress_state" => None,
        "executing" => Some(format!(
            "executing {}",
            message["data"]["node"].as_str().unwrap_or("null")
        )),
        kind => Some(kind.to_owned()),
    };
    messages.iter().filter_map(word).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_come_one_per_line_in_the_vendors_order() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let messages = strict(&stream(&api, &super::sleep(0.2, "a")).await);

    let first = &messages[0];
    assert_eq!(first["type"], "status");
    assert!(
        first["data"]["sid"].as_str().is_some_and(|sid| !sid.is_empty()),
        "{first}"
    );
    assert!(
        first["data"]["status"]["exec_info"]["queue_remaining"].is_u64(),
        "{first}"
    );
    let outline = outline(&messages);
    let started = outline
        .iter()
        .position(|w| w == "execution_start")
        .expect("a start");
    assert!(outline[..started].iter().all(|w| w == "status"), "{outline:?}");
    assert!(
        started >= 2,
        "a status with the queue comes before the start: {outline:?}"
    );
    assert_eq!(
        outline[started..],
        [
            "execution_start",
            "execution_cached",
            "executing 1",
            "executing 5",
            "executing 9",
            "executed",
            "execution_success",
            "status",
            "executing null",
            "serverless_api",
        ],
        "{messages:#?}"
    );
    assert!(
        messages
            .iter()
            .any(|m| m["type"] == "progress" && m["data"]["value"].is_number()),
        "{messages:#?}"
    );

    // One prompt, told by one id from the first message to the result.
    let id = &messages.last().expect("a result")["data"]["prompt_id"];
    assert!(id.is_string());
    for message in &messages {
        let named = &message["data"]["prompt_id"];
        assert!(named.is_null() || named == id, "{message} is not of {id}");
    }
    let executed = messages
        .iter()
        .find(|m| m["type"] == "executed")
        .expect("executed");
    assert_eq!(executed["data"]["node"], "9");
    assert!(
        executed["data"]["output"]["images"][0]["filename"].is_string(),
        "{executed}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_be_polled_later_is_what_was_streamed() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let headers = [("x-fc-trace-id", "7-streamed")];
    let graph = graphs::plain(5, 8, 8).to_string();
    let answer = post(&api, &format!("{RUN}?stream=true&output_oss=1"), &headers, graph).await;
    assert_eq!(answer.header("x-fc-request-id"), Some("7-streamed"));
    let streamed = strict(&answer);
    let polled = fc::status(&api, "7-streamed").await;
    let durable = |messages: &[Value]| -> Vec<String> {
        outline(messages)
            .into_iter()
            .filter(|word| word != "status")
            .collect()
    };
    assert_eq!(durable(&streamed), durable(&polled));
    let (streamed, polled) = (
        streamed.last().expect("a result"),
        polled.last().expect("a result"),
    );
    let file = |message: &Value| message["data"]["results"][0]["output"]["oss"]["object"].clone();
    assert!(file(streamed).is_string());
    assert_eq!(file(streamed), file(polled), "the same file under the same name");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_ends_the_stream() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let raise = super::raise("boom");
    let messages = strict(
        &tokio::time::timeout(LIMIT, stream(&api, &raise))
            .await
            .expect("the stream ends"),
    );
    let last = messages.last().expect("an error");
    error_body(last, "EXECUTION_FAILED");
    assert_eq!(last["error_message"], "ComfyUI execution error: boom");
    assert!(
        messages.iter().any(|m| m["type"] == "execution_error"),
        "{messages:#?}"
    );
    assert!(
        messages.iter().all(|m| m["type"] != "serverless_api"),
        "{messages:#?}"
    );
    // An instance that dies for good ends it, too.
    let exit = super::through("TestExit", json!({"code": 3}), "b");
    let messages = strict(
        &tokio::time::timeout(LIMIT, stream(&api, &exit))
            .await
            .expect("the stream ends"),
    );
    error_body(messages.last().expect("an error"), "EXECUTION_FAILED");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_before_it_is_queued_is_no_stream() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let answer = stream(&api, &json!({"1": {"class_type": "Nonsense", "inputs": {}}})).await;
    refused(&answer, 500, "PROMPT_ERROR");
    let answer = post(&api, &format!("{RUN}?stream=true"), &[], "{").await;
    refused(&answer, 400, "INVALID_PARAMS");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_message_does_not_wait_for_an_instance_and_leaving_early_stops_nothing() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let request = api
        .request(Method::POST, &format!("{RUN}?stream=1"))
        .header("X-Fc-Trace-Id", "left-early")
        .json(&super::sleep(5.0, "a"));
    let mut response = request.send().await.expect("an answer");
    let first = response.chunk().await.expect("a chunk").expect("a message");
    assert!(
        first.starts_with(b"data: {"),
        "{}",
        String::from_utf8_lossy(&first)
    );
    let now = fc::status(&api, "left-early").await;
    assert!(
        now.iter().all(|m| m["type"] != "serverless_api"),
        "it came while the job was still to run"
    );
    drop(response);
    let messages = ended(&api, "left-early").await;
    assert_eq!(messages.last().expect("a result")["type"], "serverless_api");
}

#[tokio::test(flavor = "multi_thread")]
async fn async_wins_over_stream() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let headers = [("X-Fc-Invocation-Type", "async"), ("X-Fc-Trace-Id", "both")];
    let answer = post(
        &api,
        &format!("{RUN}?stream=true"),
        &headers,
        graphs::plain(1, 8, 8).to_string(),
    )
    .await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (202, 0));
    ended(&api, "both").await;
}
