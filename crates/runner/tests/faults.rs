//! What can go wrong with an instance, against a scripted one: each attempt ends, ends right, and is never done
//! without its files.

mod support;

use std::{path::Path, sync::Arc, time::Duration};

use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_core::{
    AttemptOutcome, InstanceId, attempt::RunningOn, failure::FailureCode, output::OutputBody,
};
use darkroom_runner::{
    Dirs, InstanceAccess, Slot, SlotConfig, SlotEnd,
    link::{InputFile, InputSource, StopCause},
    testing::{MemoryLink, assignment, lease},
};
use serde_json::{Value, json};
use support::{Fake, OnPrompt};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A slot on a scripted instance, with patience in milliseconds.
struct Bench {
    fake: Fake,
    link: Arc<MemoryLink>,
    root: tempfile::TempDir,
    shutdown: CancellationToken,
    evidence: watch::Sender<Option<String>>,
    slot: Option<JoinHandle<SlotEnd>>,
}

impl Bench {
    fn with_dirs() -> Self {
        Self::start(true, |_| {})
    }

    fn over_http() -> Self {
        Self::start(false, |_| {})
    }

    fn start(with_dirs: bool, adjust: impl FnOnce(&mut SlotConfig)) -> Self {
        let root = tempfile::tempdir().unwrap();
        let mut bench = Bench {
            fake: Fake::start(),
            link: MemoryLink::new(),
            shutdown: CancellationToken::new(),
            evidence: watch::channel(None).0,
            slot: None,
            root,
        };
        bench.open_slot(with_dirs, adjust);
        bench
    }

    fn open_slot(&mut self, with_dirs: bool, adjust: impl FnOnce(&mut SlotConfig)) {
        let dirs = Dirs {
            input: self.path("input"),
            output: self.path("output"),
            temp: self.path("temp"),
        };
        for dir in [&dirs.input, &dirs.output, &dirs.temp] {
            std::fs::create_dir_all(dir).unwrap();
        }
        let mut config = SlotConfig::new(self.path("spool"));
        config.unreachable_after = Duration::from_millis(700);
        config.worker_dead_after = Duration::from_millis(100);
        config.slot_hold = Duration::from_millis(500);
        config.free_pause = Duration::from_millis(1);
        adjust(&mut config);
        let access = InstanceAccess {
            instance: instance(),
            base_url: self.fake.base_url(),
            headers: vec![("x-token".into(), "secret".into())],
            client_id: "client-1".into(),
            dirs: with_dirs.then_some(dirs),
        };
        let clock = Arc::new(SystemClock::new());
        let slot = Slot::new(access, self.link.clone(), clock, Arc::new(SystemIds), config).unwrap();
        let slot = slot.with_evidence(self.evidence.subscribe());
        self.slot = Some(tokio::spawn(slot.run(self.shutdown.clone())));
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.root.path().join(name)
    }

    fn write_output(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path("output").join(name), bytes).unwrap();
    }

    async fn slot_end(&mut self) -> SlotEnd {
        let slot = self.slot.take().expect("the slot was not waited for yet");
        let ended = tokio::time::timeout(Duration::from_secs(30), slot).await;
        ended.expect("the slot ends").unwrap()
    }

    /// The slot is still of use: it runs another attempt to its end.
    async fn is_still_of_use(&self) {
        self.fake.on_prompts([]);
        let posts = self.fake.prompts_posted();
        self.link.give(assignment(999, graph()));
        let prompt = self.fake.posted(posts + 1).await;
        self.fake.succeed(&prompt, json!({"1": {"text": ["ok"]}}));
        assert_eq!(self.link.end_of(lease(999)).await.outcome, AttemptOutcome::Done);
    }
}

fn instance() -> InstanceId {
    InstanceId::from_uuid(uuid::Uuid::from_u128(7))
}

fn graph() -> Value {
    json!({"1": {"class_type": "X", "inputs": {}}})
}

fn image(name: &str) -> Value {
    json!({"1": {"images": [{"filename": name, "subfolder": "", "type": "output"}]}})
}

fn code(outcome: &AttemptOutcome) -> FailureCode {
    match outcome {
        AttemptOutcome::Failed(failure) => failure.code,
        other => panic!("not a failure: {other:?}"),
    }
}

fn lost(outcome: &AttemptOutcome) -> &str {
    match outcome {
        AttemptOutcome::Lost { reason } => reason,
        other => panic!("not lost: {other:?}"),
    }
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut entries| entries.next().is_none())
}

