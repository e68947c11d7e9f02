//! Workers under the control loop: ended late for what else they hold, and not at all for a plan that is old.

use darkroom_core::{
    AttemptState,
    scheduler::plan::{Action, Seen},
};

use super::*;
use crate::service::{
    jobs::Cancelled,
    pull::{Worker, take::Taken},
    workers::WorkerSubmit,
};

const OURS: &str = "[endpoints.w]\nkind = \"worker\"\ncommand = [\"/nobody\"]\n[endpoints.w.limits]\ncancel_grace = \"1s\"\n";
const THEIRS: &str = "[endpoints.w]\nkind = \"worker\"\n";

fn w() -> EndpointName {
    "w".parse().unwrap()
}

async fn submit(bench: &Bench) -> JobId {
    let submit = WorkerSubmit {
        tenant: "t".parse().unwrap(),
        endpoint: w(),
        input: Bytes::from_static(b"1"),
        wishes: Default::default(),
        webhook: None,
        base_url: String::new(),
        s3_config: None,
        dialect: "ppio",
        request_id: "r".into(),
    };
    bench.service.submit_worker(submit).await.unwrap()
}

async fn take(bench: &Bench, worker: &Arc<Worker>, wanted: usize) -> Vec<JobId> {
    let never = CancellationToken::new();
    let taking = bench.service.take_for_worker(worker, false, wanted, &never);
    let mut taken = tokio::time::timeout(Duration::from_secs(60), taking)
        .await
        .unwrap();
    taken.iter_mut().for_each(Taken::handed_over);
    taken.iter().map(|one| one.job).collect()
}

#[tokio::test]
async fn what_else_a_stuck_worker_holds_has_two_minutes_and_goes_back_then_at_no_cost() {
    let bench = Bench::configured(OURS);
    let (stuck, other) = (submit(&bench).await, submit(&bench).await);
    let running = run(bench, Scripted::new(Start::Never));
    let bench = &running.bench;
    let service = &bench.service;
    let known = |record: &InstanceRecord| service.worker(&w(), &record.id.to_string());
    let all = running.instances(|all| all.first().is_some_and(|one| known(one).is_some()));
    let worker = known(&all.await[0]).unwrap();
    let mut jobs = take(bench, &worker, 2).await;
    jobs.sort();
    assert_eq!(jobs, [stuck, other]);

    // It goes on with what is cancelled beyond the grace.
    assert_eq!(service.cancel(None, stuck).await.unwrap(), Cancelled::Now);
    bench.clock.advance(Duration::from_secs(2));
    let looking = service.clone();
    let stop = CancellationToken::new();
    let _looks = stop.clone().drop_guard();
    tokio::spawn(async move { looking.keep_workers(stop).await });
    let drains = |all: &[InstanceRecord]| all.iter().any(|i| i.state == InstanceState::Draining);
    running.instances(drains).await;
    assert_eq!(
        bench.record(other).await.state,
        JobState::Running,
        "its time is not over"
    );
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(121)).await;
    tokio::time::resume();
    running.instances(failed).await;
    let attempts = service.attempts(other).await.unwrap();
    assert_eq!(attempts[0].state, AttemptState::Released);
    let record = bench.record(other).await;
    assert!(!record.state.is_final() && record.lost_attempts == 0);
}

#[tokio::test]
async fn a_plan_that_did_not_see_the_last_claim_stops_no_worker_that_came_by_itself() {
    let bench = Bench::configured(THEIRS);
    let control = Control::new(
        bench.service.clone(),
        Scripted::new(Start::Never),
        bench.path().join("spool"),
        Duration::from_secs(1),
    );
    let worker = bench.service.worker_arrives(&w(), "box", None).await.unwrap();
    let seen = Seen {
        state: InstanceState::Ready,
        busy: 0,
    };
    let stop = Action::Stop {
        endpoint: w(),
        instance: worker.instance,
        seen,
    };
    let job = submit(&bench).await;
    assert_eq!(take(&bench, &worker, 1).await, [job]);
    control.execute(stop.clone(), &[]).await.unwrap();
    let row = async || {
        let store = &bench.service.store;
        store.instance(worker.instance).await.unwrap().unwrap().state
    };
    assert_eq!(row().await, InstanceState::Ready);
    assert_eq!(bench.record(job).await.state, JobState::Running);

    bench.service.cancel(None, job).await.unwrap();
    let posted = crate::service::pull::result::Posted::default();
    bench.service.worker_result(&worker, job, posted).await.unwrap();
    control.execute(stop, &[]).await.unwrap();
    assert_eq!(row().await, InstanceState::Stopped, "idle, it is");
}
