//! Stopping on request: running jobs get their grace, then are given back; instances end or are left, as configured.

use darkroom_tests::{Api, Ledger, Options, Server, audit, eventually, graphs, processes, within};
use futures::{SinkExt, StreamExt};
use reqwest::{Method, RequestBuilder, Response};
use rustix::process::Signal;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::{Message, protocol::frame::coding::CloseCode};

use super::{LIMIT, attempt_states, conclude, executing, square};

fn with_grace(grace: &str, on_exit: &str) -> Options {
    let endpoint = format!("[endpoints.default.scaling]\non_exit = \"{on_exit}\"\n");
    Options {
        stop_grace: Some(grace.to_owned()),
        ..Options::test_nodes().with_config(&endpoint)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_given_its_grace() {
    let mut server = Server::start(with_grace("60s", "stop")).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(1.5, "a", 0x0b_0b_0b)).await;
    ledger.enter(&id, square(0x0b_0b_0b));
    executing(&api, &id).await;
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    audit::audit(&server.data_dir());
    server.restart().await;
    let job = api.finished_within(&id, LIMIT).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    conclude(&mut server, &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_beyond_its_grace_is_given_back_and_nothing_is_left_running() {
    let mut server = Server::start(with_grace("100ms", "stop")).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(8.0, "a", 0x0a_0a_0a)).await;
    ledger.enter(&id, square(0x0a_0a_0a));
    let waiting = ledger.submit(&api).await.expect("an idle server takes a job");
    executing(&api, &id).await;
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    let left = processes::marked(&server.data_dir());
    assert!(left.is_empty(), "{left:?}");
    server.restart().await;
    let job = api.finished_within(&id, LIMIT).await;
    // Our restart does not count against the job.
    assert_eq!(attempt_states(&job), ["released", "done"], "{job}, and {waiting}");
    conclude(&mut server, &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_instance_survives_and_is_adopted_by_the_next_server() {
    let mut server = Server::start(with_grace("100ms", "keep")).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(4.0, "a", 0x0c_0c_0c)).await;
    ledger.enter(&id, square(0x0c_0c_0c));
    executing(&api, &id).await;
    let instances = server.instance_pids();
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    assert_eq!(server.instance_pids(), instances, "it was kept");
    server.restart().await;
    let job = api.finished_within(&id, LIMIT).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    assert_eq!(server.instance_pids(), instances, "it was adopted");
    ledger.settle(&api).await;
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    assert_eq!(audit::executions(&server.data_dir(), &id), 1);
    // It was asked to stay; now it is only in the way.
    for pid in server.instance_pids() {
        processes::signal(pid, Signal::KILL);
    }
    eventually("it is gone", LIMIT, async || {
        server.instance_pids().is_empty().then_some(())
    })
    .await;
}

/// Everything that three readers of jobs see until it ends: the Serverless API's socket and stream, and our own stream.
struct Readers {
    socket: JoinHandle<(Vec<String>, Option<CloseCode>)>,
    stream: JoinHandle<String>,
    own: JoinHandle<String>,
}

/// Begins to follow a job of that many seconds each; returns when all three were told something.
async fn readers(api: &Api, seconds: f64) -> Readers {
    let url = format!("{}/api/serverless/ws", api.base().replacen("http", "ws", 1));
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("it opens");
    let graph = graphs::sleep(seconds, "socket", 1).to_string();
    socket.send(Message::text(graph)).await.expect("it is sent");
    let first = within("a first message", LIMIT, socket.next()).await;
    assert!(matches!(first, Some(Ok(Message::Text(_)))), "{first:?}");
    let socket = tokio::spawn(async move {
        let mut told = Vec::new();
        loop {
            match within("the socket ends", LIMIT, socket.next()).await {
                Some(Ok(Message::Text(text))) => told.push(text.to_string()),
                Some(Ok(Message::Close(frame))) => {
                    return (told, Some(frame.map_or(CloseCode::Status, |frame| frame.code)));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return (told, None),
            }
        }
    });
    let id = api.submit(&graphs::sleep(seconds, "own", 2)).await;
    let posted = api
        .request(Method::POST, "/api/serverless/run?stream=true")
        .json(&graphs::sleep(seconds, "stream", 3));
    let followed = api.request(Method::GET, &format!("/darkroom/v1/jobs/{id}/events"));
    Readers {
        socket,
        stream: tokio::spawn(rest(begun(posted).await)),
        own: tokio::spawn(rest(begun(followed).await)),
    }
}

/// A streamed answer that has told something.
async fn begun(request: RequestBuilder) -> (Response, String) {
    let mut answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let first = within("a first event", LIMIT, answer.chunk()).await;
    let first = first.expect("no error").expect("not the end");
    (answer, String::from_utf8_lossy(&first).into_owned())
}

/// All of it; an end that is not in order is an error.
async fn rest((mut answer, mut text): (Response, String)) -> String {
    while let Some(more) = answer.chunk().await.expect("the stream ends in order") {
        text.push_str(&String::from_utf8_lossy(&more));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_a_job_sees_its_end_within_the_grace() {
    let mut server = Server::start(with_grace("60s", "stop").with_config("max_instances = 3\n")).await;
    let api = server.api();
    let readers = readers(&api, 8.0).await;
    eventually("all three run", LIMIT, async || {
        let endpoint = api.get("/darkroom/v1/endpoints/default").await.json();
        (endpoint["running"] == 3).then_some(())
    })
    .await;
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    let (told, code) = readers.socket.await.expect("the socket was read");
    let last = told.last().expect("messages");
    assert!(last.contains("\"serverless_api\""), "{last}");
    assert!(code.is_some(), "it was closed in order");
    let streamed = readers.stream.await.expect("the stream was read");
    assert!(streamed.contains("\"serverless_api\""), "{streamed}");
    let own = readers.own.await.expect("the stream was read");
    assert!(own.contains("\"succeeded\""), "{own}");
}

#[tokio::test(flavor = "multi_thread")]
async fn beyond_the_grace_streams_and_sockets_end_in_order() {
    let mut server = Server::start(with_grace("200ms", "stop")).await;
    let api = server.api();
    let readers = readers(&api, 30.0).await;
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    let (told, code) = readers.socket.await.expect("the socket was read");
    assert_eq!(code, Some(CloseCode::Away), "{told:?}");
    let last = told.last().expect("it is told why");
    assert!(last.contains("\"error\""), "{last}");
    let streamed = readers.stream.await.expect("the stream was read");
    let last = streamed.lines().rfind(|line| line.starts_with("data: "));
    assert!(last.is_some_and(|line| line.contains("\"error\"")), "{streamed}");
    assert!(
        !readers
            .own
            .await
            .expect("the stream was read")
            .contains("succeeded")
    );
}
