//! Networks that break off in the middle, and files that are larger than what anybody holds in memory.

use std::fs;

use darkroom_tests::{
    Options, Server,
    agent::{Agent, Engine},
    eventually, graphs,
    proxy::{Cut, Proxy},
};
use serde_json::{Value, json};

use super::{EXTERNAL, LIMIT, attempts, go_on, posted, running};

const LARGE: u64 = 300 << 20;

/// The most that a process ever held, in bytes.
fn peak_memory(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.expect("the kernel tells") << 10
}

fn succeeded_at_once(job: &Value) {
    assert_eq!(
        (job["state"].as_str(), attempts(job)),
        (Some("succeeded"), 1),
        "{job}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_hundreds_of_megabytes_comes_through_a_network_that_breaks_and_through_no_memory() {
    let server = Server::start(Options::default().with_config(EXTERNAL)).await;
    let api = server.api();
    let engine = Engine::start(server.home()).await;
    let proxy = Proxy::to(server.port()).await;
    // In its middle, then when all of it was sent and the answer was on its way.
    proxy.cut("/output", Cut::Request(LARGE / 3));
    proxy.cut("/output", Cut::Answer(10));
    let agent = Agent::start_at(&proxy.url(), &server, &engine, "box", None);
    let graph = json!({"1": {"class_type": "TestFile", "inputs": {
        "filename": "large.bin", "content": "", "kind": "images", "folder": "output", "size": LARGE
    }}});
    let job = api.finished_within(&api.submit(&graph).await, LIMIT).await;
    succeeded_at_once(&job);
    assert_eq!(proxy.cuts(), 2);
    assert_eq!(job["outputs"].as_array().map(Vec::len), Some(1), "{job}");
    assert_eq!(job["outputs"][0]["size"], LARGE, "{job}");
    for pid in [agent.pid(), server.worker_pid().expect("it runs")] {
        let peak = peak_memory(pid);
        assert!(peak < LARGE / 2, "{peak} bytes for a file of {LARGE}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whichever_call_breaks_off_no_run_is_lost_or_repeated_and_nothing_is_told_twice() {
    let server = Server::start(Options::default().with_config(EXTERNAL)).await;
    let api = server.api();
    let engine = Engine::start(server.home()).await;
    let proxy = Proxy::to(server.port()).await;
    let picture = {
        let agent = Agent::start(&server, &engine, "box", None);
        let job = api
            .finished(&api.submit(&graphs::plain(0x11_22_33, 256, 256)).await)
            .await;
        let picture = api.outputs(&job).await.remove(0);
        drop(agent);
        picture
    };
    let upload = api
        .request(
            reqwest::Method::PUT,
            "/darkroom/v1/endpoints/default/inputs/mine.png",
        )
        .body(picture);
    api.send(upload).await.expect(201);

    // Each of them once before the server hears it whole, and once after it did what it was asked for. A poll whose answer is
    // lost had claimed the job by then.
    let calls = ["connect", "next", "input", "started", "told", "finish"];
    for call in calls {
        proxy.cut(&format!("/{call}"), Cut::Request(100));
        proxy.cut(&format!("/{call}"), Cut::Answer(20));
    }
    let go = server.home().join("go");
    let mut graph = graphs::until(&go, "held", 1);
    graph["1"] = json!({"class_type": "LoadImage", "inputs": {"image": "mine.png"}});
    let id = api.submit(&graph).await;
    let _agent = Agent::start_at(&proxy.url(), &server, &engine, "box", None);
    running(&api, &id).await;
    posted(&engine, 2).await;
    go_on(&go);
    let job = api.finished_within(&id, LIMIT).await;
    succeeded_at_once(&job);
    assert_eq!(engine.prompts().await, 2, "the one before, and this");
    assert_eq!(job["outputs"].as_array().map(Vec::len), Some(1), "{job}");
    let told = api.get(&format!("/darkroom/v1/jobs/{id}/events")).await;
    let told = told.expect(200).text();
    for kind in ["execution_start", "execution_cached", "execution_success"] {
        let line = format!("event: {kind}");
        let times = told.lines().filter(|told| *told == line).count();
        assert_eq!(times, 1, "{kind}: {told}");
    }
    eventually("every cut was made", LIMIT, async || {
        (proxy.cuts() == 2 * calls.len()).then_some(())
    })
    .await;
}
