//! What can go wrong with an instance, against a scripted one: each attempt ends, and ends right.

mod support;

use std::time::Duration;

use darkroom_core::{AttemptOutcome, attempt::RunningOn, failure::FailureCode, output::OutputBody};
use darkroom_runner::{
    SlotEnd,
    testing::{assignment, lease},
};
use serde_json::{Value, json};
use support::{
    bench::*,
    fake::{Manner, OnPrompt, Posted},
};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_node_that_raises_fails_the_job_with_what_it_said() {
    let bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    let error = json!({"node_id": "1", "node_type": "X", "exception_type": "ValueError", "exception_message": "boom"});
    bench.fake.fail(&prompt, "execution_error", error);
    let completion = bench.link.end_of(lease(1)).await;
    let AttemptOutcome::Failed(failure) = &completion.outcome else {
        panic!("{completion:?}")
    };
    assert_eq!(
        (failure.code, failure.node_id.as_deref()),
        (FailureCode::ExecutionError, Some("1"))
    );
    assert_eq!(failure.message, "node 1 (X) raised ValueError: boom");
    assert!(completion.result.is_some());
    bench.is_still_of_use().await;
}

#[tokio::test]
async fn a_refused_graph_fails_the_job_with_the_instances_own_answer() {
    let bench = Bench::with_dirs();
    let body = json!({"error": {"type": "invalid_prompt", "message": "no such class", "details": "", "extra_info": {}},
                      "node_errors": {}});
    bench.fake.on_prompts([OnPrompt::Answer(400, body.clone())]);
    bench.link.give(assignment(1, graph()));
    let completion = bench.link.end_of(lease(1)).await;
    let AttemptOutcome::Failed(failure) = &completion.outcome else {
        panic!("{completion:?}")
    };
    assert_eq!(failure.code, FailureCode::PromptRefused);
    assert_eq!(failure.detail.as_ref().unwrap(), &body);
    bench.is_still_of_use().await;
}

#[tokio::test]
async fn a_prompt_that_was_taken_although_the_answer_was_lost_is_not_posted_again() {
    let bench = Bench::with_dirs();
    bench.fake.on_prompts([OnPrompt::RunAndBreak]);
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.requested("GET /queue").await;
    bench.fake.succeed(&prompt, json!({}));
    assert_eq!(bench.link.end_of(lease(1)).await.outcome, AttemptOutcome::Done);
    assert_eq!(bench.fake.prompts_posted(), 1);
}

#[tokio::test]
async fn a_prompt_that_was_not_taken_is_posted_again_under_a_new_id() {
    let bench = Bench::with_dirs();
    bench.fake.on_prompts([OnPrompt::Break]);
    bench.link.give(assignment(1, graph()));
    let first = bench.fake.posted(1).await;
    let second = bench.fake.posted(2).await;
    assert_ne!(first.id, second.id);
    bench.fake.succeed(&second, json!({}));
    assert_eq!(bench.link.end_of(lease(1)).await.outcome, AttemptOutcome::Done);
    let ids: Vec<_> = bench
        .link
        .started_on(lease(1))
        .into_iter()
        .map(|on| on.prompt_id)
        .collect();
    assert_eq!(ids, [first.id, second.id]);
}

#[tokio::test]
async fn an_instance_that_refuses_our_credentials_is_broken_and_the_job_is_given_back() {
    let mut bench = Bench::with_dirs();
    bench.fake.on_prompts([OnPrompt::Answer(401, json!({}))]);
    bench.link.give(assignment(1, graph()));
    let completion = bench.link.end_of(lease(1)).await;
    assert!(matches!(completion.outcome, AttemptOutcome::Released { .. }));
    assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
}

#[tokio::test]
async fn an_instance_that_cannot_take_prompts_just_now_costs_no_job() {
    for status in [408, 429, 502, 503, 504] {
        let mut bench = Bench::with_dirs();
        let busy = || OnPrompt::Answer(status, json!({}));
        bench.fake.on_prompts([busy(), busy(), busy()]);
        bench.link.give(assignment(1, graph()));
        let completion = bench.link.end_of(lease(1)).await;
        let AttemptOutcome::Released { reason } = &completion.outcome else {
            panic!("{status}: {completion:?}")
        };
        assert!(reason.contains(&status.to_string()), "{reason}");
        assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
    }
}

