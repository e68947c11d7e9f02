//! Things that die while jobs run. What was acknowledged completes, once, with the right pixels.

use std::{collections::BTreeMap, time::Duration};

use darkroom_tests::{Api, Options, Server, eventually, fc, graphs, pixels, processes};
use rustix::process::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

async fn running(api: &Api, id: &str) -> Value {
    eventually("the job's node executes", LIMIT, async || {
        let job = api.job(id).await;
        let events = fc_events_seen(api, id).await;
        (job["state"] == "running" && events).then_some(job)
    })
    .await
}

/// Whether the instance has begun: only then is the prompt really there.
async fn fc_events_seen(api: &Api, id: &str) -> bool {
    let job = api.job(id).await;
    job["attempts"]
        .as_array()
        .and_then(|attempts| attempts.last())
        .is_some_and(|attempt| attempt["instance"].is_string())
}

/// Succeeded, with one picture of that colour, after that many attempts.
async fn assert_done(api: &Api, id: &str, colour: u32) -> Value {
    let job = api.finished_within(id, LIMIT).await;
    assert_eq!(job["state"], "succeeded", "{job}");
    let files = api.outputs(&job).await;
    assert_eq!(files.len(), 1, "{job}");
    pixels::assert_plain(&files[0], colour, 16, 16);
    let done = job["attempts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|a| a["state"] == "done")
        .count();
    assert_eq!(done, 1, "completed once: {job}");
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_is_replaced_and_its_job_runs_again() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let id = api.submit(&graphs::sleep(3.0, "a", 0x10_20_30)).await;
    running(&api, &id).await;
    for pid in server.instance_pids() {
        processes::signal(pid, Signal::KILL);
    }
    let job = assert_done(&api, &id, 0x10_20_30).await;
    let states: Vec<&str> = job["attempts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|attempt| attempt["state"].as_str())
        .collect();
    assert_eq!(states, ["lost", "done"], "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_child_is_a_pause_and_the_running_prompt_is_adopted() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let id = api.submit(&graphs::sleep(4.0, "a", 0x30_20_10)).await;
    running(&api, &id).await;
    let instances = server.instance_pids();
    assert_eq!(instances.len(), 1);
    server.kill_child().await;
    // The socket stayed open: a request now waits for the next child instead of being refused.
    let answer = api.try_send(api.request(reqwest::Method::GET, "/healthz")).await;
    assert!(answer.is_ok(), "refused: {answer:?}");
    let job = assert_done(&api, &id, 0x30_20_10).await;
    assert_eq!(server.instance_pids(), instances, "the same instance went on");
    assert_eq!(
        job["attempts"].as_array().map(Vec::len),
        Some(1),
        "not run again: {job}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_finds_its_running_instance_again() {
    let mut server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let id = api.submit(&graphs::sleep(5.0, "a", 0x0f_0e_0d)).await;
    let waiting = api.submit(&graphs::sleep(0.1, "b", 0x01_02_03)).await;
    running(&api, &id).await;
    let instances = server.instance_pids();
    server.kill_tree().await;
    assert_eq!(server.instance_pids(), instances, "instances outlive the server");
    server.restart().await;
    let job = assert_done(&api, &id, 0x0f_0e_0d).await;
    assert_eq!(
        job["attempts"].as_array().map(Vec::len),
        Some(1),
        "adopted, not run again: {job}"
    );
    assert_done(&api, &waiting, 0x01_02_03).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_killed_at_once_loses_nothing_that_was_acknowledged() {
    let mut server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let mut acknowledged = BTreeMap::new();
    for n in 0..6_u32 {
        let id = api
            .submit(&graphs::sleep(0.3, &n.to_string(), 0x01_01_01 * (n + 1)))
            .await;
        acknowledged.insert(id, 0x01_01_01 * (n + 1));
    }
    for _ in 0..2 {
        server.kill_everything().await;
        server.restart().await;
    }
    for (id, colour) in acknowledged {
        assert_done(&api, &id, colour).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_worker_thread_behind_a_living_http_server_is_found() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let graph = graphs::through("TestKillWorker", serde_json::json!({}), "a", 1);
    let id = api.submit(&graph).await;
    // Each attempt kills its instance's worker; after the allowed two the job fails instead of hanging.
    let job = api.finished_within(&id, Duration::from_secs(90)).await;
    assert_eq!(job["state"], "failed", "{job}");
    assert!(
        job["attempts"]
            .as_array()
            .into_iter()
            .flatten()
            .all(|a| a["state"] == "lost"),
        "{job}"
    );
    // The endpoint recovers.
    assert_done(
        &api,
        &api.submit(&graphs::sleep(0.1, "b", 0x22_22_22)).await,
        0x22_22_22,
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_completes() {
    let server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let graph = graphs::through(
        "TestSilentSleep",
        serde_json::json!({"seconds": 6.0}),
        "a",
        0x55_44_33,
    );
    let job = assert_done(&api, &api.submit(&graph).await, 0x55_44_33).await;
    assert_eq!(job["attempts"].as_array().map(Vec::len), Some(1), "{job}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop_gives_jobs_back_and_leaves_nothing_running() {
    let mut server = Server::start(Options::test_nodes()).await;
    let api = server.api();
    let id = api.submit(&graphs::sleep(2.0, "a", 0x0a_0a_0a)).await;
    running(&api, &id).await;
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    eventually("no instance is left", LIMIT, async || {
        server.instance_pids().is_empty().then_some(())
    })
    .await;
    server.restart().await;
    let job = assert_done(&api, &id, 0x0a_0a_0a).await;
    let lost = job["attempts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|a| a["state"] == "lost")
        .count();
    assert_eq!(lost, 0, "our restart does not count against the job: {job}");
}

/// A point at which the server may die between two things that belong together. It kills itself at every N-th pass of
/// the point, at least five times, while work keeps coming; what it acknowledged is checked by the ids the client kept.
async fn survives(point: &'static str, nth: u32) {
    let server = Server::start(Options {
        failpoint: Some((point, nth)),
        ..Options::test_nodes()
    })
    .await;
    let api = server.api();
    let mut acknowledged = BTreeMap::new();
    let mut sent = 0_u32;
    let kills = async || server.log().matches("failpoint reached").count();
    // More work until the point was hit five times.
    while kills().await < 5 {
        sent += 1;
        assert!(sent < 200, "{point} was hit only {} times", kills().await);
        let colour = sent * 257;
        let task = format!("task-{sent}");
        let request = api
            .request(reqwest::Method::POST, "/api/serverless/run")
            .header("X-Fc-Invocation-Type", "Async")
            .header("X-Fc-Async-Task-Id", &task)
            .json(&graphs::plain(colour, 16, 16));
        // A broken connection is no acknowledgement; such a job may or may not exist.
        if let Ok(answer) = api.try_send(request).await
            && answer.status == 202
        {
            acknowledged.insert(task, colour);
        }
    }
    server.disarm();
    assert!(
        acknowledged.len() >= 5,
        "{point}: {} acknowledged",
        acknowledged.len()
    );
    for (task, colour) in acknowledged {
        let what = format!("{point}: {task} ends");
        let events = eventually(&what, LIMIT, async || {
            let request = api.request(
                reqwest::Method::GET,
                &format!("/api/serverless/status?task_id={task}"),
            );
            let answer = api
                .try_send(request)
                .await
                .ok()
                .filter(|answer| answer.status == 200)?;
            let events = answer.json().as_array().cloned()?;
            matches!(events.last()?["type"].as_str(), Some("serverless_api" | "error")).then_some(events)
        })
        .await;
        let last = events.last().expect("an end");
        let results = fc::results(last);
        assert_eq!(results.len(), 1, "{point}: {last}");
        let completions = events
            .iter()
            .filter(|event| event["type"] == "serverless_api")
            .count();
        assert_eq!(completions, 1, "{point}: completed once");
        check_picture(&api, &task, colour).await;
    }
}

async fn check_picture(api: &Api, task: &str, colour: u32) {
    let page = eventually("the job list answers", LIMIT, async || {
        let request = api.request(
            reqwest::Method::GET,
            &format!("/api/serverless/task/{task}?withDetail=true"),
        );
        let answer = api
            .try_send(request)
            .await
            .ok()
            .filter(|answer| answer.status == 200)?;
        Some(answer.json())
    })
    .await;
    assert_eq!(page["status"], "Succeeded", "{page}");
    let job = page["detail"]["messages"]
        .as_array()
        .and_then(|m| m.last())
        .expect("messages");
    let prompt = job["data"]["prompt_id"].as_str().expect("a prompt id");
    let job = api.finished(prompt).await;
    pixels::assert_plain(&api.outputs(&job).await[0], colour, 16, 16);
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_commit_and_reply() {
    survives("commit_reply", 7).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_a_claim() {
    survives("claim", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_blob_and_the_record() {
    survives("blob_stored", 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_record_and_what_follows_it() {
    survives("recorded", 2).await;
}
