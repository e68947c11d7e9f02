//! Workers that are played by the test, on a real store.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use darkroom_core::{
    EndpointName, InstanceId, InstanceState, JobId, JobState, event::EventKind, failure::FailureCode,
    presence::Heard,
};
use darkroom_store::jobs::Claim;
use serde_json::{Value, json, value::RawValue};
use tokio_util::sync::CancellationToken;

use super::{
    CLAIMING, Phase, Refused, Worker,
    result::{Posted, Received},
    take::Taken,
};
use crate::service::{
    jobs::Cancelled,
    testing::Bench,
    workers::{WorkerSubmit, progress},
};

const WORKERS: &str = "[endpoints.w]\nkind = \"worker\"\n[endpoints.other]\nkind = \"worker\"\n";

fn bench() -> Bench {
    Bench::configured(WORKERS)
}

fn w() -> EndpointName {
    "w".parse().unwrap()
}

async fn submit(bench: &Bench, input: &str) -> JobId {
    let submit = WorkerSubmit {
        tenant: "t".parse().unwrap(),
        endpoint: w(),
        input: Bytes::copy_from_slice(input.as_bytes()),
        wishes: Default::default(),
        webhook: None,
        base_url: String::new(),
        s3_config: None,
        dialect: "runpod",
        request_id: "r".into(),
    };
    bench.service.submit_worker(submit).await.unwrap()
}

async fn worker(bench: &Bench, name: &str) -> Arc<Worker> {
    bench.service.worker_arrives(&w(), name, None).await.unwrap()
}

/// Takes what is there.
async fn take(bench: &Bench, worker: &Arc<Worker>, wanted: usize) -> Vec<Taken> {
    let stopping = CancellationToken::new();
    let taken = bench.service.take_for_worker(worker, false, wanted, &stopping);
    let mut taken = tokio::time::timeout(Duration::from_secs(60), taken)
        .await
        .unwrap();
    taken.iter_mut().for_each(Taken::handed_over);
    taken
}

async fn take_one(bench: &Bench, worker: &Arc<Worker>) -> JobId {
    take(bench, worker, 1).await.pop().expect("a job waits").job
}

fn output(json: &'static str) -> Posted {
    Posted {
        output: Some(Bytes::from_static(json.as_bytes())),
        ..Posted::default()
    }
}

async fn post(bench: &Bench, worker: &Arc<Worker>, job: JobId, posted: Posted) -> Received {
    bench.service.worker_result(worker, job, posted).await.unwrap()
}

async fn result_of(bench: &Bench, job: JobId) -> Option<String> {
    let payload = bench.record(job).await.result?;
    let bytes = bench.service.read_payload(&payload).await.unwrap().unwrap();
    Some(String::from_utf8(bytes.to_vec()).unwrap())
}

/// What time alone leads to: it passes, and the keeper looks.
async fn pass(bench: &Bench, time: Duration) {
    bench.clock.advance(time);
    bench.service.look_after_workers(Duration::ZERO).await;
}

async fn waits(bench: &Bench) -> u64 {
    let counters = bench.service.store.counters().await.unwrap();
    counters.get(&w()).map_or(0, |c| c.queued)
}

