//! The WebSocket (reference §6).

use std::time::Duration;

use darkroom_tests::{Options, Server, fc, graphs, within};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{self, Message, client::IntoClientRequest},
};

use super::{LIMIT, ended, error_body, jobs, keys};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn open(
    server: &Server,
    query: &str,
    headers: &[(&'static str, &str)],
) -> Result<Socket, tungstenite::Error> {
    let url = format!("ws://127.0.0.1:{}/api/serverless/ws?{query}", server.port());
    let mut request = url.into_client_request()?;
    for (name, value) in headers {
        request
            .headers_mut()
            .insert(*name, value.parse().expect("a header"));
    }
    Ok(tokio_tungstenite::connect_async(request).await?.0)
}

/// Everything until the socket is closed: the messages, and whether it was closed in order.
async fn all(socket: &mut Socket) -> (Vec<Value>, bool) {
    let mut messages = Vec::new();
    let reading = async {
        while let Some(frame) = socket.next().await {
            match frame {
                Ok(Message::Text(text)) => {
                    messages.push(serde_json::from_str(&text).expect("a frame is one object"))
                }
                Ok(Message::Close(_)) => return true,
                Ok(Message::Binary(_)) => panic!("previews are not part of this protocol"),
                Ok(_) => {}
                Err(_) => return false,
            }
        }
        false
    };
    let closed = within("the server closes the socket", LIMIT, reading).await;
    (messages, closed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workflow_may_come_as_text_or_as_bytes_and_the_server_closes() {
    let server = Server::start(Options::test_nodes()).await;
    let graph = super::through("TestPreview", json!({"count": 3}), "a").to_string();
    for (name, frame) in [
        ("text", Message::text(graph.clone())),
        ("bytes", Message::binary(graph.clone())),
    ] {
        let mut socket = open(&server, "output_oss=true", &[("X-Fc-Trace-Id", name)])
            .await
            .expect("it opens");
        // A ping before the workflow is not the workflow.
        socket.send(Message::Ping("x".into())).await.expect("sent");
        socket.send(frame).await.expect("sent");
        let (messages, closed) = all(&mut socket).await;
        assert!(closed, "{name}");
        let kinds = fc::kinds(&messages);
        assert_eq!(
            kinds.first().map(String::as_str),
            Some("status"),
            "{name}: {kinds:?}"
        );
        assert_eq!(
            kinds.last().map(String::as_str),
            Some("serverless_api"),
            "{name}: {kinds:?}"
        );
        let result = &messages[messages.len() - 1];
        assert_eq!(keys(result), ["data", "type"]);
        assert!(fc::results(result)[0]["output"]["oss"]["object"].is_string());
        let polled = fc::status(&server.api(), name).await;
        assert_eq!(
            polled.last().expect("a result")["type"],
            "serverless_api",
            "{name}: the id of the upgrade counts"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_talks_all_the_time_misses_nothing() {
    let server = Server::start(Options::default()).await;
    let quiet = graphs::plain(1, 1024, 1024).to_string();
    let mut socket = open(&server, "output_base64=true", &[]).await.expect("it opens");
    socket.send(Message::text(quiet.clone())).await.expect("sent");
    let (expected, _) = all(&mut socket).await;
    for _ in 0..5 {
        let mut socket = open(&server, "output_base64=true", &[]).await.expect("it opens");
        socket.send(Message::text(quiet.clone())).await.expect("sent");
        let (mut talk, mut listen) = socket.split();
        // Until the server closes: each word interrupts whatever the server was about to send.
        let talking = tokio::spawn(async move { while talk.send(Message::text("hm")).await.is_ok() {} });
        let mut kinds = Vec::new();
        within("the server ends", LIMIT, async {
            while let Some(Ok(Message::Text(text))) = listen.next().await {
                let message: Value = serde_json::from_str(&text).expect("a frame is one object");
                kinds.push(message["type"].clone());
            }
        })
        .await;
        talking.abort();
        assert_eq!(kinds.last(), expected.last().map(|m| &m["type"]), "{kinds:?}");
        let once = |kind: &str| kinds.iter().filter(|k| *k == kind).count();
        assert_eq!(
            (once("execution_start"), once("serverless_api")),
            (1, 1),
            "{kinds:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_gets_an_error_frame_and_a_close() {
    let server = Server::start(Options::default()).await;
    for (garbage, code) in [
        (Message::text("garbage"), "invalid_json"),
        (Message::text(""), "invalid_json"),
        (Message::text("{\"1\":"), "invalid_json"),
        (Message::binary(vec![0xff, 0x00, 0x9f]), "invalid_json"),
        (Message::text("[1,2]"), "INVALID_PARAMS"),
        (Message::text("\"x\""), "INVALID_PARAMS"),
        (Message::text("{}"), "PROMPT_ERROR"),
        (
            Message::text(r#"{"1":{"class_type":"Nonsense","inputs":{}}}"#),
            "PROMPT_ERROR",
        ),
    ] {
        let mut socket = open(&server, "", &[]).await.expect("it opens");
        let what = format!("{garbage:?}");
        socket.send(garbage).await.expect("sent");
        let (messages, closed) = all(&mut socket).await;
        assert!(closed, "{what}");
        let [error] = &messages[..] else {
            panic!("{what}: one error, and nothing else: {messages:?}")
        };
        error_body(error, code);
    }
    let api = server.api();
    assert_eq!(jobs(&api).await, 0);
    fc::run(&api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_node_is_an_error_frame_and_a_close() {
    let server = Server::start(Options::test_nodes()).await;
    let mut socket = open(&server, "", &[]).await.expect("it opens");
    let raise = super::raise("boom");
    socket.send(Message::text(raise.to_string())).await.expect("sent");
    let (messages, closed) = all(&mut socket).await;
    assert!(closed);
    let last = messages.last().expect("an error");
    error_body(last, "EXECUTION_FAILED");
    assert_eq!(
        last["raw"]["exception_message"].as_str().map(str::trim_end),
        Some("boom")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_does_not_stop_its_job_and_one_that_never_speaks_has_none() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    for (id, politely) in [("closed", true), ("vanished", false)] {
        let mut socket = open(&server, "", &[("X-Fc-Trace-Id", id)])
            .await
            .expect("it opens");
        socket
            .send(Message::text(super::sleep(0.5, id).to_string()))
            .await
            .expect("sent");
        let first = within("a first frame", LIMIT, socket.next()).await;
        assert!(matches!(first, Some(Ok(Message::Text(_)))), "{first:?}");
        if politely {
            socket.close(None).await.expect("closed");
        }
        drop(socket);
        let messages = ended(&api, id).await;
        assert_eq!(messages.last().expect("a result")["type"], "serverless_api");
    }
    let before = jobs(&api).await;
    let silent = open(&server, "", &[]).await.expect("it opens");
    drop(silent);
    let mut closing = open(&server, "", &[]).await.expect("it opens");
    closing.close(None).await.expect("closed");
    let _ = tokio::time::timeout(Duration::from_secs(5), all(&mut closing)).await;
    assert_eq!(jobs(&api).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_above_32_mb_ends_only_its_own_socket() {
    let server = Server::start(Options::default()).await;
    let mut socket = open(&server, "", &[]).await.expect("it opens");
    // The server may cut the connection before all of it is sent.
    let _ = socket.send(Message::text(" ".repeat((32 << 20) + 1))).await;
    let mut told = Vec::new();
    while let Ok(Some(Ok(frame))) = tokio::time::timeout(LIMIT, socket.next()).await {
        if let Message::Text(text) = frame {
            told.push(text);
        }
    }
    assert!(told.iter().all(|text| text.contains("\"error\"")), "{told:?}");
    let api = server.api();
    assert_eq!(jobs(&api).await, 0);
    fc::run(&api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_other_origins_and_bad_ids_are_refused_before_the_upgrade() {
    let server = Server::start(Options::default()).await;
    for (name, value, status) in [
        ("origin", "https://evil.example", 403),
        ("host", "evil.example", 403),
        ("x-fc-async-task-id", "../../x", 400),
        ("x-fc-async-task-id", "1-digit-first", 400),
    ] {
        match open(&server, "", &[(name, value)]).await {
            Err(tungstenite::Error::Http(answer)) => {
                assert_eq!(answer.status().as_u16(), status, "{name}: {value}")
            }
            other => panic!("{name}: {value}: {other:?}"),
        }
    }
    let plain = server.api().get("/api/serverless/ws").await;
    super::refused(&plain, 400, "INVALID_PARAMS");
}
