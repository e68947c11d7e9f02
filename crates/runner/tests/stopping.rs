//! Attempts that have to stop, on a scripted instance.

mod support;

use std::time::Duration;

use darkroom_core::{AttemptOutcome, failure::FailureCode};
use darkroom_runner::{
    SlotEnd,
    link::StopCause,
    testing::{assignment, lease},
};
use serde_json::json;
use support::{bench::*, fake::OnPrompt};

#[tokio::test]
async fn a_cancelled_run_is_interrupted_and_the_slot_goes_on() {
    let bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "executing", json!({"node": "1"}));
    bench.link.stop(lease(1), StopCause::Cancelled);
    assert_eq!(
        bench.link.end_of(lease(1)).await.outcome,
        AttemptOutcome::Cancelled
    );
    assert_eq!(bench.fake.requests("POST /interrupt"), 1);
    let kinds: Vec<_> = bench
        .link
        .events(lease(1))
        .iter()
        .map(|e| e.kind.as_str())
        .collect();
    assert!(kinds.contains(&"execution_interrupted"), "{kinds:?}");
    bench.is_still_of_use().await;
}

#[tokio::test]
async fn a_cancelled_pending_prompt_is_taken_out_of_the_queue() {
    let bench = Bench::start(true, |config| config.worker_dead_after = Duration::from_secs(60));
    bench.fake.on_prompts([OnPrompt::NeverTake]);
    bench.link.give(assignment(1, graph()));
    bench.fake.posted(1).await;
    bench.link.stop(lease(1), StopCause::Cancelled);
    assert_eq!(
        bench.link.end_of(lease(1)).await.outcome,
        AttemptOutcome::Cancelled
    );
    assert_eq!(bench.fake.requests("POST /interrupt"), 0);
    bench.is_still_of_use().await;
}

#[tokio::test]
async fn a_node_that_ignores_interrupts_ends_cancelled_and_the_instance_is_replaced() {
    let mut bench = Bench::with_dirs();
    bench.fake.ignore_interrupts();
    let mut work = assignment(1, graph());
    work.bounds.cancel_grace = Duration::from_millis(300);
    bench.link.give(work);
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "executing", json!({"node": "1"}));
    bench.link.stop(lease(1), StopCause::Cancelled);
    assert_eq!(
        bench.link.end_of(lease(1)).await.outcome,
        AttemptOutcome::Cancelled
    );
    assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
}

#[tokio::test]
async fn a_run_that_takes_too_long_is_interrupted_and_failed() {
    let bench = Bench::with_dirs();
    let mut work = assignment(1, graph());
    work.bounds.execution_timeout = Duration::from_millis(200);
    bench.link.give(work);
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "executing", json!({"node": "1"}));
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(code(&completion.outcome), FailureCode::ExecutionTimeout);
    assert_eq!(bench.fake.requests("POST /interrupt"), 1);
    bench.is_still_of_use().await;
}

#[tokio::test]
async fn a_stale_attempt_stops_its_prompt_and_writes_nothing() {
    let bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "executing", json!({"node": "1"}));
    bench.link.make_stale(lease(1));
    bench.fake.requested("POST /interrupt").await;
    bench.is_still_of_use().await;
    assert!(bench.link.finished(lease(1)).is_none());
    assert!(bench.link.was_abandoned(lease(1)));
}

#[tokio::test]
async fn an_instance_that_never_answers_the_post_can_still_be_cancelled() {
    let mut bench = Bench::with_dirs();
    bench.fake.on_prompts([OnPrompt::Hang]);
    let mut work = assignment(1, graph());
    work.bounds.cancel_grace = Duration::from_millis(300);
    bench.link.give(work);
    bench.fake.posted(1).await;
    bench.link.stop(lease(1), StopCause::Cancelled);
    assert_eq!(
        bench.link.end_of(lease(1)).await.outcome,
        AttemptOutcome::Cancelled
    );
    assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
}