#[tokio::test]
async fn a_result_counts_once_and_from_its_worker_alone() {
    let bench = bench();
    let (a, b) = (worker(&bench, "a").await, worker(&bench, "b").await);
    let job = submit(&bench, r#"{"n": 1}"#).await;
    let taken = take(&bench, &a, 1).await;
    assert_eq!((taken[0].job, &taken[0].input[..]), (job, &br#"{"n": 1}"#[..]));
    assert_eq!(post(&bench, &b, job, output("2")).await, Received::NotTheirs);
    assert_eq!(bench.record(job).await.state, JobState::Running);
    assert_eq!(
        post(&bench, &a, job, output("{\"zh\": \"你好\"}")).await,
        Received::Recorded
    );
    assert_eq!(
        result_of(&bench, job).await.unwrap(),
        "{\"zh\": \"你好\"}",
        "verbatim"
    );
    assert_eq!(
        post(&bench, &a, job, output("3")).await,
        Received::TooLate,
        "a duplicate"
    );
    assert_eq!(post(&bench, &b, job, output("3")).await, Received::NotTheirs);
    assert_eq!(result_of(&bench, job).await.unwrap(), "{\"zh\": \"你好\"}");
    let nobody = JobId::new(&*bench.service.ids);
    assert_eq!(post(&bench, &a, nobody, output("3")).await, Received::Unknown);
    let elsewhere = bench
        .service
        .worker_arrives(&"other".parse().unwrap(), "a", None)
        .await
        .unwrap();
    assert_eq!(
        post(&bench, &elsewhere, job, output("3")).await,
        Received::Unknown
    );
    assert_eq!(a.occupied(), 0);
}

#[tokio::test]
async fn an_error_fails_the_job_and_keeps_what_came_with_it() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "{}").await;
    take_one(&bench, &a).await;
    let posted = Posted {
        output: Some(Bytes::from_static(b"{\"images\": [1]}")),
        error: Some(json!("partial")),
        wears_out: false,
    };
    assert_eq!(post(&bench, &a, job, posted).await, Received::Recorded);
    let record = bench.record(job).await;
    assert_eq!(record.state, JobState::Failed);
    let failure = record.failure.unwrap();
    assert_eq!(
        (failure.code, failure.detail),
        (FailureCode::ExecutionError, Some(json!("partial")))
    );
    assert_eq!(result_of(&bench, job).await.unwrap(), "{\"images\": [1]}");
}

/// A worker's side of handing a job back: whoever waits for the job may have it first.
async fn has_given_all_back(worker: &Worker) {
    until(|| worker.occupied() == 0).await;
}

/// Waits for a condition, for a minute at most.
async fn until(holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    waited.expect("what is waited for happens within a minute");
}

#[tokio::test]
async fn a_job_whose_poll_went_away_waits_again_and_costs_no_attempt() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "{}").await;
    let taken = bench
        .service
        .take_for_worker(&a, false, 1, &CancellationToken::new())
        .await;
    assert_eq!(waits(&bench).await, 0);
    drop(taken);
    let b = worker(&bench, "b").await;
    assert_eq!(take_one(&bench, &b).await, job);
    let record = bench.record(job).await;
    assert_eq!((record.attempts, record.lost_attempts), (2, 0));
    has_given_all_back(&a).await;
}

#[tokio::test]
async fn a_waiting_poll_gets_what_comes_and_takes_no_more_than_it_asked_for() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let (service, of) = (bench.service.clone(), a.clone());
    let polling = tokio::spawn(async move {
        let mut taken = service
            .take_for_worker(&of, false, 3, &CancellationToken::new())
            .await;
        taken.iter_mut().for_each(Taken::handed_over);
        taken.len()
    });
    until(|| a.is_listening()).await;
    submit(&bench, "1").await;
    let first = tokio::time::timeout(Duration::from_secs(60), polling)
        .await
        .unwrap()
        .unwrap();
    for n in ["2", "3", "4", "5"] {
        submit(&bench, n).await;
    }
    assert_eq!(take(&bench, &a, 3).await.len(), 3);
    assert_eq!(waits(&bench).await, 1);
    assert_eq!(a.occupied(), first + 3);
    assert_eq!(
        a.activity().slots(),
        4,
        "it said so itself: three more than the one it has"
    );
}

