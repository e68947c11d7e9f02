//! Who may call, on which endpoint, in this protocol's shape.

use std::time::Duration;

use darkroom_tests::{
    Options, Server, config, graphs,
    native::{Client, Frame},
    server::endpoint_with_test_nodes,
    within,
};
use reqwest::{Method, Response, header};
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

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_the_key_or_the_session_that_they_were_opened_under_and_not_before() {
    let config = config::key("operator", &["admin"], "") + &endpoint_with_test_nodes("default", "");
    let server = Server::start(Options::default().with_config(&config)).await;
    let operator = server.api_as(Some("sk_operator"));
    let new = json!({"name": "app", "scopes": ["client"], "endpoints": ["*"]});
    let made = operator.post("/darkroom/v1/keys", &new).await.expect(201).json();
    let secret = made["secret"].as_str().expect("a secret");
    let app = server.api_as(Some(secret));
    // Tells its progress ten times a second, for longer than this test takes.
    let endless = json!({"seconds": 600, "steps": 6000});
    let job = app.submit(&graphs::through("TestSleep", endless, "s", 1)).await;
    let path = format!("/darkroom/v1/jobs/{job}/events");
    let open = async |credential: (header::HeaderName, &str)| {
        let nobody = server.api_as(None);
        let request = nobody
            .request(Method::GET, &path)
            .header(credential.0, credential.1);
        let mut stream = request.send().await.expect("an answer");
        assert_eq!(stream.status(), 200);
        assert!(goes_on(&mut stream).await);
        stream
    };

    let browser = reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("a client");
    let form = browser.post(format!("{}/login", server.url()));
    let entered = form
        .body(format!("key={secret}"))
        .send()
        .await
        .expect("an answer");
    let cookie = entered.headers()[header::SET_COOKIE].to_str().expect("text");
    let session = cookie.split(';').next().expect("a pair").to_owned();

    let mut by_key = open((header::AUTHORIZATION, secret)).await;
    let mut by_session = open((header::COOKIE, &session)).await;
    let out = browser.post(format!("{}/logout", server.url()));
    out.header(header::COOKIE, &session)
        .send()
        .await
        .expect("an answer");
    ends(&mut by_session).await;
    assert!(goes_on(&mut by_key).await, "another's logout is not its business");

    let revoke = operator.request(Method::DELETE, "/darkroom/v1/keys/app");
    assert!(operator.send(revoke).await.status.is_success());
    ends(&mut by_key).await;
    let cancel = format!("/darkroom/v1/jobs/{job}/cancel");
    operator.post(&cancel, &json!({})).await.expect(200);
}

const STREAM_LIMIT: Duration = Duration::from_secs(120);

/// Whether more of it comes.
async fn goes_on(stream: &mut Response) -> bool {
    let piece = within("more of the stream", STREAM_LIMIT, stream.chunk()).await;
    piece.expect("it does not break").is_some()
}

/// Reads it to its end, which comes in order.
async fn ends(stream: &mut Response) {
    while goes_on(stream).await {}
}
