//! Who may do what: keys, tenants, anonymous endpoints, and pages of other origins.

use std::time::Duration;

use darkroom_tests::{
    Api, Options, Server, config, eventually, fc, graphs, server::endpoint_with_test_nodes,
};
use reqwest::Method;
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(180);

/// An endpoint that wants a key and one that does not, keys of two tenants, and one of each other scope.
fn keys() -> String {
    config::alice_and_bob()
        + &config::key("worker", &["worker"], "")
        + &config::key("operator", &["admin"], "")
        + "[endpoints.default]\n[endpoints.open]\nanonymous = true\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn with_keys_nobody_enters_without_one() {
    let server = Server::start(Options::default().with_config(&keys())).await;
    let graph = graphs::plain(1, 8, 8);
    let nobody = server.api_as(None);
    nobody.get("/healthz").await.expect(200);
    nobody.get("/darkroom/v1/jobs").await.expect(401);
    fc::run(&nobody, "", &graph).await.expect(401);
    let stranger = server.api_as(Some("sk_stranger"));
    stranger.get("/darkroom/v1/jobs").await.expect(401);
    // An unknown credential is refused also where none would do.
    stranger
        .post("/e/open/api/serverless/run", &graph)
        .await
        .expect(401);
    server
        .api_as(Some("sk_worker"))
        .post("/api/serverless/run", &graph)
        .await
        .expect(403);
    server
        .api_as(Some("sk_alice"))
        .get("/darkroom/v1/keys")
        .await
        .expect(403);
    server
        .api_as(Some("sk_operator"))
        .get("/darkroom/v1/keys")
        .await
        .expect(200);
    let answer = nobody
        .post("/e/open/api/serverless/run", &graph)
        .await
        .expect(200);
    assert_eq!(answer.json()["type"], "serverless_api");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_without_a_key_deletes_nothing() {
    let server = Server::start(Options::default().with_config(&keys())).await;
    let nobody = server.api_as(None);
    let body = json!({ "graph": graphs::plain(1, 8, 8) });
    let accepted = nobody.post("/darkroom/v1/endpoints/open/jobs", &body).await;
    let id = accepted.expect(201).json()["id"].as_str().unwrap().to_owned();
    nobody.finished(&id).await;
    let path = format!("/darkroom/v1/jobs/{id}");
    let delete = async |api: &Api| api.send(api.request(Method::DELETE, &path)).await;
    delete(&nobody).await.expect(401);
    nobody.get(&path).await.expect(200);
    delete(&server.api_as(Some("sk_operator"))).await.expect(200);
    nobody.get(&path).await.expect(404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_never_sees_anothers_jobs() {
    let server = Server::start(Options::default().with_config(&keys())).await;
    let alice = server.api_as(Some("sk_alice"));
    let bob = server.api_as(Some("sk_bob"));
    let id = alice.submit(&graphs::plain(1, 8, 8)).await;
    alice.finished(&id).await;
    for path in ["", "/events"] {
        bob.get(&format!("/darkroom/v1/jobs/{id}{path}"))
            .await
            .expect(404);
    }
    bob.post(&format!("/darkroom/v1/jobs/{id}/cancel"), &json!({}))
        .await
        .expect(404);
    assert_eq!(
        bob.get("/darkroom/v1/jobs").await.expect(200).json()["jobs"],
        json!([])
    );

    // The same task id belongs to each of them on their own.
    fc::run_async(&alice, "shared-id", "", &graphs::plain(2, 8, 8))
        .await
        .expect(202);
    assert!(fc::status(&bob, "shared-id").await.is_empty());
    bob.get("/api/serverless/task/shared-id").await.expect(404);
    fc::run_async(&bob, "shared-id", "", &graphs::plain(3, 8, 8))
        .await
        .expect(202);
    // An operator sees all.
    let all = server
        .api_as(Some("sk_operator"))
        .get("/darkroom/v1/jobs")
        .await
        .expect(200)
        .json();
    assert_eq!(all["jobs"].as_array().map(Vec::len), Some(3), "{all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_origin_cannot_use_a_server_without_keys() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let post = |header: &'static str, value: &'static str| {
        api.request(Method::POST, "/api/serverless/run")
            .header(header, value)
            .json(&graphs::plain(1, 8, 8))
    };
    api.send(post("Origin", "https://evil.example")).await.expect(403);
    api.send(post("Host", "evil.example")).await.expect(403);
    assert_eq!(
        api.get("/darkroom/v1/jobs").await.json()["jobs"],
        json!([]),
        "nothing was accepted"
    );
    // Without keys, credentials that are sent all the same are ignored.
    server
        .api_as(Some("whatever"))
        .get("/darkroom/v1/jobs")
        .await
        .expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_changes_keys_and_leaves_running_jobs_alone() {
    let with_key = |secret: &str| {
        format!(
            "[[keys]]\nname = \"app\"\nsecret = \"{secret}\"\nscopes = [\"admin\"]\n{}",
            endpoint_with_test_nodes("default", "")
        )
    };
    let server = Server::start(Options::default().with_config(&with_key("sk_old"))).await;
    let old = server.api_as(Some("sk_old"));
    let id = old.submit(&graphs::sleep(6.0, "a", 0x12_12_12)).await;
    eventually("the job runs", LIMIT, async || {
        (old.job(&id).await["state"] == "running").then_some(())
    })
    .await;

    server.reload("[server]\nlisten_on = 1");
    eventually("the mistake is reported", LIMIT, async || {
        server.log().contains("was not changed").then_some(())
    })
    .await;
    old.get("/darkroom/v1/jobs").await.expect(200);

    server.reload(&with_key("sk_new"));
    let new = server.api_as(Some("sk_new"));
    eventually("the new key works", LIMIT, async || {
        (new.get("/darkroom/v1/jobs").await.status == 200).then_some(())
    })
    .await;
    old.get("/darkroom/v1/jobs").await.expect(401);
    let job = new.finished(&id).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_made_through_the_api_works_until_it_is_revoked() {
    let server = Server::start(Options::default().with_config(&keys())).await;
    let operator = server.api_as(Some("sk_operator"));
    let made = operator
        .post(
            "/darkroom/v1/keys",
            &json!({"name": "app", "scopes": ["client"], "endpoints": ["*"], "tenant": "default"}),
        )
        .await;
    assert!(made.status.is_success(), "{}", made.text());
    let secret = made.json()["secret"]
        .as_str()
        .expect("the secret is shown once")
        .to_owned();
    let app = server.api_as(Some(&secret));
    app.get("/darkroom/v1/jobs").await.expect(200);
    let list = operator.get("/darkroom/v1/keys").await.expect(200).text();
    assert!(!list.contains(&secret));
    let gone = operator
        .send(operator.request(Method::DELETE, "/darkroom/v1/keys/app"))
        .await;
    assert!(gone.status.is_success(), "{}", gone.text());
    app.get("/darkroom/v1/jobs").await.expect(401);
    assert!(
        !server.log().contains(&secret) && !server.log().contains("sk_operator"),
        "no key in the log"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_holds_no_prompt_whatever_becomes_of_it() {
    const PROMPT: &str = "a portrait of Rumpelstilzchen";
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let text = |text: &str| json!({"class_type": "PrimitiveString", "inputs": {"value": text}});
    let show = json!({"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}});
    fc::run(&api, "", &json!({"1": text(PROMPT), "9": show}))
        .await
        .expect(200);
    // Failing at its node, refused for its graph, and refused for its form.
    let raises = graphs::through("TestRaise", json!({"message": PROMPT}), "a", 1);
    fc::run(&api, "", &raises).await.expect(500);
    let mut unknown = graphs::plain(1, 8, 8);
    unknown["1"] = json!({"class_type": PROMPT, "inputs": {"text": PROMPT}});
    fc::run(&api, "", &unknown).await.expect(500);
    fc::run(&api, "", &json!([PROMPT])).await.expect(400);
    let reference = format!("/darkroom/v1/jobs?state={}", PROMPT.replace(' ', "%20"));
    api.get(&reference).await.expect(400);
    let log = server.log();
    assert!(
        log.contains("starting an instance"),
        "it is the server's log: {log}"
    );
    assert!(!log.contains("Rumpelstilzchen"), "{log}");
}