#[tokio::test]
async fn a_job_that_its_worker_forgot_runs_again_and_fails_when_it_is_forgotten_again() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "{}").await;
    for round in 1..=2 {
        assert_eq!(take_one(&bench, &a).await, job);
        let ping = Heard::Ping { jobs: vec![] };
        bench.service.worker_heard(&a, &ping);
        pass(&bench, Duration::ZERO).await;
        assert_eq!(
            bench.record(job).await.state,
            JobState::Running,
            "it may be on its way"
        );
        for seconds in [20, 10] {
            bench.clock.advance(Duration::from_secs(seconds));
            bench.service.worker_heard(&a, &ping);
        }
        pass(&bench, Duration::ZERO).await;
        let record = bench.record(job).await;
        assert_eq!(record.lost_attempts, round);
        let expected = if round == 1 {
            JobState::Queued
        } else {
            JobState::Failed
        };
        assert_eq!(record.state, expected);
    }
    let failure = bench.record(job).await.failure.unwrap();
    assert!(
        failure.message.contains("posted no result"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn a_worker_that_falls_silent_is_gone_and_its_jobs_run_elsewhere() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "{}").await;
    take_one(&bench, &a).await;
    bench.service.worker_heard(&a, &Heard::Ping { jobs: vec![job] });
    pass(&bench, Duration::from_secs(40)).await;
    assert_eq!(bench.record(job).await.state, JobState::Running);
    pass(&bench, Duration::from_secs(5)).await;
    assert_eq!(bench.record(job).await.state, JobState::Queued);
    let record = bench.service.instance(a.instance).await.unwrap();
    assert_eq!(record.state, InstanceState::Stopped);
    assert!(record.state_reason.contains("45 s"), "{}", record.state_reason);
    assert_eq!(post(&bench, &a, job, output("1")).await, Received::TooLate);
    let again = worker(&bench, "a").await;
    assert_ne!(again.instance, a.instance, "a new life");
    assert_eq!(take_one(&bench, &again).await, job);
}

#[tokio::test]
async fn a_gap_in_our_own_time_is_nobodys_silence() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "{}").await;
    take_one(&bench, &a).await;
    bench.service.worker_heard(&a, &Heard::Ping { jobs: vec![job] });
    bench.clock.advance(Duration::from_secs(600));
    bench.service.look_after_workers(Duration::from_secs(600)).await;
    assert_eq!(bench.record(job).await.state, JobState::Running);
}

#[tokio::test]
async fn a_cancel_ends_a_running_job_at_once_and_its_worker_is_told() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "{}").await;
    take_one(&bench, &a).await;
    assert_eq!(bench.service.cancel(None, job).await.unwrap(), Cancelled::Now);
    assert_eq!(bench.record(job).await.state, JobState::Cancelled);
    for _ in 0..2 {
        let told = bench.service.jobs_to_stop(&a, &CancellationToken::new()).await;
        assert_eq!(told, [job], "until it was told");
    }
    a.was_told_to_stop(&[job]);
    let stopping = CancellationToken::new();
    stopping.cancel();
    assert!(bench.service.jobs_to_stop(&a, &stopping).await.is_empty());
    assert_eq!(a.occupied(), 1, "it may be at it still");
    assert_eq!(post(&bench, &a, job, output("1")).await, Received::TooLate);
    assert_eq!(bench.record(job).await.state, JobState::Cancelled);
    assert_eq!(a.occupied(), 0);
}

#[tokio::test]
async fn a_job_that_its_worker_may_be_at_is_not_handed_to_it_again() {
    let bench = bench();
    let (a, b) = (worker(&bench, "a").await, worker(&bench, "b").await);
    let job = submit(&bench, "{}").await;
    take_one(&bench, &a).await;
    bench.service.cancel(None, job).await.unwrap();
    bench.service.retry(None, job).await.unwrap();
    // Alone it gets nothing, as often as it asks.
    let held_up = tokio::time::timeout(Duration::from_secs(1), take(&bench, &a, 1)).await;
    assert!(held_up.is_err_and(|_| true));
    assert_eq!(bench.record(job).await.attempts, 1);
    assert_eq!(take_one(&bench, &b).await, job);
}

#[tokio::test]
async fn a_job_that_runs_too_long_fails_at_once_and_its_worker_is_told() {
    let bench = Bench::configured(
        "[endpoints.w]\nkind = \"worker\"\n[endpoints.w.limits]\nexecution_timeout = \"60s\"\n",
    );
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "{}").await;
    take_one(&bench, &a).await;
    bench.clock.advance(Duration::from_secs(61));
    bench.service.worker_heard(&a, &Heard::Ping { jobs: vec![job] });
    pass(&bench, Duration::ZERO).await;
    let failure = bench.record(job).await.failure.unwrap();
    assert_eq!(failure.code, FailureCode::ExecutionTimeout);
    assert_eq!(
        bench.service.jobs_to_stop(&a, &CancellationToken::new()).await,
        [job]
    );
}

