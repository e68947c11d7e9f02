//! What bad input gets: an answer in the protocol's own shape, nothing half-accepted, and a server that lives.

use darkroom_tests::{Api, Options, Server, fc, graphs, http::Answer};
use reqwest::Method;
use serde_json::{Value, json};

/// The server still works, and holds only jobs that were accepted in good faith.
async fn lives(api: &Api, jobs: usize) {
    let listed = api.get("/darkroom/v1/jobs?limit=100").await.expect(200).json();
    assert_eq!(listed["jobs"].as_array().map(Vec::len), Some(jobs), "{listed}");
    fc::run(api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}

async fn raw(api: &Api, body: impl Into<reqwest::Body>) -> Answer {
    let request = api
        .request(Method::POST, "/api/serverless/run")
        .header("content-type", "application/json")
        .body(body);
    api.send(request).await
}

fn save(of: Value) -> Value {
    json!({"class_type": "SaveImage", "inputs": {"images": of, "filename_prefix": "x"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_graphs_are_refused_with_the_node_and_the_input() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    for body in [
        "",
        "{",
        "[]",
        "3",
        "\"x\"",
        "{\"a\": 1}",
        "\u{feff}{}",
        "{\"1\": {\"class_type\": 7}}",
    ] {
        let answer = raw(&api, body).await;
        assert!(
            answer.status.is_client_error() || answer.status == 500,
            "{body}: {}",
            answer.status
        );
        assert!(
            answer.json()["error_message"].is_string(),
            "{body}: {}",
            answer.text()
        );
    }
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
    for (what, graph, part) in [
        (
            "unknown class",
            json!({"1": {"class_type": "EmptyImge", "inputs": {}}, "9": save(json!(["1", 0]))}),
            "EmptyImage",
        ),
        ("missing input", missing, "width"),
        ("out of range", with("width", json!(-5)), "width"),
        ("wrong type", with("width", json!("wide")), "width"),
        ("link to nowhere", json!({"9": save(json!(["77", 0]))}), "77"),
        (
            "slot out of range",
            json!({"1": image, "9": save(json!(["1", 5]))}),
            "9",
        ),
        ("no output", json!({"1": image}), "output"),
        (
            "cycle",
            json!({"1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
                         "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}, "9": save(json!(["1", 0]))}),
            "",
        ),
        (
            "page format",
            json!({"nodes": [], "links": [], "version": 0.4}),
            "API",
        ),
    ] {
        let answer = fc::run(&api, "", &graph).await;
        let text = answer.expect(500).text();
        assert!(
            text.contains("PROMPT_ERROR") && text.contains(part),
            "{what}: {text}"
        );
        let own = api
            .post("/darkroom/v1/endpoints/default/jobs", &json!({"graph": graph}))
            .await;
        let own = own.expect(400).json();
        assert_eq!(own["error"]["code"], "invalid_graph", "{what}: {own}");
    }
    lives(&api, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_and_deep_bodies_are_refused_or_taken_but_never_fatal() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let big = raw(&api, vec![b' '; 40 << 20]).await;
    assert!(big.status.is_client_error(), "{}", big.status);
    let deep = raw(&api, "[".repeat(100_000)).await;
    assert!(
        deep.status.is_client_error() || deep.status == 500,
        "{}",
        deep.status
    );
    let mut many = serde_json::Map::new();
    for n in 0..100_000 {
        many.insert(
            n.to_string(),
            json!({"class_type": "ImageInvert", "inputs": {"image": [(n + 1).to_string(), 0]}}),
        );
    }
    let answer = fc::run(&api, "", &Value::Object(many)).await;
    assert!(!answer.status.is_success(), "{}", answer.status);
    lives(&api, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_cannot_leave_their_directories() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    for image in [
        "../../../etc/passwd",
        "/etc/passwd",
        "..",
        "a/../../x.png",
        "no-such-file.png",
    ] {
        let answer = fc::run(&api, "", &graphs::invert(image)).await;
        assert_eq!(answer.status, 500, "{image}: {}", answer.text());
        assert!(!answer.text().contains("root:"), "{image}");
    }
    let answer = api
        .get("/api/serverless/status?task_id=../../x")
        .await
        .expect(200);
    assert_eq!(answer.json(), json!([]));
    api.get("/api/serverless/task/..%2F..%2Fetc%2Fpasswd")
        .await
        .expect(404);
    for path in [
        "/darkroom/v1/jobs/..%2f..%2fetc",
        "/darkroom/v1/jobs/not-a-uuid",
        "/darkroom/v1/instances/x/logs",
    ] {
        let answer = api.get(path).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
    }
    let mut graph = graphs::plain(1, 8, 8);
    graph["9"]["inputs"]["filename_prefix"] = json!("../../../escaped");
    let answer = fc::run(&api, "", &graph).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(!server.home().join("escaped_00001_.png").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_fetches_nothing_private() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let own = format!("http://127.0.0.1:{}/healthz", server.port());
    for url in [
        own.as_str(),
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/x.png",
        "http://localhost:1/x.png",
        "http://0x7f000001/x",
        "http://10.0.0.1/x.png",
    ] {
        let answer = fc::run(&api, "", &graphs::invert(url)).await;
        assert_eq!(answer.status, 500, "{url}: {}", answer.text());
        assert_eq!(
            answer.json()["error_code"],
            "UNCLASSIFY",
            "{url}: {}",
            answer.text()
        );
    }
    lives(&api, 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_picture_is_refused() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let no_picture = format!(
        "data:image/png;base64,{}",
        "bm90IGEgcGljdHVyZSBhdCBhbGwsIGp1c3QgdGV4dA=="
    );
    let long_name = "x".repeat(70);
    for image in [
        no_picture.as_str(),
        "data:image/png;base64,%%%",
        long_name.as_str(),
    ] {
        let answer = fc::run(&api, "", &graphs::invert(image)).await;
        assert_eq!(answer.status, 500, "{image}: {}", answer.text());
        assert!(answer.json()["error_message"].is_string());
    }
    fc::run(&api, "", &graphs::plain(1, 8, 8)).await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn protocol_mistakes_get_the_protocols_answer() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let missing = api.get("/api/serverless/status").await.expect(400).json();
    assert_eq!(missing["error_code"], "INVALID_PARAMS", "{missing}");
    api.get("/api/serverless/tasks?limit=0").await.expect(400);
    api.get("/api/serverless/tasks?status=Nonsense").await.expect(400);
    let unknown = api
        .post(
            "/darkroom/v1/endpoints/nowhere/jobs",
            &json!({"graph": graphs::plain(1, 8, 8)}),
        )
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
    lives(&api, 0).await;
}