#[tokio::test]
async fn a_run_is_told_in_order_and_its_files_are_stored() {
    let mut bench = Bench::with_dirs();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    assert_eq!(prompt.client_id, "client-1");
    let on = bench.link.started_on(lease(1));
    assert_eq!(
        on,
        [RunningOn {
            instance: instance(),
            client_id: "client-1".into(),
            prompt_id: prompt.id.clone()
        }]
    );
    let fake = &bench.fake;
    fake.send(&prompt, "execution_start", json!({"timestamp": 1}));
    fake.send(&prompt, "execution_cached", json!({"nodes": []}));
    let state =
        json!({"nodes": {"1": {"value": 1.0, "max": 2.0, "state": "running", "display_node_id": "1"}}});
    fake.send(&prompt, "progress_state", state);
    fake.send(&prompt, "executing", json!({"node": "1", "display_node": "1"}));
    fake.send_raw(
        &prompt,
        axum::extract::ws::Message::Binary(vec![0, 0, 0, 1, 0, 0, 0, 1, 0xff, 0xd8].into()),
    );
    bench.write_output("a.png", b"pixels");
    bench.write_output("unmentioned.json", b"{}");
    fake.send(
        &prompt,
        "executed",
        json!({"node": "1", "output": {"images": [{"filename": "a.png"}]}}),
    );
    fake.succeed(&prompt, image("a.png"));
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(completion.outcome, AttemptOutcome::Done);
    let stored: Vec<_> = completion
        .outputs
        .iter()
        .map(|o| {
            (
                o.node_id.as_str(),
                o.kind.as_str(),
                bench.link.bytes_of(o).unwrap(),
            )
        })
        .collect();
    assert_eq!(
        stored,
        [("1", "images", b"pixels".to_vec()), ("", "files", b"{}".to_vec())]
    );
    let kinds: Vec<_> = bench
        .link
        .events(lease(1))
        .iter()
        .map(|e| e.kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "execution_start",
            "execution_cached",
            "executing",
            "executed",
            "execution_success",
            "executing"
        ]
    );
    let told = bench.link.told(lease(1));
    let at = |what: &str| {
        told.iter()
            .position(|t| t.contains(what))
            .unwrap_or_else(|| panic!("{what}: {told:?}"))
    };
    assert!(at("progress_state") < at("executing {\"node\":\"1\""));
    assert!(at("executing {\"node\":\"1\"") < at("preview"));
    assert!(at("preview") < at("executed "));
    assert_eq!(completion.events.len(), 1);
    assert!(completion.events[0].data.contains("\"state\":\"running\""));
    let result: Value = serde_json::from_slice(&completion.result.unwrap()).unwrap();
    assert_eq!(result["status"]["status_str"], "success");
    assert_eq!(result["outputs"]["1"]["images"][0]["filename"], "a.png");
    bench.link.close();
    assert_eq!(bench.slot_end().await, SlotEnd::Closed);
    assert_eq!(
        bench.fake.requests("GET /queue"),
        0,
        "nothing is polled when all goes well"
    );
    assert_eq!(bench.fake.requests("GET /history"), 1);
}

#[tokio::test]
async fn success_for_a_file_that_is_not_there_is_a_failure() {
    for bench in [Bench::with_dirs(), Bench::over_http()] {
        bench.link.give(assignment(1, graph()));
        let prompt = bench.fake.posted(1).await;
        bench.fake.succeed(&prompt, image("missing.png"));
        let completion = bench.link.end_of(lease(1)).await;
        assert_eq!(code(&completion.outcome), FailureCode::OutputMissing);
        assert!(completion.outputs.is_empty());
        bench.is_still_of_use().await;
    }
}

#[tokio::test]
async fn a_file_name_that_climbs_is_not_followed() {
    let bench = Bench::with_dirs();
    std::fs::write(bench.path("secret.txt"), b"secret").unwrap();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.succeed(&prompt, image("../secret.txt"));
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(code(&completion.outcome), FailureCode::OutputMissing);
}

#[tokio::test]
async fn without_directories_files_come_over_http() {
    let bench = Bench::over_http();
    bench.fake.add_file("output", "a.png", b"far away");
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.fake.succeed(&prompt, image("a.png"));
    let completion = bench.link.end_of(lease(1)).await;
    assert_eq!(completion.outcome, AttemptOutcome::Done);
    assert_eq!(bench.link.bytes_of(&completion.outputs[0]).unwrap(), b"far away");
    bench.is_still_of_use().await;
    assert!(is_empty(&bench.path("spool")));
}

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
async fn outputs_wait_for_the_blob_store_without_the_slot() {
    let mut bench = Bench::start(true, |config| config.slot_hold = Duration::from_millis(50));
    bench.link.set_blobs_away(true);
    for n in 1..=2 {
        bench.link.give(assignment(n, graph()));
        let prompt = bench.fake.posted(usize::try_from(n).unwrap()).await;
        bench.write_output("same.png", format!("of {n}").as_bytes());
        bench.fake.succeed(&prompt, image("same.png"));
        bench
            .link
            .until(|| bench.link.was_collecting(lease(n)).then_some(()))
            .await;
        assert!(
            bench.link.finished(lease(n)).is_none(),
            "not done before its outputs are stored"
        );
    }
    bench.link.set_blobs_away(false);
    for n in 1..=2 {
        let completion = bench.link.end_of(lease(n)).await;
        assert_eq!(completion.outcome, AttemptOutcome::Done);
        assert_eq!(
            bench.link.bytes_of(&completion.outputs[0]).unwrap(),
            format!("of {n}").into_bytes()
        );
    }
    bench.link.close();
    assert_eq!(bench.slot_end().await, SlotEnd::Closed);
}

