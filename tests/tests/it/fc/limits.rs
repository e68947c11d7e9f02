//! How large a request may be (reference §2).

use base64::{Engine, prelude::BASE64_STANDARD};
use darkroom_tests::{Options, Server, fc, graphs, pixels};
use futures::stream;
use reqwest::{Body, Method};
use serde_json::json;

use super::{RUN, ended, jobs, post, refused};

const MIB: usize = 1 << 20;
const SYNC_LIMIT: usize = 32 * MIB;
const ASYNC_LIMIT: usize = 128 * 1024;

/// A workflow blown up to so many bytes by blanks, which mean nothing in JSON.
fn padded(bytes: usize) -> Vec<u8> {
    let mut body = graphs::plain(1, 8, 8).to_string().into_bytes();
    body.resize(bytes, b' ');
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendors_async_limit_holds_where_it_is_asked_for() {
    let config = "[endpoints.default]\nlimits = { vendor_limits = true }\n[endpoints.open]\n";
    let server = Server::start(Options::default().with_config(config)).await;
    let api = server.api();
    let call = async |endpoint: &str, id: &str, bytes: usize| {
        let headers = [("X-Fc-Invocation-Type", "Async"), ("X-Fc-Async-Task-Id", id)];
        post(&api, &format!("/e/{endpoint}{RUN}"), &headers, padded(bytes)).await
    };
    let answer = call("default", "too-large", ASYNC_LIMIT + 1).await;
    let body = refused(&answer, 400, "EntityTooLarge");
    let message = body["error_message"].as_str().unwrap_or_default();
    assert!(
        message.contains("payload size exceeds maximum allowed size (131072 bytes)"),
        "{message}"
    );
    assert_eq!(jobs(&api).await, 0);
    call("default", "just-right", ASYNC_LIMIT).await.expect(202);
    ended(&api, "just-right").await;
    // The bound is on asynchronous calls only, and only where the endpoint has it.
    post(&api, RUN, &[], padded(ASYNC_LIMIT + 1)).await.expect(200);
    call("open", "large", ASYNC_LIMIT + 1).await.expect(202);
}

#[tokio::test(flavor = "multi_thread")]
async fn thirty_two_megabytes_pass_and_one_byte_more_does_not() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    post(&api, RUN, &[], padded(SYNC_LIMIT)).await.expect(200);
    let before = jobs(&api).await;
    for (what, bytes) in [("one byte more", SYNC_LIMIT + 1), ("40 MB", 40 * MIB)] {
        let answer = post(&api, RUN, &[], padded(bytes)).await;
        let body = refused(&answer, 400, "EntityTooLarge");
        let message = body["error_message"].as_str().unwrap_or_default();
        assert!(message.contains("33554432"), "{what}: {message}");
        // The same without a length in front: it is counted as it comes.
        let chunks = padded(bytes)
            .chunks(MIB)
            .map(|c| Ok::<_, std::io::Error>(c.to_vec()))
            .collect::<Vec<_>>();
        let request = api
            .request(Method::POST, RUN)
            .body(Body::wrap_stream(stream::iter(chunks)));
        refused(&api.send(request).await, 400, "EntityTooLarge");
    }
    assert_eq!(jobs(&api).await, before);
    fc::run(&api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_picture_comes_and_goes_whole() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    // Noise does not compress: about 3 MB, 4 MB as base64.
    let mut state = 1_u32;
    let picture = image::RgbImage::from_fn(1024, 1024, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [a, b, c, _] = state.to_be_bytes();
        image::Rgb([a, b, c])
    });
    let png = pixels::encode(&picture);
    assert!(png.len() > 2 * MIB);
    let graph = json!({
        "1": {"class_type": "LoadImage", "inputs": {"image": BASE64_STANDARD.encode(&png)}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "large"}},
    });
    let body = fc::run(&api, "output_base64=1&output_oss=1", &graph)
        .await
        .expect(200)
        .json();
    let output = &fc::results(&body)[0]["output"];
    let inline = BASE64_STANDARD
        .decode(output["base64"]["content"].as_str().expect("content"))
        .expect("base64");
    let fetched = api
        .get(output["oss"]["url"].as_str().expect("a URL"))
        .await
        .expect(200);
    assert_eq!(inline, fetched.body);
    assert!(pixels::decode(&inline) == picture, "the pixels differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_nodes_run_and_a_hundred_thousand_are_refused() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let chain = |nodes: usize| {
        let mut graph = graphs::plain(0x40_40_40, 8, 8);
        for n in 0..nodes {
            let before = if n == 0 {
                "1".to_owned()
            } else {
                format!("i{}", n - 1)
            };
            graph[format!("i{n}")] = json!({"class_type": "ImageInvert", "inputs": {"image": [before, 0]}});
        }
        graph["9"]["inputs"]["images"] = json!([format!("i{}", nodes - 1), 0]);
        graph
    };
    let body = fc::run(&api, "", &chain(2000)).await.expect(200).json();
    assert_eq!(fc::results(&body).len(), 1);
    let answer = fc::run(&api, "", &chain(100_000)).await;
    let body = refused(&answer, 500, "PROMPT_ERROR");
    assert!(
        body["error_message"]
            .as_str()
            .unwrap_or_default()
            .contains("100002"),
        "{body}"
    );
    assert!(
        answer.body.len() < 4096,
        "the answer does not grow with the request: {} bytes",
        answer.body.len()
    );
}