#[tokio::test]
async fn intermediate_output_is_shown_until_the_end_and_chunks_are_kept() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "{}").await;
    take_one(&bench, &a).await;
    let half = RawValue::from_string("\"50%\"".to_owned()).unwrap();
    bench.service.worker_progress(&a, job, &half);
    let shown = bench.service.last_progress(job).unwrap();
    assert_eq!(progress::output_of(&shown).unwrap().get(), "\"50%\"");
    let large = format!("\"{}\"", "x".repeat(40_000));
    for chunk in ["\"a\"", "{\"n\": 1}", &large] {
        let kept = bench
            .service
            .worker_chunk(&a, job, Bytes::copy_from_slice(chunk.as_bytes()));
        assert_eq!(kept.await.unwrap(), Received::Recorded);
    }
    post(&bench, &a, job, output("[]")).await;
    bench.service.worker_progress(&a, job, &half);
    assert!(bench.service.last_progress(job).is_none());
    let late = bench.service.worker_chunk(&a, job, Bytes::from_static(b"1"));
    assert_eq!(late.await.unwrap(), Received::TooLate);
    let events = bench.service.events(job, 0).await.unwrap();
    let chunks: Vec<Value> = events
        .iter()
        .filter(|event| event.kind == EventKind::Chunk)
        .map(|event| serde_json::from_str(&event.data).unwrap())
        .collect();
    assert_eq!(chunks[..2], [json!({"output": "a"}), json!({"output": {"n": 1}})]);
    assert_eq!(chunks[2]["size"], 40_002);
    assert!(
        bench
            .blob_keys()
            .await
            .contains(&chunks[2]["blob"].as_str().unwrap().to_owned())
    );
}

#[tokio::test]
async fn a_worker_that_drains_gets_nothing_and_one_that_leaves_is_let_go() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    a.enter(Phase::Draining);
    submit(&bench, "{}").await;
    let (service, of) = (bench.service.clone(), a.clone());
    let polling = tokio::spawn(async move {
        service
            .take_for_worker(&of, false, 1, &CancellationToken::new())
            .await
            .len()
    });
    until(|| a.is_listening()).await;
    a.enter(Phase::Leaving);
    let released = tokio::time::timeout(Duration::from_secs(60), polling)
        .await
        .unwrap();
    assert_eq!(released.unwrap(), 0);
    assert_eq!(waits(&bench).await, 1);
    a.enter(Phase::Serving);
    assert_eq!(a.phase(), Phase::Leaving, "a phase never goes back");
}

#[tokio::test]
async fn a_worker_that_asks_to_be_replaced_gets_no_more() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "{}").await;
    take_one(&bench, &a).await;
    let posted = Posted {
        wears_out: true,
        ..output("1")
    };
    assert_eq!(post(&bench, &a, job, posted).await, Received::Recorded);
    assert_eq!(a.phase(), Phase::Draining);
    let row = bench.service.instance(a.instance).await.unwrap();
    assert_eq!(row.state, InstanceState::Draining);
    // What the planner does with one that drains and holds nothing.
    bench.service.worker_dismissed(a.instance).await;
    let row = bench.service.instance(a.instance).await.unwrap();
    assert_eq!(row.state, InstanceState::Stopped);
    let again = worker(&bench, "a").await;
    let next = submit(&bench, "{}").await;
    assert_eq!(
        take_one(&bench, &again).await,
        next,
        "it came again, and is a new one"
    );
    for job in [job, next] {
        let of = bench.service.worker_of(&bench.record(job).await).await;
        assert_eq!(of.unwrap().as_deref(), Some("a"), "how it calls itself");
    }
}

#[tokio::test]
async fn a_job_that_was_cancelled_and_is_retried_is_handed_out_again() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "{}").await;
    // Claimed by a server that is gone: no worker of this one is known to have it.
    let claim = Claim {
        endpoint: w(),
        instance: InstanceId::new(&*bench.service.ids),
        owner: bench.service.node.clone(),
        loaded_models: vec![],
        offers: None,
        lease: Duration::from_secs(30),
        except: vec![],
        max_running_per_tenant: 0,
    };
    bench.service.store.claim(claim).await.unwrap().unwrap();
    bench.service.cancel(None, job).await.unwrap();
    assert_eq!(bench.record(job).await.state, JobState::Cancelled);
    bench.service.retry(None, job).await.unwrap();
    assert_eq!(take_one(&bench, &a).await, job);
}

