//! Who may call (keys, tenants, anonymous endpoints) and from which pages, in this protocol's shape.

use darkroom_tests::{Api, Options, Server, config, fc, graphs, http::Answer};
use reqwest::Method;
use serde_json::Value;

use super::{RUN, ended, jobs, post, refused};

fn keys() -> String {
    config::alice_and_bob()
        + &config::key("elsewhere", &["client"], "endpoints = [\"open\"]")
        + &config::key("worker", &["worker", "publish"], "")
        + &config::key("operator", &["admin"], "")
        + "[endpoints.default]\n[endpoints.open]\nanonymous = true\n"
        + "[endpoints.listed]\nanonymous = true\nanonymous_history = true\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_callers_get_the_protocols_answer_on_every_path() {
    let server = Server::start(Options::default().with_config(&keys())).await;
    let operator = server.api_as(Some("sk_operator"));
    for (key, status) in [
        (None, 401),
        (Some("sk_stranger"), 401),
        (Some(""), 401),
        (Some("sk_worker"), 403),
        (Some("sk_elsewhere"), 403),
    ] {
        let api = server.api_as(key);
        let graph = graphs::plain(1, 8, 8);
        refused(&fc::run(&api, "", &graph).await, status, "AccessDenied");
        refused(
            &fc::run(&api, "stream=true", &graph).await,
            status,
            "AccessDenied",
        );
        refused(
            &fc::run_async(&api, "x", "", &graph).await,
            status,
            "AccessDenied",
        );
        for path in ["status?task_id=x", "task/x", "tasks"] {
            refused(
                &api.get(&format!("/api/serverless/{path}")).await,
                status,
                "AccessDenied",
            );
        }
    }
    assert_eq!(jobs(&operator).await, 0);
    assert!(!server.log().contains("sk_"), "no key is ever logged");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_caller_is_not_made_to_send_its_body_or_told_of_its_mistakes() {
    let server = Server::start(Options::default().with_config(&keys())).await;
    let nobody = server.api_as(None);
    refused(&post(&nobody, RUN, &[], "{").await, 401, "AccessDenied");
    refused(
        &post(&nobody, RUN, &[("X-Fc-Async-Task-Id", "../../x")], "{").await,
        401,
        "AccessDenied",
    );
    refused(
        &post(&nobody, &format!("/e/nowhere{RUN}"), &[], "{}").await,
        401,
        "AccessDenied",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn anonymous_endpoints_take_calls_without_credentials_and_tell_only_by_id() {
    let server = Server::start(Options::default().with_config(&keys())).await;
    let nobody = server.api_as(None);
    let graph = graphs::plain(0x0a_0b_0c, 8, 8);
    let headers = [("X-Fc-Trace-Id", "2f1c0b8e-5b1d-4a53-9a52-3c1a6b0e7d11")];
    let path = format!("/e/open{RUN}?output_oss=true");
    let body = post(&nobody, &path, &headers, graph.to_string())
        .await
        .expect(200)
        .json();
    let url = fc::results(&body)[0]["output"]["oss"]["url"]
        .as_str()
        .expect("a URL")
        .to_owned();
    darkroom_tests::pixels::assert_plain(&nobody.get(&url).await.expect(200).body, 0x0a_0b_0c, 8, 8);
    let polled = nobody
        .get("/e/open/api/serverless/status?task_id=2f1c0b8e-5b1d-4a53-9a52-3c1a6b0e7d11")
        .await
        .expect(200)
        .json();
    assert_eq!(
        polled.as_array().and_then(|m| m.last()).expect("a result")["type"],
        "serverless_api"
    );
    // Nobody gets at another's pictures by guessing a name, and nobody takes a name away.
    let again = post(&nobody, &path, &headers, graph.to_string()).await;
    refused(&again, 409, "ConcurrentUpdateError");
    let plain = [("X-Fc-Trace-Id", "1")];
    post(&nobody, &path, &plain, graph.to_string()).await.expect(200);
    let guessed = nobody.get("/e/open/api/serverless/status?task_id=1").await;
    assert_eq!(guessed.expect(200).json(), serde_json::json!([]));
    refused(
        &nobody.get("/e/open/api/serverless/tasks").await,
        401,
        "AccessDenied",
    );
    nobody.get("/e/listed/api/serverless/tasks").await.expect(200);
    // An unknown credential is refused also where none would do.
    let stranger = server.api_as(Some("sk_stranger"));
    refused(
        &post(&stranger, &format!("/e/open{RUN}"), &[], graph.to_string()).await,
        401,
        "AccessDenied",
    );
    // What the platform would inject is not believed from a caller.
    let injected = [
        ("x-fc-access-key-id", "LTAI"),
        ("x-fc-access-key-secret", "secret-of-mine"),
        ("x-fc-security-token", "t"),
    ];
    let answer = post(&nobody, &path, &injected, graph.to_string())
        .await
        .expect(200);
    assert!(!answer.text().contains("secret-of-mine") && !server.log().contains("secret-of-mine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_know_nothing_of_one_another() {
    let server = Server::start(Options::default().with_config(&keys())).await;
    let (alice, bob) = (server.api_as(Some("sk_alice")), server.api_as(Some("sk_bob")));
    let answer = fc::run_async(&alice, "private", "", &graphs::plain(1, 8, 8))
        .await
        .expect(202);
    assert!(answer.body.is_empty());
    let result = ended(&alice, "private").await.pop().expect("a result");
    let prompt = result["data"]["prompt_id"].as_str().expect("an id").to_owned();
    for id in ["private", prompt.as_str()] {
        assert!(fc::status(&bob, id).await.is_empty(), "{id}");
        let answer = bob
            .get(&format!("/api/serverless/task/{id}?withDetail=true"))
            .await;
        refused(&answer, 404, "TASK_NOT_FOUND");
        assert!(!fc::status(&alice, id).await.is_empty(), "{id}");
    }
    let listed = |list: Value| list["tasks"].as_array().expect("a list").len();
    assert_eq!(
        listed(bob.get("/api/serverless/tasks").await.expect(200).json()),
        0
    );
    assert_eq!(
        listed(
            bob.get("/api/serverless/tasks?prefix=priv")
                .await
                .expect(200)
                .json()
        ),
        0
    );
    assert_eq!(
        listed(alice.get("/api/serverless/tasks").await.expect(200).json()),
        1
    );
    // The name is free for the other, whose task is its own.
    fc::run_async(&bob, "private", "", &graphs::plain(2, 8, 8))
        .await
        .expect(202);
    let of_bob = ended(&bob, "private").await.pop().expect("a result");
    assert_ne!(of_bob["data"]["prompt_id"], result["data"]["prompt_id"]);
    assert_eq!(
        fc::status(&alice, "private").await.pop().expect("a result"),
        result
    );
    // Nor can one use the other's files.
    let upload = alice.request(Method::PUT, "/darkroom/v1/endpoints/default/inputs/mine.png");
    let png = darkroom_tests::pixels::encode(&darkroom_tests::pixels::gradient(4, 4));
    alice.send(upload.body(png)).await.expect(201);
    fc::run(&alice, "", &graphs::invert("mine.png")).await.expect(200);
    refused(
        &fc::run(&bob, "", &graphs::invert("mine.png")).await,
        500,
        "PROMPT_ERROR",
    );
}

async fn preflight(api: &Api, path: &str, origin: &str) -> Answer {
    let request = api
        .request(Method::OPTIONS, path)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", "POST")
        .header(
            "Access-Control-Request-Headers",
            "content-type, x-fc-trace-id, x-fc-invocation-type",
        );
    api.send(request).await
}

#[tokio::test(flavor = "multi_thread")]
async fn listed_pages_may_call_and_others_may_not() {
    let options = Options {
        server_config: "cors_origins = [\"https://app.example\"]".into(),
        ..Options::default()
    };
    let server = Server::start(options).await;
    let api = server.api();
    let graph = graphs::plain(1, 8, 8).to_string();
    for path in [RUN, "/api/serverless/status?task_id=x"] {
        let allowed = preflight(&api, path, "https://app.example").await;
        assert!(allowed.status.is_success(), "{path}: {}", allowed.status);
        assert_eq!(
            allowed.header("access-control-allow-origin"),
            Some("https://app.example")
        );
        let headers = allowed
            .header("access-control-allow-headers")
            .unwrap_or_default()
            .to_lowercase();
        for name in ["content-type", "x-fc-trace-id", "x-fc-invocation-type"] {
            assert!(headers.contains(name), "{path}: {headers}");
        }
        let other = preflight(&api, path, "https://evil.example").await;
        assert_eq!(other.header("access-control-allow-origin"), None, "{path}");
    }
    let answer = post(&api, RUN, &[("Origin", "https://app.example")], graph.clone())
        .await
        .expect(200);
    assert_eq!(
        answer.header("access-control-allow-origin"),
        Some("https://app.example")
    );
    let exposed = answer.header("access-control-expose-headers").unwrap_or_default();
    assert!(
        exposed == "*" || exposed.to_lowercase().contains("x-fc-request-id"),
        "{exposed}"
    );
    let before = jobs(&api).await;
    for origin in [
        "https://evil.example",
        "https://app.example.evil.example",
        "null",
        "http://app.example",
    ] {
        let answer = post(&api, RUN, &[("Origin", origin)], graph.clone()).await;
        refused(&answer, 403, "AccessDenied");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{origin}");
    }
    assert_eq!(jobs(&api).await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_page_may_call_an_anonymous_endpoint_where_the_operator_says_so() {
    let options = Options {
        server_config: "cors_origins = [\"*\"]".into(),
        ..Options::default()
    };
    let server = Server::start(options.with_config(&keys())).await;
    let nobody = server.api_as(None);
    let graph = graphs::plain(1, 8, 8).to_string();
    let path = format!("/e/open{RUN}");
    let asked = preflight(&nobody, &path, "https://any.example").await;
    assert_eq!(asked.header("access-control-allow-origin"), Some("*"));
    let answer = post(
        &nobody,
        &path,
        &[("Origin", "https://any.example")],
        graph.clone(),
    )
    .await
    .expect(200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    // With a key the answer is not for any page.
    let alice = server.api_as(Some("sk_alice"));
    let answer = post(&alice, RUN, &[("Origin", "https://any.example")], graph).await;
    assert_eq!(answer.header("access-control-allow-origin"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_in_answers_name_the_host_that_was_called_or_the_public_one() {
    let graph = graphs::plain(1, 8, 8).to_string();
    let path = format!("{RUN}?output_oss=1");
    let url = |answer: Answer| -> String {
        let url = fc::results(&answer.json())[0]["output"]["oss"]["url"].clone();
        url.as_str().expect("a URL").to_owned()
    };
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let own = format!("localhost:{}", server.port());
    let headers = [
        ("Host", own.as_str()),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Forwarded-Proto", "https"),
        ("Forwarded", "host=evil.example"),
    ];
    let told = url(post(&api, &path, &headers, graph.clone()).await.expect(200));
    assert!(told.starts_with(&format!("http://{own}/")), "{told}");
    api.get(&told).await.expect(200);

    let options = Options {
        server_config: "public_url = \"https://gpu.example/darkroom/\"".into(),
        ..Options::default()
    };
    let server = Server::start(options).await;
    let api = server.api();
    let told = url(post(&api, &path, &[], graph).await.expect(200));
    assert!(told.starts_with("https://gpu.example/"), "{told}");
    assert!(!told["https://".len()..].contains("//"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_can_be_chosen_by_host() {
    let config = "[endpoints.default]\n[endpoints.named]\ncommand = [\"/nobody\", \"{port}\"]\nscaling = { max_instances = 0 }\nhosts = [\"comfy.localhost\"]\n";
    let server = Server::start(Options::default().with_config(config)).await;
    let api = server.api();
    let host = format!("comfy.localhost:{}", server.port());
    let headers = [
        ("Host", host.as_str()),
        ("X-Fc-Invocation-Type", "Async"),
        ("X-Fc-Trace-Id", "there"),
    ];
    post(&api, RUN, &headers, graphs::plain(1, 8, 8).to_string())
        .await
        .expect(202);
    let list = api.get("/darkroom/v1/jobs").await.json();
    assert_eq!(list["jobs"][0]["endpoint"], "named", "{list}");
    assert_eq!(
        api.get("/e/named/api/serverless/task/there")
            .await
            .expect(200)
            .json()["status"],
        "Enqueued"
    );
}
