//! What bad input gets from our own API: its error shape, nothing half-accepted, and a server that lives. (The same for
//! the Serverless API is in `fc/bad_input.rs`.)

use darkroom_tests::{Api, Options, Server, graphs};
use reqwest::Method;
use serde_json::{Value, json};

const JOBS: &str = "/darkroom/v1/endpoints/default/jobs";

/// The server still works, and accepted nothing but what it now runs.
async fn lives(api: &Api) {
    let listed = api.get("/darkroom/v1/jobs").await.expect(200).json();
    assert_eq!(listed["jobs"], json!([]), "nothing was accepted");
    let id = api.submit(&graphs::plain(1, 8, 8)).await;
    assert_eq!(api.finished(&id).await["state"], "succeeded");
}

fn save(of: Value) -> Value {
    json!({"class_type": "SaveImage", "inputs": {"images": of, "filename_prefix": "x"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_graphs_are_refused_with_the_node_and_the_input() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let image =
        json!({"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}});
    let with = |field: &str, value: Value| {
        let mut changed = image.clone();
        changed["inputs"][field] = value;
        json!({"1": changed, "9": save(json!(["1", 0]))})
    };
    let mut missing = with("width", json!(8));
    missing["1"]["inputs"]
        .as_object_mut()
        .expect("inputs")
        .remove("width");
    let turn = |of: &str| json!({"class_type": "ImageInvert", "inputs": {"image": [of, 0]}});
    for (what, graph, part) in [
        (
            "a class with a slip",
            json!({"1": {"class_type": "EmptyImge", "inputs": {}}, "9": save(json!(["1", 0]))}),
            "EmptyImage",
        ),
        ("a missing input", missing, "width"),
        ("out of range", with("width", json!(-5)), "width"),
        ("a wrong type", with("width", json!("wide")), "width"),
        ("a link to nowhere", json!({"9": save(json!(["77", 0]))}), "77"),
        (
            "a slot that is not there",
            json!({"1": image, "9": save(json!(["1", 5]))}),
            "9",
        ),
        ("no output", json!({"1": image}), "output"),
        (
            "a cycle",
            json!({"1": turn("2"), "2": turn("1"), "9": save(json!(["1", 0]))}),
            "1",
        ),
        (
            "an empty file of the page",
            json!({"nodes": [], "links": [], "version": 0.4}),
            "no outputs",
        ),
    ] {
        let answer = api.post(JOBS, &json!({"graph": graph})).await;
        let error = answer.expect(400).json()["error"].clone();
        assert_eq!(error["code"], "invalid_graph", "{what}: {error}");
        let said = format!("{} {}", error["message"], error["details"]);
        assert!(said.contains(part), "{what} names {part}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_no_request_are_refused() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let send = async |body: reqwest::Body| {
        let request = api
            .request(Method::POST, JOBS)
            .header("content-type", "application/json")
            .body(body);
        api.send(request).await
    };
    for body in [
        "",
        "{",
        "[]",
        "3",
        "{}",
        r#"{"graph": 3}"#,
        r#"{"graph": {}}"#,
        r#"{"graph": {"1": 7}}"#,
    ] {
        let answer = send(body.into()).await;
        assert!(answer.status.is_client_error(), "{body}: {}", answer.status);
        assert!(
            answer.json()["error"]["code"].is_string(),
            "{body}: {}",
            answer.text()
        );
    }
    let graph = graphs::plain(1, 8, 8);
    for extra in [
        json!({"priority": "high"}),
        json!({"reference": ""}),
        json!({"reference": "x".repeat(1000)}),
    ] {
        let mut body = json!({"graph": graph});
        body.as_object_mut()
            .expect("an object")
            .extend(extra.as_object().expect("an object").clone());
        api.post(JOBS, &body).await.expect(400);
    }
    assert!(send(vec![b' '; 80 << 20].into()).await.status.is_client_error());
    assert!(send("[".repeat(100_000).into()).await.status.is_client_error());
    lives(&api).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_404_in_our_own_shape() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let body = json!({"graph": graphs::plain(1, 8, 8)});
    let unknown = api
        .post("/darkroom/v1/endpoints/nowhere/jobs", &body)
        .await
        .expect(404)
        .json();
    assert!(
        unknown["error"]["message"]
            .as_str()
            .unwrap_or("")
            .contains("nowhere"),
        "{unknown}"
    );
    assert!(unknown["error"]["request_id"].is_string(), "{unknown}");
    for path in [
        "/darkroom/v1/jobs/01998f2e-7e2f-7c3a-8a52-3f1d7a1b2c3d",
        "/darkroom/v1/jobs/not-a-uuid",
        "/darkroom/v1/jobs/..%2f..%2fetc%2fpasswd",
        "/darkroom/v1/instances/01998f2e-7e2f-7c3a-8a52-3f1d7a1b2c3d/logs",
        "/darkroom/v1/instances/..%2f..%2fserver.key/logs",
        "/darkroom/v1/blobs/..%2f..%2fserver.key",
        "/darkroom/v1/endpoints/..",
    ] {
        let answer = api.get(path).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
    }
    api.get("/darkroom/v1/jobs?state=nonsense").await.expect(400);
    let answer = api.get("/darkroom/v1/jobs?after=nonsense").await;
    assert!(answer.status.is_client_error(), "{}", answer.status);
    lives(&api).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_output_above_the_endpoints_limit_fails_its_job_and_names_the_limit() {
    let options = Options {
        config: "[endpoints.default.limits]\nmax_output = \"100B\"\n".to_owned(),
        ..Options::default()
    };
    let server = Server::start(options).await;
    let api = server.api();
    let id = api.submit(&graphs::plain(1, 64, 64)).await;
    let job = api.finished(&id).await;
    assert_eq!(job["state"], "failed", "{job}");
    let message = job["failure"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("larger than 100 bytes"), "{job}");
    assert_eq!(job["outputs"], json!([]), "{job}");
}
