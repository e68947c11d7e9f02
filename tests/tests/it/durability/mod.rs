//! What survives: the death of an instance, of the server's working process, of everything at once, a full disk, a stop.
//!
//! Each test ends with the outside checker: what was acknowledged has succeeded, once, with the right pixels
//! ([`darkroom_tests::Ledger`]), and the stopped server's directory agrees with itself ([`darkroom_tests::audit`]).

mod disk_full;
mod failpoints;
mod instances;
mod random;
mod restart;
mod stop;

use std::time::Duration;

use darkroom_tests::{Api, Ledger, Server, audit, eventually, pixels};
use image::RgbImage;
use serde_json::Value;

/// How long one job may take here; the machine may be busy with other tests.
const LIMIT: Duration = Duration::from_secs(180);

/// The last part of every test: all is done, once, the server stops, and its directory is in order.
async fn conclude(server: &mut Server, ledger: &Ledger) -> audit::Found {
    assert!(!ledger.is_empty(), "nothing was acknowledged");
    ledger.settle(&server.api()).await;
    let status = server.stop().await;
    assert!(status.success(), "{status}\n{}", server.log());
    let found = audit::audit(&server.data_dir());
    assert!(
        usize::try_from(found.jobs).is_ok_and(|jobs| jobs >= ledger.len()),
        "{found:?}"
    );
    found
}

/// Waits until the job's prompt is being executed, as its events tell.
async fn executing(api: &Api, id: &str) {
    eventually("the prompt is executed", LIMIT, async || {
        let path = format!("/api/serverless/status?task_id={id}");
        let answer = api
            .try_send(api.request(reqwest::Method::GET, &path))
            .await
            .ok()?;
        let events = answer.json();
        let begun = |event: &Value| event["type"] == "executing" || event["type"] == "execution_start";
        events.as_array()?.iter().any(begun).then_some(())
    })
    .await;
}

/// The states of a job's attempts, in order.
fn attempt_states(job: &Value) -> Vec<&str> {
    job["attempts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|attempt| attempt["state"].as_str())
        .collect()
}

/// What the sleeping nodes of the tests give: 16 x 16 of one colour.
fn square(colour: u32) -> RgbImage {
    pixels::plain(colour, 16, 16)
}
