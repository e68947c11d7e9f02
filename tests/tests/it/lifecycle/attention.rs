//! People at a page, and who is told of a cold start.

use darkroom_tests::{Options, Server, eventually, fc, graphs, native::Client};
use serde_json::{Value, json};

use super::{LIMIT, endpoint};

#[tokio::test(flavor = "multi_thread")]
async fn only_what_a_person_does_counts_as_activity_and_nothing_of_it_starts_an_instance() {
    let server = Server::start(Options::default()).await;
    let api = server.api();
    let active = async || {
        let endpoint = api.get("/darkroom/v1/endpoints/default").await.expect(200).json();
        endpoint["user_active_at"].clone()
    };
    let address = format!("{}/ws?clientId=tab", server.url().replacen("http", "ws", 1));
    let (tab, _) = tokio_tungstenite::connect_async(address).await.expect("a socket");
    for path in [
        "/api/queue",
        "/api/object_info",
        "/api/settings",
        "/api/jobs",
        "/api/system_stats",
    ] {
        api.get(path).await;
    }
    assert_eq!(active().await, Value::Null, "a page that is only open");
    api.post("/api/queue", &json!({"clear": true})).await.expect(200);
    assert!(active().await.is_string(), "a click");
    assert!(api.instances().await.is_empty(), "which needs no instance");
    drop(tab);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tab_that_stays_open_keeps_no_instance_once_its_user_is_idle() {
    let short = endpoint("default", "scaling = { idle_timeout = \"2s\" }");
    let server = Server::start(Options::default().with_config(&short)).await;
    let api = server.api();
    let mut tab = Client::connect(&api, "/e/default", "tab").await;
    let id = tab.submit(&api, "/e/default", &graphs::plain(1, 8, 8)).await;
    tab.until_end(&id).await;
    // A click keeps it for as long as work would, not for ever.
    api.post("/api/queue", &json!({"clear": true})).await.expect(200);
    eventually("its instance is gone", LIMIT, async || {
        api.instances().await.is_empty().then_some(())
    })
    .await;
    // The tab is open all the while, and works on.
    let id = tab.submit(&api, "/e/default", &graphs::plain(2, 8, 8)).await;
    tab.until_end(&id).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_of_every_protocol_say_whether_a_start_was_waited_for() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let native = async |graph: &Value| {
        let answer = api.post("/prompt", &json!({ "prompt": graph })).await.expect(200);
        let cold = answer.header("x-cold-start").map(str::to_owned);
        let id = answer.json()["prompt_id"].as_str().expect("an id").to_owned();
        eventually("it is in the history", LIMIT, async || {
            let history = api.get(&format!("/history/{id}")).await.expect(200).json();
            history.get(&id).is_some().then_some(())
        })
        .await;
        cold
    };
    assert_eq!(native(&graphs::plain(1, 8, 8)).await.as_deref(), Some("true"));
    assert_eq!(native(&graphs::plain(2, 8, 8)).await.as_deref(), Some("false"));
    for query in ["", "stream=true"] {
        let answer = fc::run(&api, query, &graphs::plain(3, 8, 8)).await.expect(200);
        assert_eq!(answer.header("x-cold-start"), Some("false"), "{query}");
    }
    let answer = fc::run_async(&api, "later", "", &graphs::plain(4, 8, 8))
        .await
        .expect(202);
    assert_eq!(answer.header("x-cold-start"), Some("false"));
    eventually("it ran as well", LIMIT, async || {
        let jobs = api.get("/darkroom/v1/jobs").await.expect(200).json();
        let all = jobs["jobs"].as_array().expect("a list");
        all.iter().all(|job| job["state"] == "succeeded").then_some(())
    })
    .await;
}
