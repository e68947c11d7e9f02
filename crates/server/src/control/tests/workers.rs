//! Workers under the control loop: a plan that is old ends none that works.

use darkroom_core::scheduler::plan::{Action, Seen};

use super::*;
use crate::service::{
    pull::{Worker, take::Taken},
    workers::WorkerSubmit,
};

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