#[tokio::test]
async fn a_name_belongs_to_the_key_it_came_with() {
    let bench = bench();
    let service = &bench.service;
    let first = service.worker_arrives(&w(), "a", Some("k1")).await.unwrap();
    let same = service.worker_arrives(&w(), "a", Some("k1")).await.unwrap();
    assert_eq!(first.instance, same.instance);
    for other in [Some("k2"), None] {
        let refused = service.worker_arrives(&w(), "a", other).await;
        assert!(matches!(refused, Err(Refused::Name(_))));
    }
    for bad in ["", "a\nb", &"x".repeat(200)] {
        assert!(service.worker_arrives(&w(), bad, None).await.is_err(), "{bad:?}");
    }
    assert!(
        service
            .worker_arrives(&"nobody".parse().unwrap(), "a", None)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn after_a_restart_a_worker_goes_on_with_what_it_holds() {
    let bench = bench();
    let a = bench.service.worker_arrives(&w(), "a", Some("k")).await.unwrap();
    let (done, cancelled) = (submit(&bench, "1").await, submit(&bench, "2").await);
    assert_eq!(take(&bench, &a, 2).await.len(), 2);
    // The next server knows rows only.
    bench.service.pull.remove(&a);
    bench.service.store.cancel(None, cancelled).await.unwrap();
    let record = bench.service.instance(a.instance).await.unwrap();
    let attempts = bench.service.store.open_attempts(None).await.unwrap();
    assert!(bench.service.worker_returns(&record, &attempts).await.unwrap());
    let again = bench.service.worker(&w(), "a").unwrap();
    assert!(again.may_speak(Some("k")) && !again.may_speak(None));
    assert_eq!(bench.record(cancelled).await.state, JobState::Cancelled);
    assert_eq!(post(&bench, &again, done, output("1")).await, Received::Recorded);
    assert_eq!(bench.record(done).await.attempts, 1);
}

/// A worker we start: what it is told of, but no process.
fn managed(bench: &Bench) -> Arc<Worker> {
    let id = InstanceId::new(&*bench.service.ids);
    let (interval, now) = (Duration::from_secs(10), bench.service.clock.monotonic());
    bench
        .service
        .worker_started(Worker::managed(w(), id, Arc::default(), interval, now))
}

#[tokio::test]
async fn a_blob_store_that_is_away_fails_nobody() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let large = format!("\"{}\"", "x".repeat(40_000));
    let jobs = [submit(&bench, &large).await, submit(&bench, &large).await];
    bench.blobs.fail_reads(u32::MAX);
    // Long enough to claim each of them twenty times over, if nobody paused.
    let taken = tokio::time::timeout(Duration::from_secs(3), take(&bench, &a, 2)).await;
    assert!(taken.is_err_and(|_| true));
    for job in jobs {
        let record = bench.record(job).await;
        assert!(record.attempts <= 1, "{record:?}");
        assert_ne!(record.state, JobState::Failed);
    }
    bench.blobs.fail_reads(0);
    let b = worker(&bench, "b").await;
    assert_eq!(take(&bench, &b, 2).await.len(), 2);
}

#[tokio::test]
async fn who_asks_while_the_server_stops_costs_no_job_anything() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "1").await;
    let stopping = CancellationToken::new();
    stopping.cancel();
    for _ in 0..30 {
        let taken = bench.service.take_for_worker(&a, false, 1, &stopping).await;
        assert!(taken.is_empty());
    }
    assert_eq!(bench.record(job).await.attempts, 0);
}

