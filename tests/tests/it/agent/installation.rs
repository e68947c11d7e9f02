//! A ComfyUI that its agent starts, watches and ends.

use std::path::Path;

use darkroom_tests::{
    Options, Server,
    agent::{Agent, Engine, installation},
    eventually, graphs, processes,
};
use rustix::process::Signal;
use serde_json::Value;

use super::{EXTERNAL, LIMIT, attempts, go_on};

/// The ComfyUIs that an agent below `home` started; those of the test have other directories.
fn started(home: &Path) -> Vec<i32> {
    let instances = home.join("agent").join("instances");
    let inside = |part: &String| part.starts_with(&*instances.to_string_lossy());
    let all = processes::of(home).into_iter();
    all.filter(|process| process.command.iter().any(inside))
        .map(|process| process.pid)
        .collect()
}

async fn one(home: &Path) -> i32 {
    eventually("one ComfyUI runs", LIMIT, async || match started(home)[..] {
        [pid] => Some(pid),
        _ => None,
    })
    .await
}

/// Waits until the agent's ComfyUI runs a prompt, so that a kill meets it in its middle.
async fn in_its_middle(home: &Path) {
    let client = reqwest::Client::builder().no_proxy().build().expect("a client");
    eventually("ComfyUI runs the prompt", LIMIT, async || {
        let record = std::fs::read(home.join("agent").join("comfyui.json")).ok()?;
        let record: Value = serde_json::from_slice(&record).ok()?;
        let address = format!("{}/queue", record.pointer("/handle/base_url")?.as_str()?);
        let queue: Value = client.get(address).send().await.ok()?.json().await.ok()?;
        (queue["queue_running"].as_array()?.len() == 1).then_some(())
    })
    .await;
}

fn ended(job: &Value) -> (Option<&str>, usize) {
    (job["state"].as_str(), attempts(job))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_starts_its_comfyui_again_and_ends_only_its_own() {
    let server = Server::start(Options::default().with_config(EXTERNAL)).await;
    let api = server.api();
    let home = server.home();
    let (directory, python) = installation(home);
    let foreign = Engine::start(home).await;
    let mut agent = Agent::with_installation(&server, &directory, Some(&python), &[]);
    let job = api
        .finished(&api.submit(&graphs::plain(0x11_22_33, 16, 8)).await)
        .await;
    assert_eq!(ended(&job), (Some("succeeded"), 1), "{job}");
    assert_eq!(api.outputs(&job).await.len(), 1);
    let first = one(home).await;

    // The agent is killed: its ComfyUI runs on, and the next agent goes on with both.
    let go = home.join("kept");
    let kept = api.submit(&graphs::until(&go, "kept", 1)).await;
    in_its_middle(home).await;
    agent.kill();
    let mut agent = Agent::with_installation(&server, &directory, Some(&python), &[]);
    go_on(&go);
    let job = api.finished(&kept).await;
    assert_eq!(ended(&job), (Some("succeeded"), 1), "{job}");
    assert_eq!(one(home).await, first, "it was not started again");

    // ComfyUI is killed: its attempt is lost, and the job runs on the next one.
    let go = home.join("lost");
    let lost = api.submit(&graphs::until(&go, "lost", 2)).await;
    in_its_middle(home).await;
    processes::signal(first, Signal::KILL);
    go_on(&go);
    let job = api.finished_within(&lost, LIMIT).await;
    assert_eq!(ended(&job), (Some("succeeded"), 2), "{job}");
    assert_eq!(job["attempts"][0]["state"], "lost", "{job}");
    assert_ne!(one(home).await, first);

    agent.terminate();
    assert_eq!(agent.exit_code().await, Some(0), "{}", agent.log());
    assert!(started(home).is_empty(), "it ended its own");
    assert_eq!(foreign.prompts().await, 0, "and the other still answers");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_takes_longer_than_the_grace_goes_back_to_the_queue() {
    let server = Server::start(Options::default().with_config(EXTERNAL)).await;
    let api = server.api();
    let home = server.home();
    let (directory, python) = installation(home);
    let mut agent = Agent::with_installation_and_grace(&server, &directory, Some(&python), &[], 0);
    let id = api.submit(&graphs::sleep(600.0, "long", 1)).await;
    in_its_middle(home).await;
    agent.terminate();
    assert_eq!(agent.exit_code().await, Some(0), "{}", agent.log());
    assert!(started(home).is_empty(), "its ComfyUI ended with it");
    let job = api.job(&id).await;
    assert_eq!(ended(&job), (Some("queued"), 1), "{job}");
    assert_eq!(job["attempts"][0]["state"], "released", "{job}");
    assert!(api.instances().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_installation_is_refused_with_a_word() {
    let server = Server::start(Options::default().with_config(EXTERNAL)).await;
    let (directory, python) = installation(server.home());
    let mut agent = Agent::with_installation(&server, &directory.join("none"), Some(&python), &[]);
    assert_eq!(agent.exit_code().await, Some(2), "{}", agent.log());
    assert!(agent.log().contains("there is no main.py in"), "{}", agent.log());
}
