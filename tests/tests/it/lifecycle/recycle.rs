//! Instances that are replaced: worn out, too large, out of memory, stuck. Nothing else is ended with them.

use std::collections::BTreeSet;

use darkroom_tests::{Options, Server, eventually, graphs};
use serde_json::{Value, json};

use super::{LIMIT, cancel, decisions, endpoint, is_running, submit_to};

fn instances_of(job: &Value) -> Vec<String> {
    let attempts = job["attempts"].as_array().expect("a list");
    attempts
        .iter()
        .map(|attempt| attempt["instance"].to_string())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_recycled_after_so_many_jobs_and_no_job_notices() {
    let config = endpoint("default", "scaling = { max_jobs_per_instance = 1 }");
    let server = Server::start(Options::default().with_config(&config)).await;
    let api = server.api();
    let mut jobs = Vec::new();
    for colour in 1..=3 {
        jobs.push(api.submit(&graphs::plain(colour, 8, 8)).await);
    }
    let mut attempts = 0;
    let mut instances = BTreeSet::new();
    for job in &jobs {
        let job = api.finished(job).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        attempts += instances_of(&job).len();
        instances.extend(instances_of(&job));
    }
    assert_eq!(attempts, 3, "none was interrupted");
    assert!(instances.len() > 1, "{instances:?}");
    let all = decisions(&api, "default").await;
    let worn_out = all
        .iter()
        .find(|d| d["decision"]["signal"] == "jobs_done")
        .unwrap_or_else(|| panic!("{all:?}"));
    assert_eq!(worn_out["decision"]["verdict"]["verdict"], "drain");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_above_its_memory_is_drained() {
    let config = endpoint(
        "default",
        "scaling = { max_rss = \"1MB\", idle_timeout = \"1h\" }",
    );
    let server = Server::start(Options::default().with_config(&config)).await;
    let api = server.api();
    let job = api.submit(&graphs::plain(1, 8, 8)).await;
    assert_eq!(api.finished(&job).await["state"], "succeeded");
    eventually("it is drained for its size, and gone", LIMIT, async || {
        let all = decisions(&api, "default").await;
        let drained = all.iter().any(|d| d["decision"]["signal"] == "rss_bytes");
        (drained && api.instances().await.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn out_of_memory_restarts_the_instance_once_and_then_fails_with_the_reason() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let graph = graphs::through("TestOutOfMemory", json!({}), "a", 1);
    let id = api.submit(&graph).await;
    let job = api.finished(&id).await;
    assert_eq!(job["state"], "failed");
    assert_eq!(job["failure"]["code"], "out_of_memory");
    assert_eq!(job["failure"]["node_id"], "5");
    let instances = instances_of(&job);
    assert_eq!(instances.len(), 2, "{job}");
    assert_ne!(instances[0], instances[1], "the second try has a fresh one");
    let all = api
        .get("/darkroom/v1/instances?all=true")
        .await
        .expect(200)
        .text();
    assert!(all.contains("out of memory in node 5"), "{all}");
    let events = api
        .get(&format!("/darkroom/v1/jobs/{id}/events"))
        .await
        .expect(200)
        .text();
    assert_eq!(events.matches("event: execution_error").count(), 1, "{events}");
    assert!(events.contains("started anew"), "{events}");
    let next = api.submit(&graphs::plain(1, 8, 8)).await;
    assert_eq!(api.finished(&next).await["state"], "succeeded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_ignores_a_cancel_costs_its_instance_and_nothing_else() {
    let grace = "limits = { cancel_grace = \"300ms\" }";
    let config = endpoint("default", grace) + &endpoint("other", "");
    let server = Server::start(Options::default().with_config(&config)).await;
    let api = server.api();
    let bystander = submit_to(&api, "other", &super::long("other")).await;
    is_running(&api, &bystander).await;
    let spared = server.instance_pids();
    // A process of somebody else, in no way ours but that it looks like an instance.
    let mut stranger = std::process::Command::new("sleep")
        .arg("3600")
        .spawn()
        .expect("sleep runs");
    let stubborn = graphs::through(
        "TestIgnoreInterrupt",
        json!({"seconds": 3600, "steps": 3600}),
        "a",
        1,
    );
    let id = api.submit(&stubborn).await;
    let running = is_running(&api, &id).await;
    cancel(&api, &id).await;
    let job = api.finished(&id).await;
    assert_eq!(job["state"], "cancelled", "{job}");
    let next = api.submit(&graphs::plain(1, 8, 8)).await;
    let next = api.finished(&next).await;
    assert_eq!(next["state"], "succeeded");
    assert_ne!(instances_of(&next), instances_of(&running), "it was replaced");
    let pids = server.instance_pids();
    assert!(spared.iter().all(|pid| pids.contains(pid)), "{spared:?} {pids:?}");
    assert_eq!(api.job(&bystander).await["state"], "running");
    let alive = stranger.try_wait().expect("it can be asked").is_none();
    stranger.kill().expect("it ends");
    stranger.wait().expect("it ended");
    assert!(alive, "nobody else's process is ended");
    cancel(&api, &bystander).await;
    api.finished(&bystander).await;
}