#[tokio::test]
async fn large_chunks_before_and_after_a_restart_are_both_kept() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "1").await;
    take_one(&bench, &a).await;
    let large = |letter: &str| Bytes::from(format!("\"{}\"", letter.repeat(40_000)));
    bench.service.worker_chunk(&a, job, large("a")).await.unwrap();
    bench.service.pull.remove(&a);
    let record = bench.service.instance(a.instance).await.unwrap();
    let attempts = bench.service.store.open_attempts(None).await.unwrap();
    assert!(bench.service.worker_returns(&record, &attempts).await.unwrap());
    let again = bench.service.worker(&w(), "a").unwrap();
    bench.service.worker_chunk(&again, job, large("b")).await.unwrap();
    let events = bench.service.events(job, 0).await.unwrap();
    let mut kept = Vec::new();
    for event in events.iter().filter(|event| event.kind == EventKind::Chunk) {
        let chunk: Value = serde_json::from_str(&event.data).unwrap();
        let blob = chunk["blob"].as_str().unwrap().parse().unwrap();
        let size = chunk["size"].as_u64().unwrap();
        let payload = darkroom_core::Payload::Blob { key: blob, size };
        kept.push(bench.service.read_payload(&payload).await.unwrap().unwrap());
    }
    assert_eq!(kept, [large("a"), large("b")]);
}

#[tokio::test]
async fn of_two_results_at_the_same_time_one_counts_and_stays_what_it_is() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    for _ in 0..5 {
        let job = submit(&bench, "1").await;
        take_one(&bench, &a).await;
        let large = |letter: &str, length| format!("\"{}\"", letter.repeat(length));
        let posted = |output: &str| Posted {
            output: Some(Bytes::copy_from_slice(output.as_bytes())),
            ..Posted::default()
        };
        let (first, second) = (large("a", 40_000), large("b", 50_000));
        let (one, two) = tokio::join!(
            post(&bench, &a, job, posted(&first)),
            post(&bench, &a, job, posted(&second))
        );
        let counts = match (one, two) {
            (Received::Recorded, Received::TooLate) => first,
            (Received::TooLate, Received::Recorded) => second,
            both => panic!("{both:?}"),
        };
        assert!(result_of(&bench, job).await.unwrap() == counts);
        let written = bench.blob_keys().await;
        let of_job = format!("jobs/{job}/result-");
        assert_eq!(written.iter().filter(|key| key.starts_with(&of_job)).count(), 2);
    }
    assert_eq!(a.activity().ended(), 5, "each job once");
}

#[tokio::test]
async fn an_end_of_ours_does_not_touch_what_the_worker_took_since() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "1").await;
    take_one(&bench, &a).await;
    let before = a.lease_of(job).unwrap();
    post(
        &bench,
        &a,
        job,
        Posted {
            error: Some(json!("x")),
            ..Posted::default()
        },
    )
    .await;
    bench.service.retry(None, job).await.unwrap();
    assert_eq!(take_one(&bench, &a).await, job);
    let now = a.lease_of(job).unwrap();
    assert_ne!(before, now);
    // A cancel of the first run, whose commit took longer than all of this.
    a.goes_on_with(before, Duration::ZERO);
    a.is_done_with(before, bench.service.clock.now());
    assert_eq!(a.lease_of(job), Some(now));
    assert!(a.to_stop().is_empty());
    assert_eq!(a.activity().ended(), 1);
    assert_eq!(post(&bench, &a, job, output("1")).await, Received::Recorded);
    assert_eq!(a.activity().ended(), 2);
}

#[tokio::test]
async fn what_is_handed_back_counts_as_no_job_of_the_worker() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let job = submit(&bench, "1").await;
    let taken = bench
        .service
        .take_for_worker(&a, false, 1, &CancellationToken::new())
        .await;
    drop(taken);
    let b = worker(&bench, "b").await;
    assert_eq!(take_one(&bench, &b).await, job, "it waits again");
    has_given_all_back(&a).await;
    assert_eq!(a.activity().ended(), 0);
}

