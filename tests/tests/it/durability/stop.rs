//! Stopping on request: running jobs get their grace, then are given back; instances end or are left, as configured.

use darkroom_tests::{Ledger, Options, Server, audit, eventually, graphs, processes};
use rustix::process::Signal;

use super::{LIMIT, attempt_states, conclude, executing, square};

fn with_grace(grace: &str, on_exit: &str) -> Options {
    let endpoint = format!("[endpoints.default.scaling]\non_exit = \"{on_exit}\"\n");
    Options {
        stop_grace: Some(grace.to_owned()),
        ..Options::test_nodes().with_config(&endpoint)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_job_is_given_its_grace() {
    let mut server = Server::start(with_grace("5s", "stop")).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(1.5, "a", 0x0b_0b_0b)).await;
    ledger.enter(&id, square(0x0b_0b_0b));
    executing(&api, &id).await;
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    audit::audit(&server.data_dir());
    server.restart().await;
    let job = api.finished_within(&id, LIMIT).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    conclude(&mut server, &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_beyond_its_grace_is_given_back_and_nothing_is_left_running() {
    let mut server = Server::start(with_grace("100ms", "stop")).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(3.0, "a", 0x0a_0a_0a)).await;
    ledger.enter(&id, square(0x0a_0a_0a));
    let waiting = ledger.submit(&api).await.expect("an idle server takes a job");
    executing(&api, &id).await;
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    let left = processes::marked(&server.data_dir());
    assert!(left.is_empty(), "{left:?}");
    server.restart().await;
    let job = api.finished_within(&id, LIMIT).await;
    // Our restart does not count against the job.
    assert_eq!(attempt_states(&job), ["released", "done"], "{job}, and {waiting}");
    conclude(&mut server, &ledger).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kept_instance_survives_and_is_adopted_by_the_next_server() {
    let mut server = Server::start(with_grace("100ms", "keep")).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(4.0, "a", 0x0c_0c_0c)).await;
    ledger.enter(&id, square(0x0c_0c_0c));
    executing(&api, &id).await;
    let instances = server.instance_pids();
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    assert_eq!(server.instance_pids(), instances, "it was kept");
    server.restart().await;
    let job = api.finished_within(&id, LIMIT).await;
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    assert_eq!(server.instance_pids(), instances, "it was adopted");
    ledger.settle(&api).await;
    let status = server.stop().await;
    assert!(status.success(), "{status}");
    assert_eq!(audit::executions(&server.data_dir(), &id), 1);
    // It was asked to stay; now it is only in the way.
    for pid in server.instance_pids() {
        processes::signal(pid, Signal::KILL);
    }
    eventually("it is gone", LIMIT, async || {
        server.instance_pids().is_empty().then_some(())
    })
    .await;
}
