//! Instances that die, fall silent, or only look alive.

use std::time::Duration;

use darkroom_tests::{Ledger, Options, Server, graphs, processes, within};
use futures::StreamExt;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{LIMIT, attempt_states, conclude, executing, square};

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_instance_is_replaced_and_its_job_runs_again_once() {
    let mut server = Server::start(Options::test_nodes()).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api.submit(&graphs::sleep(6.0, "a", 0x10_20_30)).await;
    ledger.enter(&id, square(0x10_20_30));
    let load = ledger.load(&api, 2);
    executing(&api, &id).await;
    let killed = server.instance_pids();
    assert_eq!(killed.len(), 1);
    processes::signal(killed[0], Signal::KILL);
    let job = api.finished_within(&id, LIMIT).await;
    load.stop().await;
    assert_eq!(attempt_states(&job), ["lost", "done"], "{job}");
    assert!(!server.instance_pids().contains(&killed[0]));
    conclude(&mut server, &ledger).await;
}

/// Longer than every time after which an instance could be thought dead: the lease (30 s), the handshake, the queue that
/// does not move. `DARKROOM_SILENT_SECONDS=300` makes it the five minutes of the promise.
#[tokio::test(flavor = "multi_thread")]
async fn a_silent_node_completes_on_its_first_attempt() {
    let seconds = std::env::var("DARKROOM_SILENT_SECONDS").map_or(40.0, |s| s.parse().expect("seconds"));
    let mut server = Server::start(Options::test_nodes()).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let graph = graphs::through("TestSilentSleep", json!({"seconds": seconds}), "a", 0x55_44_33);
    let id = api.submit(&graph).await;
    ledger.enter(&id, square(0x55_44_33));
    let ended = api.finished_within(&id, LIMIT + Duration::from_secs_f64(seconds));
    // A page that is open meanwhile is pinged: idle proxies cut sockets on which nothing is said.
    let (job, ()) = tokio::join!(ended, is_pinged(&server));
    assert_eq!(attempt_states(&job), ["done"], "{job}");
    conclude(&mut server, &ledger).await;
}

async fn is_pinged(server: &Server) {
    let address = format!("ws://127.0.0.1:{}/ws?clientId=open", server.port());
    let (mut socket, _) = tokio_tungstenite::connect_async(address).await.expect("a socket");
    within("a ping", LIMIT, async {
        loop {
            let frame = socket
                .next()
                .await
                .expect("it stays open")
                .expect("it does not break");
            if matches!(frame, Message::Ping(_)) {
                return;
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_worker_thread_behind_a_living_http_server_is_found() {
    let mut server = Server::start(Options::test_nodes()).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let id = api
        .submit(&graphs::through("TestKillWorker", json!({}), "a", 1))
        .await;
    executing(&api, &id).await;
    // Each attempt kills its instance's worker; after the allowed two the job fails instead of hanging.
    let job = api.finished_within(&id, LIMIT).await;
    assert_eq!(job["state"], "failed", "{job}");
    assert_eq!(attempt_states(&job), ["lost", "lost"], "{job}");
    for attempt in job["attempts"].as_array().expect("a list") {
        let took = lasted(attempt);
        // Its log is looked at every two seconds.
        assert!(
            took < Duration::from_secs(30),
            "found only after {took:?}: {attempt}"
        );
    }
    // The endpoint recovers.
    assert!(ledger.submit(&api).await.is_some());
    conclude(&mut server, &ledger).await;
}

/// From an attempt's claim to its end.
fn lasted(attempt: &Value) -> Duration {
    let at = |key: &str| -> jiff::Timestamp {
        let text = attempt[key].as_str().expect("a time");
        text.parse().expect("RFC 3339")
    };
    at("ended_at")
        .duration_since(at("claimed_at"))
        .try_into()
        .expect("not before its claim")
}