#[tokio::test]
async fn jobs_of_a_worker_that_was_stopped_or_lost_its_key_run_elsewhere_at_no_cost() {
    let bench = bench();
    let service = &bench.service;
    let lost = service.worker_arrives(&w(), "a", Some("lost")).await.unwrap();
    let kept = service.worker_arrives(&w(), "b", Some("kept")).await.unwrap();
    let job = submit(&bench, "1").await;
    take_one(&bench, &lost).await;
    let of_none = service.workers_without(|key, _| key == "kept");
    assert_eq!(of_none.len(), 1);
    service
        .dismiss_workers(of_none, "its key does not count any more")
        .await;
    assert_eq!(lost.phase(), Phase::Gone);
    assert!(service.worker(&w(), "a").is_none(), "the name is free");
    assert_eq!(take_one(&bench, &kept).await, job);
    service.worker_dismissed(kept.instance).await;
    let other = worker(&bench, "c").await;
    assert_eq!(take_one(&bench, &other).await, job);
    let record = bench.record(job).await;
    assert_eq!((record.attempts, record.lost_attempts), (3, 0));
}

#[tokio::test]
async fn an_open_poll_of_a_worker_that_lost_its_key_gets_nothing_more() {
    let bench = bench();
    let a = bench.service.worker_arrives(&w(), "a", Some("k")).await.unwrap();
    let (service, of) = (bench.service.clone(), a.clone());
    let polling = tokio::spawn(async move {
        service
            .take_for_worker(&of, false, 1, &CancellationToken::new())
            .await
            .len()
    });
    until(|| a.is_listening()).await;
    let of_none = bench.service.workers_without(|_, _| false);
    bench
        .service
        .dismiss_workers(of_none, "its key does not count any more")
        .await;
    let job = submit(&bench, "1").await;
    let got = tokio::time::timeout(Duration::from_secs(60), polling)
        .await
        .unwrap();
    assert_eq!(got.unwrap(), 0);
    assert_eq!(bench.record(job).await.state, JobState::Queued);
}

