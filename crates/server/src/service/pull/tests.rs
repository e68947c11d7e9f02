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
    Phase, Refused, Worker,
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
    assert_eq!(a.occupied(), 0);
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
    while !a.is_listening() {
        tokio::task::yield_now().await;
    }
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
    let told = bench.service.jobs_to_stop(&a, &CancellationToken::new()).await;
    assert_eq!(told, [job]);
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
    let stopping = CancellationToken::new();
    let (service, of, stop) = (bench.service.clone(), a.clone(), stopping.clone());
    let polling = tokio::spawn(async move { service.take_for_worker(&of, true, 1, &stop).await.len() });
    assert_eq!(take_one(&bench, &b).await, job);
    stopping.cancel();
    assert_eq!(polling.await.unwrap(), 0);
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
    while !a.is_listening() {
        tokio::task::yield_now().await;
    }
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
