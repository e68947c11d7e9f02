//! Boxes that dial out: real agents beside real engines, killed in the middle, as are the servers they serve.

mod installation;
mod keys;
mod network;
mod sharing;

use std::{path::Path, time::Duration};

use darkroom_tests::{
    Api, Options, Server,
    agent::{Agent, Engine},
    config, eventually, graphs, pixels,
};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(90);
const EXTERNAL: &str = "[endpoints.default]\nbackend = \"external\"\n";

async fn running(api: &Api, job: &str) {
    eventually("the job runs", LIMIT, async || {
        (api.job(job).await["state"] == "running").then_some(())
    })
    .await;
}

/// Waits until the engine shows that the job's node makes progress, so that a kill meets a running prompt.
async fn posted(engine: &Engine, prompts: usize) {
    eventually("the prompt is posted", LIMIT, async || {
        (engine.prompts().await == prompts).then_some(())
    })
    .await;
}

/// Lets what runs until this file is there come to its end.
fn go_on(path: &Path) {
    std::fs::write(path, b"").expect("the test's file is written");
}

fn attempts(job: &Value) -> usize {
    job["attempts"].as_array().map_or(0, Vec::len)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_box_that_dials_out_runs_jobs_with_files_and_leaves_when_told() {
    let keys = config::alice_and_bob() + &config::key("box", &["worker"], "endpoints = [\"default\"]");
    let mut options = Options::default().with_config(EXTERNAL).with_config(&keys);
    options.key = Some("sk_alice".into());
    let server = Server::start(options).await;
    let api = server.api();
    let waiting = api.submit(&graphs::plain(0x11_2233, 16, 8)).await;
    let engine = Engine::start(server.home()).await;
    for wrong in [None, Some("sk_alice"), Some("sk_nobody")] {
        let mut refused = Agent::start(&server, &engine, "refused", wrong);
        assert_eq!(refused.exit_code().await, Some(4), "{}", refused.log());
    }
    let mut agent = Agent::start(&server, &engine, "box", Some("sk_box"));
    let job = api.finished(&waiting).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let files = api.outputs(&job).await;
    let picture = pixels::decode(&files[0]);
    assert_eq!((picture.width(), picture.height()), (16, 8));
    let instances = api.instances().await;
    assert_eq!(instances.len(), 1);
    assert_eq!(instances[0]["state"], "ready");

    // A file of the caller's goes to the box, and the picture that is made of it comes back.
    let upload = api
        .request(
            reqwest::Method::PUT,
            "/darkroom/v1/endpoints/default/inputs/mine.png",
        )
        .body(files[0].clone());
    api.send(upload).await.expect(201);
    let inverted = api.submit(&graphs::invert("mine.png")).await;
    let job = api.finished(&inverted).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let picture = pixels::decode(&api.outputs(&job).await[0]);
    assert_eq!(picture.get_pixel(0, 0).0[..3], [0xee, 0xdd, 0xcc]);

    let long = api.submit(&graphs::sleep(600.0, "cancelled", 1)).await;
    running(&api, &long).await;
    api.post(&format!("/darkroom/v1/jobs/{long}/cancel"), &json!({}))
        .await;
    assert_eq!(api.finished(&long).await["state"], "cancelled");
    let failing = graphs::through("TestRaise", json!({"message": "on purpose"}), "x", 2);
    let failed = api.finished(&api.submit(&failing).await).await;
    assert_eq!(failed["state"], "failed", "{failed}");
    assert!(failed["failure"].to_string().contains("on purpose"), "{failed}");

    agent.terminate();
    assert_eq!(agent.exit_code().await, Some(0), "{}", agent.log());
    eventually("the instance is gone", LIMIT, async || {
        api.instances().await.is_empty().then_some(())
    })
    .await;
    let later = api.submit(&graphs::plain(3, 8, 8)).await;
    assert_eq!(api.job(&later).await["state"], "queued");
    assert!(!server.log().contains("sk_box") && !agent.log().contains("sk_box"));
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_agent_or_the_server_loses_and_repeats_no_run() {
    let mut server = Server::start(Options::default().with_config(EXTERNAL)).await;
    let api = server.api();
    let engine = Engine::start(server.home()).await;
    let mut agent = Agent::start(&server, &engine, "box", None);

    // The agent dies: the next of its name follows what its ComfyUI runs.
    let go = server.home().join("agent");
    let first = api.submit(&graphs::until(&go, "agent", 1)).await;
    posted(&engine, 1).await;
    running(&api, &first).await;
    agent.kill();
    let mut agent = Agent::start(&server, &engine, "box", None);
    go_on(&go);
    let job = api.finished(&first).await;
    assert_eq!(
        (job["state"].as_str(), attempts(&job)),
        (Some("succeeded"), 1),
        "{job}"
    );

    // The server's working process dies: the agent goes on, and connects again.
    let go = server.home().join("child");
    let second = api.submit(&graphs::until(&go, "child", 2)).await;
    posted(&engine, 2).await;
    running(&api, &second).await;
    server.kill_child().await;
    go_on(&go);
    let job = api.finished(&second).await;
    assert_eq!(
        (job["state"].as_str(), attempts(&job)),
        (Some("succeeded"), 1),
        "{job}"
    );

    // The whole server is away while the prompt ends.
    let go = server.home().join("server");
    let third = api.submit(&graphs::until(&go, "server", 3)).await;
    posted(&engine, 3).await;
    running(&api, &third).await;
    server.kill_tree().await;
    go_on(&go);
    server.restart().await;
    let api = server.api();
    let job = api.finished(&third).await;
    assert_eq!(
        (job["state"].as_str(), attempts(&job)),
        (Some("succeeded"), 1),
        "{job}"
    );
    assert_eq!(engine.prompts().await, 3, "none was posted twice");
    assert_eq!(api.instances().await.len(), 1, "all of them were one instance");
    let events = api
        .get(&format!("/darkroom/v1/jobs/{third}"))
        .await
        .expect(200)
        .json();
    assert_eq!(events["outputs"].as_array().map(Vec::len), Some(1));

    // Another agent takes the name: the one before goes, and what runs goes on.
    let go = server.home().join("name");
    let fourth = api.submit(&graphs::until(&go, "name", 4)).await;
    posted(&engine, 4).await;
    let mut other = Agent::start(&server, &engine, "box", None);
    assert_eq!(agent.exit_code().await, Some(4), "{}", agent.log());
    assert_eq!(api.job(&fourth).await["state"], "running");
    go_on(&go);
    let job = api.finished(&fourth).await;
    assert_eq!(
        (job["state"].as_str(), attempts(&job)),
        (Some("succeeded"), 1),
        "{job}"
    );
    other.terminate();
    assert_eq!(other.exit_code().await, Some(0), "{}", other.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comfyui_that_dies_loses_its_attempt_and_another_box_runs_the_job() {
    let server = Server::start(Options::default().with_config(EXTERNAL)).await;
    let api = server.api();
    let mut dying = Engine::start(server.home()).await;
    let _first = Agent::start(&server, &dying, "first", None);
    let go = server.home().join("lost");
    let job = api.submit(&graphs::until(&go, "lost", 1)).await;
    posted(&dying, 1).await;
    running(&api, &job).await;
    dying.kill();
    go_on(&go);
    let living = Engine::start(server.home()).await;
    let _second = Agent::start(&server, &living, "second", None);
    let ended = api.finished_within(&job, LIMIT).await;
    assert_eq!(
        (ended["state"].as_str(), attempts(&ended)),
        (Some("succeeded"), 2),
        "{ended}"
    );
    assert_eq!(ended["attempts"][0]["state"], "lost");
    let instances = api.instances().await;
    assert_eq!(instances.len(), 1, "{instances:?}");
}