#[tokio::test]
async fn an_instance_that_was_busy_for_a_moment_gets_the_prompt_again() {
    let bench = Bench::with_dirs();
    bench.fake.on_prompts([OnPrompt::Answer(503, json!({}))]);
    bench.link.give(assignment(1, graph()));
    let second = bench.fake.posted(2).await;
    bench.fake.succeed(&second, json!({}));
    assert_eq!(bench.link.end_of(lease(1)).await.outcome, AttemptOutcome::Done);
}

#[tokio::test]
async fn a_socket_lost_in_mid_run_is_reopened_and_nothing_is_lost() {
    let bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "execution_start", json!({}));
    bench.fake.cut_sockets();
    bench.fake.sockets_opened(2).await;
    bench.write_output("a.png", b"x");
    bench.fake.succeed(&prompt, image("a.png"));
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(completion.outcome, AttemptOutcome::Done);
    assert_eq!(completion.outputs.len(), 1);
}

#[tokio::test]
async fn an_end_while_the_socket_was_away_is_found_and_told() {
    let mut bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "execution_start", json!({}));
    let seen = || (!bench.link.events(lease(1)).is_empty()).then_some(());
    bench.link.until(seen).await;
    // The end comes in the same moment as the cut: nobody hears it.
    bench.fake.cut_sockets();
    let messages = json!([["execution_success", {"prompt_id": prompt.id, "timestamp": 2}]]);
    bench
        .fake
        .write_history(&prompt, json!({"1": {"text": ["made"]}}), messages, true);
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(completion.outcome, AttemptOutcome::Done);
    assert!(matches!(&completion.outputs[0].body, OutputBody::Text { text } if text == "made"));
    let kinds: Vec<_> = bench
        .link
        .events(lease(1))
        .iter()
        .map(|e| e.kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        ["execution_start", "executed", "execution_success", "executing"]
    );
    bench.link.close();
    assert_eq!(bench.slot_end().await, SlotEnd::Closed);
}

#[tokio::test]
async fn a_killed_instance_loses_the_attempt_and_is_reported() {
    let mut bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "execution_start", json!({}));
    bench.fake.kill();
    let completion = bench.link.end_of(lease(1)).await;
    assert!(
        lost(&completion.outcome).contains("refused connections"),
        "{completion:?}"
    );
    assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
}

#[tokio::test]
async fn the_owners_evidence_ends_an_attempt_at_once() {
    let mut bench = Bench::start(true, |config| {
        config.unreachable_after = Duration::from_secs(3600)
    });
    bench.link.give(assignment(1, graph()));
    bench.fake.posted(1).await;
    bench.evidence.send(Some("exit code 9".into())).unwrap();
    let completion = bench.link.end_of(lease(1)).await;
    assert!(lost(&completion.outcome).contains("exit code 9"));
    assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
}

#[tokio::test]
async fn a_restart_between_prompt_and_history_is_lost_and_never_done() {
    let mut bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "execution_start", json!({}));
    bench.fake.send(&prompt, "execution_success", json!({}));
    bench
        .link
        .until(|| (bench.link.events(lease(1)).len() == 2).then_some(()))
        .await;
    bench.fake.kill();
    bench.fake.boot();
    let completion = bench.link.end_of(lease(1)).await;
    lost(&completion.outcome);
    bench.is_still_of_use().await;
}

#[tokio::test]
async fn a_dead_worker_is_found_by_a_prompt_that_nobody_takes() {
    let mut bench = Bench::with_dirs();
    bench.fake.on_prompts([OnPrompt::NeverTake]);
    bench.link.give(assignment(1, graph()));
    let completion = bench.link.end_of(lease(1)).await;
    assert!(
        lost(&completion.outcome).contains("worker thread"),
        "{completion:?}"
    );
    assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
}

