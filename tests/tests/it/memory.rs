//! Large requests share a bounded memory: who finds none is told to come again, and small requests do not notice.

use std::time::Duration;

use darkroom_tests::{Api, Options, Server, eventually, fc, graphs, http::Answer};
use reqwest::Method;
use serde_json::json;
use tokio::{io::AsyncWriteExt, net::TcpStream};

const LIMIT: Duration = Duration::from_secs(180);
const MIB: usize = 1 << 20;

/// A workflow blown up by blanks, which mean nothing in JSON.
fn padded(graph: &str, bytes: usize) -> Vec<u8> {
    let mut body = graph.as_bytes().to_vec();
    body.resize(bytes, b' ');
    body
}

async fn large(api: &Api, path: &str, graph: &str) -> Answer {
    let request = api
        .request(Method::POST, path)
        .header("content-type", "application/json")
        .body(padded(graph, 2 * MIB));
    api.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_that_never_come_hold_up_only_large_bodies_and_those_are_told() {
    // Half of it is for large bodies on their way in.
    let options = Options {
        server_config: "body_memory = \"16MiB\"".to_owned(),
        ..Options::default()
    };
    let server = Server::start(options).await;
    let api = server.api();
    let plain = graphs::plain(1, 8, 8);
    let own = "/darkroom/v1/endpoints/default/jobs";
    let wrapped = json!({ "graph": plain }).to_string();
    large(&api, "/api/serverless/run", &plain.to_string())
        .await
        .expect(200);

    let mut stalled = TcpStream::connect(("127.0.0.1", server.port()))
        .await
        .expect("a connection");
    let head = format!(
        "POST /api/serverless/run HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{{",
        8 * MIB
    );
    stalled
        .write_all(head.as_bytes())
        .await
        .expect("the head is sent");

    let refused = eventually("there is no memory left", LIMIT, async || {
        let answer = large(&api, "/api/serverless/run", &plain.to_string()).await;
        (answer.status != 200).then_some(answer)
    })
    .await
    .expect(503);
    assert_eq!(refused.json()["error_code"], "ResourceThrottled");
    assert_eq!(refused.json()["type"], "error");
    assert!(refused.header("retry-after").is_some() && refused.header("x-fc-request-id").is_some());
    let refused = large(&api, own, &wrapped).await.expect(503);
    assert_eq!(refused.json()["error"]["code"], "unavailable");
    assert!(refused.header("retry-after").is_some());
    // Small ones go on, and so does an upload, which is not gathered in memory.
    fc::run(&api, "", &plain).await.expect(200);
    let upload = api
        .request(Method::PUT, "/darkroom/v1/endpoints/default/inputs/large.bin")
        .body(vec![7; 2 * MIB]);
    api.send(upload).await.expect(201);

    drop(stalled);
    eventually("the memory is given back", LIMIT, async || {
        let answer = large(&api, own, &wrapped).await;
        (answer.status == 201).then_some(())
    })
    .await;
}
