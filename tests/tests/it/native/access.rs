//! Who may call, on which endpoint, in this protocol's shape.

use darkroom_tests::{
    Options, Server, config,
    native::{Client, Frame},
};
use reqwest::Method;
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn the_count_of_prompts_is_told_at_the_root_below_api_and_of_a_named_endpoint() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    for path in [
        "/prompt",
        "/api/prompt",
        "/e/default/prompt",
        "/e/default/api/prompt",
    ] {
        let told = api.get(path).await.expect(200).json();
        assert_eq!(told, json!({"exec_info": {"queue_remaining": 0}}), "{path}");
    }
    let unknown = api.get("/e/nowhere/prompt").await.expect(404).json();
    assert_eq!(unknown["error"]["type"], "not_found");
    assert_eq!(unknown["node_errors"], json!({}));
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_callers_are_told_in_comfyuis_shape() {
    let keys = config::alice_and_bob()
        + &config::key("worker", &["worker"], "")
        + "[endpoints.default]\n[endpoints.open]\nanonymous = true\n";
    let server = Server::start(Options::default().with_config(&keys)).await;
    for (key, status, kind) in [
        (None, 401, "unauthenticated"),
        (Some("sk_stranger"), 401, "unauthenticated"),
        (Some("sk_worker"), 403, "missing_scope"),
    ] {
        let answer = server.api_as(key).get("/prompt").await.expect(status);
        assert_eq!(answer.json()["error"]["type"], kind);
    }
    server.api_as(None).get("/e/open/prompt").await.expect(200);
}

#[tokio::test(flavor = "multi_thread")]
async fn revoking_a_key_closes_the_sockets_that_are_open_under_it_and_no_other() {
    let keys = config::alice_and_bob() + &config::key("operator", &["admin"], "");
    let server = Server::start(Options::default().with_config(&keys)).await;
    let operator = server.api_as(Some("sk_operator"));
    let new = json!({"name": "page", "scopes": ["client"], "endpoints": ["*"]});
    let made = operator.post("/darkroom/v1/keys", &new).await;
    let secret = made.json()["secret"].as_str().expect("a secret").to_owned();
    let mut page = Client::connect(&server.api_as(Some(&secret)), "", "page").await;
    let bob = server.api_as(Some("sk_bob"));
    let mut other = Client::connect(&bob, "", "other").await;
    page.until("status").await;
    let path = "/darkroom/v1/keys/page";
    let revoked = operator.send(operator.request(Method::DELETE, path)).await;
    assert!(revoked.status.is_success(), "{}", revoked.text());
    while page.next().await != Frame::Closed {}
    assert!(
        Client::try_connect(&server.api_as(Some(&secret)), "", "page")
            .await
            .is_none()
    );
    let id = other
        .submit(&bob, "", &darkroom_tests::graphs::plain(7, 8, 8))
        .await;
    other.until_end(&id).await;
}