#[tokio::test]
async fn silence_beyond_the_stall_timeout_is_lost() {
    let mut bench = Bench::with_dirs();
    let mut work = assignment(1, graph());
    work.bounds.stall_timeout = Duration::from_millis(300);
    bench.link.give(work);
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "executing", json!({"node": "1"}));
    let completion = bench.link.end_of(lease(1)).await;
    assert!(
        lost(&completion.outcome).contains("no sign of life"),
        "{completion:?}"
    );
    assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
}

#[tokio::test]
async fn out_of_memory_frees_and_runs_again_once() {
    let bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let oom = json!({"node_id": "1", "node_type": "X", "exception_type": "torch.OutOfMemoryError",
                     "exception_message": "CUDA out of memory"});
    let first = bench.fake.posted(1).await;
    bench.fake.fail(&first, "execution_error", oom.clone());
    let second = bench.fake.posted(2).await;
    assert_eq!(bench.fake.requests("POST /free"), 1);
    assert_ne!(first.id, second.id);
    let kinds: Vec<_> = bench
        .link
        .events(lease(1))
        .iter()
        .map(|e| e.kind.as_str())
        .collect();
    assert!(
        !kinds.contains(&"execution_error"),
        "a forgiven error is not told: {kinds:?}"
    );
    bench.fake.succeed(&second, json!({}));
    assert_eq!(bench.link.end_of(lease(1)).await.outcome, AttemptOutcome::Done);

    bench.link.give(assignment(2, graph()));
    for n in 3..=4 {
        let prompt = bench.fake.posted(n).await;
        bench.fake.fail(&prompt, "execution_error", oom.clone());
    }
    let completion = bench.link.end_of(lease(2)).await;
    assert_eq!(code(&completion.outcome), FailureCode::OutOfMemory);
    bench.is_still_of_use().await;
}

#[tokio::test]
async fn out_of_memory_again_gives_the_instance_up_and_tells_nobody_of_a_failure() {
    let mut bench = Bench::with_dirs();
    let mut work = assignment(1, graph());
    work.may_restart = true;
    bench.link.give(work);
    let oom = json!({"node_id": "1", "node_type": "X", "exception_type": "RuntimeError",
                     "exception_message": "CUDA error: out of memory"});
    for n in 1..=2 {
        let prompt = bench.fake.posted(n).await;
        bench.fake.fail(&prompt, "execution_error", oom.clone());
    }
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(code(&completion.outcome), FailureCode::OutOfMemory);
    assert!(completion.result.is_none(), "{completion:?}");
    let events = bench.link.events(lease(1));
    assert!(
        events.iter().all(|e| e.kind.as_str() != "execution_error"),
        "{events:?}"
    );
    assert!(
        events.iter().any(|e| e.data.contains("started anew")),
        "{events:?}"
    );
    let SlotEnd::InstanceBroken { reason } = bench.slot_end().await else {
        panic!("the instance is to be replaced")
    };
    assert!(reason.contains("out of memory in node 1"), "{reason}");
}

#[tokio::test]
async fn an_instance_that_takes_connections_and_answers_nothing_claims_nothing() {
    let mut bench = Bench::unstarted();
    bench.fake.answers(Manner::Silent);
    bench.open_slot(true, impatient);
    bench.link.give(assignment(1, graph()));
    let SlotEnd::InstanceBroken { reason } = bench.slot_end().await else {
        panic!("it is broken")
    };
    assert!(reason.contains("no socket"), "{reason}");
    assert!(
        bench.link.finished(lease(1)).is_none(),
        "its job is somebody else's"
    );
}

#[tokio::test]
async fn an_instance_that_falls_silent_before_it_begins_loses_the_attempt() {
    let mut bench = Bench::start(true, impatient);
    bench.fake.on_prompts([OnPrompt::NeverTake]);
    bench.fake.sockets_opened(1).await;
    bench.fake.answers(Manner::Silent);
    bench.link.give(assignment(1, graph()));
    let completion = bench.link.end_of(lease(1)).await;
    assert!(
        lost(&completion.outcome).contains("answered nothing"),
        "{completion:?}"
    );
    assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
}