#[tokio::test]
async fn outputs_that_cannot_be_stored_for_too_long_give_the_job_back() {
    let bench = Bench::start(true, |config| {
        config.slot_hold = Duration::from_millis(50);
        config.collect_timeout = Duration::from_millis(300);
    });
    bench.link.set_blobs_away(true);
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.write_output("a.png", b"a");
    bench.fake.succeed(&prompt, image("a.png"));
    let completion = bench.link.end_of(lease(1)).await;
    assert!(
        matches!(completion.outcome, AttemptOutcome::Released { .. }),
        "{completion:?}"
    );
    bench.is_still_of_use().await;
}

#[tokio::test]
async fn a_job_cancelled_while_it_waits_for_the_blob_store_ends_cancelled() {
    let bench = Bench::start(true, |config| config.slot_hold = Duration::from_millis(50));
    bench.link.set_blobs_away(true);
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.write_output("a.png", b"a");
    bench.fake.succeed(&prompt, image("a.png"));
    bench
        .link
        .until(|| bench.link.was_collecting(lease(1)).then_some(()))
        .await;
    bench.link.stop(lease(1), StopCause::Cancelled);
    assert_eq!(
        bench.link.end_of(lease(1)).await.outcome,
        AttemptOutcome::Cancelled
    );
}

#[tokio::test]
async fn a_cached_rerun_whose_file_is_gone_takes_the_stored_blob() {
    let bench = Bench::with_dirs();
    bench.link.allow_reuse();
    bench.link.give(assignment(1, graph()));
    let prompt = bench.fake.posted(1).await;
    bench.write_output("a.png", b"once");
    bench.fake.succeed(&prompt, image("a.png"));
    let first = bench.link.end_of(lease(1)).await;
    std::fs::remove_file(bench.path("output").join("a.png")).unwrap();
    bench.link.give(assignment(2, graph()));
    let prompt = bench.fake.posted(2).await;
    let messages = json!([["execution_cached", {"nodes": ["1"], "prompt_id": prompt.id}]]);
    bench.fake.write_history(&prompt, image("a.png"), messages, true);
    bench.fake.send(&prompt, "executing", json!({"node": null}));
    let second = bench.link.end_of(lease(2)).await;
    assert_eq!(second.outcome, AttemptOutcome::Done);
    assert_eq!(second.outputs[0].body, first.outputs[0].body);
}

#[tokio::test]
async fn inputs_are_uploaded_and_their_names_go_into_the_graph() {
    let bench = Bench::with_dirs();
    bench.link.add_input("https://x.example/a.png", &b"bytes"[..]);
    let mut work = assignment(
        1,
        json!({"1": {"class_type": "LoadImage", "inputs": {"image": "?"}}}),
    );
    work.work.files.push(InputFile {
        node_id: "1".into(),
        input: "image".into(),
        file_name: "abc.png".into(),
        source: InputSource::Url("https://x.example/a.png".into()),
    });
    bench.link.give(work.clone());
    let prompt = bench.fake.posted(1).await;
    assert_eq!(bench.fake.uploads(), [("abc.png".to_owned(), b"bytes".to_vec())]);
    assert_eq!(prompt.body["prompt"]["1"]["inputs"]["image"], "up_abc.png");
    bench.fake.succeed(&prompt, json!({}));
    bench.link.end_of(lease(1)).await;

    work.lease = lease(2);
    work.work.files[0].source = InputSource::Url("https://x.example/none.png".into());
    bench.link.give(work);
    let completion = bench.link.end_of(lease(2)).await;
    assert_eq!(code(&completion.outcome), FailureCode::InputUnavailable);
    bench.is_still_of_use().await;
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
async fn a_prompt_that_ended_while_no_server_ran_is_collected_and_an_unknown_one_is_lost() {
    let bench = Bench::with_dirs();
    bench.write_output("a.png", b"a");
    let posted = support::Posted {
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
    lost(&bench.link.end_of(lease(2)).await.outcome);
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
