//! The server dies between two things that belong together, again and again, while work gets done.
//!
//! Every point is hit ten times under load: five times the working process alone dies there (its instance lives and is
//! adopted), five times everything dies at that very moment: parent, child and instances.

use darkroom_tests::{Ledger, Options, Server, eventually};

use super::{LIMIT, conclude};

/// How often each point is hit in each of the two ways.
const HITS: usize = 5;
/// At which pass of the point a process dies, in turn: early in its life, and in the middle of its work.
const PASSES: [u32; HITS] = [1, 2, 5, 9, 14];

async fn survives(point: &str) {
    let options = Options::test_nodes().with_config("[endpoints.default.limits]\nmax_attempts = 2\n");
    let mut server = Server::start(options).await;
    let (api, ledger) = (server.api(), Ledger::default());
    let load = ledger.load(&api, 3);
    let lines: Vec<String> = PASSES
        .iter()
        .flat_map(|nth| [format!("{point}:{nth}"), format!("{point}:{nth} freeze")])
        .collect();
    server.die_at(&lines);
    // The process that runs began before there was anything to die at.
    server.kill_child().await;
    for hit in 1..=lines.len() {
        let what = format!("{point} is hit {hit} times");
        eventually(&what, LIMIT, async || (hits(&server) >= hit).then_some(())).await;
        if hit.is_multiple_of(2) {
            server.kill_everything().await;
            server.relaunch();
        }
    }
    // Something is done after the last death too.
    let there = ledger.len();
    eventually("work gets done", LIMIT, async || {
        (ledger.len() > there).then_some(())
    })
    .await;
    load.stop().await;
    assert_eq!(hits(&server), 2 * HITS, "{point}");
    conclude(&mut server, &ledger).await;
}

fn hits(server: &Server) -> usize {
    server.log().matches("failpoint reached").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_a_commit() {
    survives("before_commit").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_commit_and_reply() {
    survives("commit_reply").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_a_claim() {
    survives("claim").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_the_blob_appears() {
    survives("blob_before_rename").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_blob_and_its_record() {
    survives("blob_after_rename").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_outputs_and_the_record() {
    survives("before_record").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_record_and_the_outbox() {
    survives("record").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_after_the_record() {
    survives("recorded").await;
}