#[tokio::test]
async fn an_instance_that_answers_garbage_loses_the_attempt() {
    let mut bench = Bench::start(true, impatient);
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "executing", json!({"node": "1"}));
    bench.fake.answers(Manner::Garbage);
    // Announced, and never to be confirmed.
    bench
        .fake
        .send(&prompt, "execution_success", json!({"timestamp": 2}));
    bench.fake.send(&prompt, "executing", json!({"node": null}));
    let completion = bench.link.end_of(lease(1)).await;
    assert!(lost(&completion.outcome).contains("no ComfyUI"), "{completion:?}");
    assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
}

#[tokio::test]
async fn garbage_in_answer_to_a_prompt_loses_the_attempt() {
    let mut bench = Bench::start(true, impatient);
    bench.fake.sockets_opened(1).await;
    bench.fake.answers(Manner::Garbage);
    bench.link.give(assignment(1, graph()));
    let completion = bench.link.end_of(lease(1)).await;
    assert!(lost(&completion.outcome).contains("no ComfyUI"), "{completion:?}");
    assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
}

#[tokio::test]
async fn a_prompt_left_by_another_server_is_followed_and_not_posted_again() {
    let mut bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.send(&prompt, "execution_start", json!({}));
    // The server goes, the prompt stays.
    bench.shutdown.cancel();
    assert_eq!(bench.slot_end().await, SlotEnd::Closed);
    assert!(bench.link.finished(lease(1)).is_none());
    bench.shutdown = CancellationToken::new();
    bench.open_slot(true, |_| {});
    let mut work = assignment(1, graph());
    work.resume = bench.link.started_on(lease(1)).pop();
    bench.link.give(work);
    bench.fake.sockets_opened(2).await;
    bench.write_output("a.png", b"a");
    bench.fake.succeed(&prompt, image("a.png"));
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(completion.outcome, AttemptOutcome::Done);
    assert_eq!(bench.fake.prompts_posted(), 1);
}

#[tokio::test]
async fn a_prompt_that_ended_while_no_server_ran_is_collected_and_an_unknown_one_is_given_back() {
    let bench = Bench::with_dirs();
    bench.write_output("a.png", b"a");
    let posted = Posted {
        id: "old".into(),
        client_id: "client-1".into(),
        body: Value::Null,
    };
    bench.fake.write_history(
        &posted,
        image("a.png"),
        json!([["execution_success", {"timestamp": 1}]]),
        true,
    );
    for (n, prompt_id) in [(1, "old"), (2, "never")] {
        let mut work = assignment(n, graph());
        work.resume = Some(RunningOn {
            instance: instance(),
            client_id: "client-1".into(),
            prompt_id: prompt_id.into(),
        });
        bench.link.give(work);
    }
    assert_eq!(bench.link.end_of(lease(1)).await.outcome, AttemptOutcome::Done);
    let unknown = bench.link.end_of(lease(2)).await.outcome;
    assert!(matches!(unknown, AttemptOutcome::Released { .. }), "{unknown:?}");
    bench.is_still_of_use().await;
}

#[tokio::test]
async fn an_idle_instance_that_dies_is_reported() {
    let mut bench = Bench::with_dirs();
    bench.fake.sockets_opened(1).await;
    bench.fake.kill();
    assert!(matches!(bench.slot_end().await, SlotEnd::InstanceBroken { .. }));
}

#[tokio::test]
async fn garbage_on_the_socket_is_passed_over() {
    use axum::extract::ws::Message;
    let bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    for text in [
        "",
        "[]",
        "{\"type\":5}",
        "not json",
        "{\"type\":\"executed\",\"data\":{\"node\":5}}",
    ] {
        bench.fake.send_raw(&prompt, Message::Text(text.into()));
    }
    for bytes in [
        vec![],
        vec![0],
        vec![0, 0, 0, 1],
        vec![0, 0, 0, 4, 255, 255, 255, 255],
    ] {
        bench.fake.send_raw(&prompt, Message::Binary(bytes.into()));
    }
    bench.fake.succeed(&prompt, json!({}));
    assert_eq!(bench.link.end_of(lease(1)).await.outcome, AttemptOutcome::Done);
    bench.is_still_of_use().await;
}