#[tokio::test]
async fn polls_that_may_not_have_what_waits_let_others_pass() {
    let bench = bench();
    let (a, b) = (worker(&bench, "a").await, worker(&bench, "b").await);
    let job = submit(&bench, "1").await;
    take_one(&bench, &a).await;
    bench.service.cancel(None, job).await.unwrap();
    let stopping = CancellationToken::new();
    let polls: Vec<_> = (0..CLAIMING)
        .map(|_| {
            let (service, of, stop) = (bench.service.clone(), a.clone(), stopping.clone());
            tokio::spawn(async move { service.take_for_worker(&of, true, 1, &stop).await.len() })
        })
        .collect();
    let line = bench.service.pull.line(&w());
    until(|| line.available_permits() == 0).await;
    bench.service.retry(None, job).await.unwrap();
    // Well below the time that those polls are held.
    let passed = tokio::time::timeout(Duration::from_secs(15), take_one(&bench, &b));
    assert_eq!(passed.await.unwrap(), job);
    stopping.cancel();
    for poll in polls {
        assert_eq!(poll.await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_worker_that_says_it_cannot_work_gets_no_more_jobs() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let told = bench
        .service
        .worker_is_unhealthy(&a, "memory_check failed".to_owned());
    told.await.unwrap();
    assert_eq!(a.phase(), Phase::Draining);
    let row = bench.service.instance(a.instance).await.unwrap();
    assert_eq!(
        (row.state, row.state_reason.as_str()),
        (InstanceState::Draining, "memory_check failed")
    );
    let managed = managed(&bench);
    bench
        .service
        .worker_is_unhealthy(&managed, "x".to_owned())
        .await
        .unwrap();
    assert_eq!(managed.broken().await, "x", "its supervisor ends it");
}

#[tokio::test]
async fn a_worker_that_is_stuck_is_not_broken_until_it_is() {
    let bench = bench();
    let a = managed(&bench);
    let [stuck, other] = [submit(&bench, "1").await, submit(&bench, "2").await];
    let rows = bench.service.store.clone();
    for job in [stuck, other] {
        let claim = Claim {
            endpoint: w(),
            instance: a.instance,
            owner: bench.service.node.clone(),
            loaded_models: vec![],
            offers: None,
            lease: Duration::from_secs(3000),
            except: vec![],
            max_running_per_tenant: 0,
        };
        let claimed = rows.claim(claim).await.unwrap().unwrap();
        assert_eq!(claimed.job.id, job);
        let lease = darkroom_core::attempt::Lease {
            job,
            fence: claimed.fence,
        };
        bench
            .service
            .hold_for_worker(&a, lease, &claimed.job, bench.service.clock.now());
    }
    bench.service.cancel(None, stuck).await.unwrap();
    let grace = bench.service.endpoint(&w()).unwrap().limits.cancel_grace;
    pass(&bench, grace + Duration::from_secs(1)).await;
    assert!(a.stuck().await.contains(&stuck.to_string()));
    assert_eq!(a.stuck_with(), Some(a.stuck().await));
    let broken = tokio::time::timeout(Duration::from_millis(1), a.broken()).await;
    assert!(broken.is_err() && a.holds_any(), "the other goes on");
    assert_eq!(bench.record(other).await.state, JobState::Running);
    a.is_unhealthy("gone mad".to_owned());
    assert_eq!(a.broken().await, "gone mad");
}

#[tokio::test]
async fn only_polls_from_before_its_end_hold_it_up() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let before = a.listen();
    a.enter(Phase::Leaving);
    let after = a.listen();
    assert!(a.waits_from_before());
    drop(before);
    assert!(!a.waits_from_before() && a.is_listening());
    drop(after);
    assert!(!a.is_listening());
}

#[tokio::test]
async fn leases_of_many_workers_are_renewed_in_one_look() {
    let bench = bench();
    for n in 0..40 {
        submit(&bench, "1").await;
        let worker = worker(&bench, &format!("w{n}")).await;
        take_one(&bench, &worker).await;
    }
    let until = async || {
        let open = bench.service.store.open_attempts(None).await.unwrap();
        open.iter().map(|attempt| attempt.lease_until).min().unwrap()
    };
    let before = until().await;
    bench.clock.advance(Duration::from_secs(11));
    bench.service.look_after_workers(Duration::ZERO).await;
    assert!(
        until().await >= before.plus(Duration::from_secs(11)),
        "of all of them"
    );
}

#[tokio::test]
async fn a_late_result_of_a_worker_that_was_given_up_is_late_and_no_strangers() {
    let bench = bench();
    let service = &bench.service;
    let a = service.worker_arrives(&w(), "a", Some("k")).await.unwrap();
    let job = submit(&bench, "1").await;
    take_one(&bench, &a).await;
    service.worker_dismissed(a.instance).await;
    let late = async |name, key, job| service.result_of_stranger(&w(), name, key, job).await.unwrap();
    assert_eq!(late("a", Some("k"), job).await, Received::TooLate);
    assert_eq!(late("a", Some("other"), job).await, Received::NotTheirs);
    assert_eq!(late("b", Some("k"), job).await, Received::NotTheirs);
    let nobody = JobId::new(&*service.ids);
    assert_eq!(late("a", Some("k"), nobody).await, Received::Unknown);
}

#[tokio::test]
async fn a_batch_is_bounded_in_bytes() {
    let bench = bench();
    let a = worker(&bench, "a").await;
    let large = format!("\"{}\"", "x".repeat(25 << 20));
    for _ in 0..4 {
        submit(&bench, &large).await;
    }
    assert_eq!(take(&bench, &a, 4).await.len(), 3);
    assert_eq!(waits(&bench).await, 1);
}

#[tokio::test]
async fn a_look_that_takes_long_is_no_time_in_which_nobody_could_be_heard() {
    let bench = bench();
    let worker = worker(&bench, "a").await;
    // A machine so slow that three seconds pass between any two steps: a look takes longer than what counts as a gap.
    bench.clock.pass_at_each_look(Duration::from_secs(3));
    let (service, stop) = (bench.service.clone(), CancellationToken::new());
    let _looks = stop.clone().drop_guard();
    tokio::spawn(async move { service.keep_workers(stop).await });
    let mut phases = worker.phases();
    let gone = phases.wait_for(|phase| *phase == Phase::Gone);
    tokio::time::timeout(Duration::from_secs(90), gone)
        .await
        .expect("it is silent, and that is found out")
        .unwrap();
}
