//! SQLite under the conformance suite; beside it what only SQLite promises.

mod assets_model;
mod commits;
mod model;
mod power;
mod prepared;
mod queue_model;
mod writer;

use std::sync::Arc;

use super::{Options, SqliteStore};
use crate::conformance::{self, Test, TestClock, World};

async fn open() -> World {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let store = SqliteStore::open(&dir.path().join("darkroom.db"), Options::new(clock.clone())).unwrap();
    World::new(vec![Arc::new(store)], clock, Box::new(dir))
}

async fn run(tests: &[Test]) {
    conformance::run(tests, open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submits() {
    run(conformance::submits::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims() {
    run(conformance::claims::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases() {
    run(conformance::leases::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn line() {
    run(conformance::line::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endings() {
    run(conformance::endings::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retention() {
    run(conformance::retention::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events() {
    run(conformance::events::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists() {
    run(conformance::lists::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history() {
    run(conformance::history::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues() {
    run(conformance::queues::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queue_endings() {
    run(conformance::queue_endings::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files() {
    run(conformance::files::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn assets() {
    run(conformance::assets::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn catalog() {
    run(conformance::catalog::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access() {
    run(conformance::access::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wakes() {
    run(conformance::wakes::TESTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workflows() {
    run(conformance::workflows::TESTS).await;
}
