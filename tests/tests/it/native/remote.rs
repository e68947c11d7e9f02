//! ComfyUIs of other people's: older versions beside newer ones, and servers that lie, forget, or lose what they had.

use std::time::Duration;

use darkroom_tests::{
    Api, Options, Server,
    boxes::Engine,
    eventually, graphs,
    meddler::{How, Meddler},
    native::{Client, kinds, prompt_ids},
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(120);

async fn server_on(urls: &[&str], more: &str) -> Server {
    let config = format!("[endpoints.default]\nbackend = \"remote\"\nurls = {urls:?}\n{more}\n");
    let server = Server::start(Options::default().with_config(&config)).await;
    let api = server.api();
    eventually("all are ready", LIMIT, async || {
        let instances = api.instances().await;
        let ready = instances.iter().filter(|one| one["state"] == "ready");
        (ready.count() == urls.len()).then_some(())
    })
    .await;
    server
}

fn endless(seed: &str) -> Value {
    graphs::through("TestSleep", json!({"seconds": 600, "steps": 6000}), seed, 9)
}

async fn history(api: &Api, id: &str) -> Value {
    let path = format!("/history/{id}");
    eventually("it is in the history", LIMIT, async || {
        let told = api.get(&path).await.expect(200).json();
        told.get(id).cloned()
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn older_versions_work_beside_newer_ones_and_each_prompt_keeps_our_id() {
    let (newer, older) = (Engine::running(true), Engine::running(true));
    older.listens().await;
    let before_older = Meddler::before(&older, How::Older).await;
    let server = server_on(&[&newer.url(), &before_older.url], "").await;
    let api = server.api();
    let mut client = Client::connect(&api, "", "mixed").await;
    let mut own = Vec::new();
    for nth in 0..6 {
        own.push(
            client
                .submit(&api, "", &graphs::sleep(0.3, &format!("m{nth}"), nth))
                .await,
        );
    }
    let mut told = Vec::new();
    for id in &own {
        let ended = |f: &darkroom_tests::native::Frame| {
            matches!(f, darkroom_tests::native::Frame::Text(text) if text["type"] == "executing"
                && text["data"]["node"].is_null() && text["data"]["prompt_id"] == *id)
        };
        if !told.iter().any(ended) {
            told.extend(client.until_end(id).await);
        }
    }
    assert_eq!(
        prompt_ids(&told),
        own.iter().cloned().collect(),
        "no id but ours is heard"
    );
    for id in &own {
        let entry = history(&api, id).await;
        assert_eq!(entry["status"]["status_str"], "success", "{entry}");
        assert_eq!(entry["prompt"][1], json!(id));
    }
    assert!(before_older.prompts() > 0, "the older one did its part");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_on_an_older_version_ends_what_it_means_and_not_the_next() {
    let older = Engine::running(true);
    older.listens().await;
    let before = Meddler::before(&older, How::Older).await;
    let server = server_on(&[&before.url], "").await;
    let api = server.api();
    let mut client = Client::connect(&api, "", "old").await;
    let first = client.submit(&api, "", &endless("first")).await;
    client.until("progress").await;
    let next = client.submit(&api, "", &graphs::sleep(1.0, "next", 2)).await;
    api.post("/interrupt", &json!({"prompt_id": first}))
        .await
        .expect(200);
    let told = kinds(&client.until_end(&first).await);
    assert!(told.contains(&"execution_interrupted".to_owned()), "{told:?}");
    let entry = history(&api, &next).await;
    assert_eq!(entry["status"]["status_str"], "success", "{entry}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_is_lost_in_the_middle_costs_nobody_anything() {
    let engine = Engine::running(true);
    engine.listens().await;
    let before = Meddler::before(&engine, How::Honest).await;
    let server = server_on(&[&before.url], "").await;
    let api = server.api();
    let mut client = Client::connect(&api, "", "lost").await;
    let id = client.submit(&api, "", &graphs::sleep(3.0, "lost", 1)).await;
    client.until("progress").await;
    before.drop_sockets();
    let told = kinds(&client.until_end(&id).await);
    assert!(told.contains(&"execution_success".to_owned()), "{told:?}");
    assert_eq!(history(&api, &id).await["status"]["completed"], true);
    assert_eq!(before.prompts(), 1, "it was posted once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_success_whose_files_are_not_there_is_none() {
    let engine = Engine::running(true);
    engine.listens().await;
    let before = Meddler::before(&engine, How::NoFiles).await;
    let server = server_on(&[&before.url], "limits = { max_attempts = 2 }").await;
    let api = server.api();
    let mut client = Client::connect(&api, "", "none").await;
    let id = client.submit(&api, "", &graphs::plain(1, 8, 8)).await;
    let told = kinds(&client.until_end(&id).await);
    assert!(told.contains(&"execution_error".to_owned()), "{told:?}");
    assert!(!told.contains(&"execution_success".to_owned()), "{told:?}");
    let entry = history(&api, &id).await;
    assert_eq!(entry["status"]["status_str"], "error", "{entry}");
    let text = entry.to_string();
    assert!(text.contains("plain_00001_"), "it says which file: {text}");
}

/// A server that is like that while the first prompt runs there: the attempt is lost within this time, and the prompt
/// succeeds on the next one.
async fn found_and_tried_again(how: How, within: Duration) {
    let engine = Engine::running(true);
    engine.listens().await;
    let before = Meddler::before(&engine, How::Honest).await;
    let server = server_on(&[&before.url], "").await;
    let api = server.api();
    let mut client = Client::connect(&api, "", "twice").await;
    let id = client.submit(&api, "", &endless("twice")).await;
    client.until("progress").await;
    let job = api.get("/darkroom/v1/jobs").await.expect(200).json()["jobs"][0]["id"].clone();
    let job = job.as_str().expect("an id").to_owned();
    before.becomes(how);
    let lost = eventually("the attempt is lost", LIMIT, async || {
        let shown = api.job(&job).await;
        (shown["attempts"][0]["state"] == "lost").then_some(shown)
    })
    .await;
    let at = |key: &str| -> jiff::Timestamp {
        let text = lost["attempts"][0][key].as_str().expect("a time");
        text.parse().expect("RFC 3339")
    };
    let took = at("ended_at").duration_since(at("claimed_at"));
    let took: Duration = took.try_into().expect("not before its claim");
    assert!(took <= within, "found after {took:?}: {lost}");
    before.becomes(How::Honest);
    // The first one goes on there; somebody ends it, as its operator would.
    let freed = async {
        let client = reqwest::Client::builder().no_proxy().build().expect("a client");
        let url = format!("{}/interrupt", engine.url());
        let _ = client.post(url).body("{}").send().await;
    };
    freed.await;
    eventually("it is tried again", LIMIT, async || {
        (before.prompts() == 2).then_some(())
    })
    .await;
    client.until("progress").await;
    api.post("/interrupt", &json!({"prompt_id": id}))
        .await
        .expect(200);
    let told = kinds(&client.until_end(&id).await);
    assert!(told.contains(&"execution_interrupted".to_owned()), "{told:?}");
}

/// The promise is thirty seconds from the evidence on; what went before (a claim, a start, the first progress) is part of what
/// is measured.
const EVIDENCE: Duration = Duration::from_secs(40);

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_is_gone_from_queue_and_history_is_found_and_runs_again() {
    found_and_tried_again(How::Forgetful, EVIDENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_that_waits_while_nothing_runs_is_found_and_runs_again() {
    found_and_tried_again(How::Stuck, EVIDENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_answers_garbage_is_found_and_its_prompt_runs_again() {
    found_and_tried_again(How::Garbage, EVIDENCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_model_says_of_itself_is_asked_of_what_runs_and_remembered() {
    let mut engine = Engine::running(true);
    engine.listens().await;
    let before = Meddler::before(&engine, How::Honest).await;
    let server = server_on(&[&before.url], "").await;
    let api = server.api();
    for nothing in [
        "checkpoints?filename=other.safetensors",
        "checkpoints?filename=../base.safetensors",
        "checkpoints",
    ] {
        api.get(&format!("/view_metadata/{nothing}")).await.expect(404);
    }
    let path = "/api/view_metadata/checkpoints?filename=base.safetensors";
    let told = eventually("it is told", LIMIT, async || {
        let answer = api.get(path).await;
        (answer.status == 200).then(|| answer.json())
    })
    .await;
    assert_eq!(told, json!({"note": "random weights"}));
    engine.kill();
    assert_eq!(api.get(path).await.expect(200).json(), told);
}
