//! How long jobs wait, told from durations that are known: the estimate is within a factor of two of what happens.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use darkroom_core::{
    AttemptOutcome, Clock, Endpoint, EndpointName, InstanceId, InstanceState, JobId,
    attempt::Lease,
    instance::StartStep,
    scheduler::{Counters, EndpointCounters, EndpointPolicy, InstanceView, Policy, WaitReason},
};
use darkroom_store::{
    catalog::InstanceChange,
    jobs::{Claim, Claimed, Finish},
};

use super::{PlannerView, StartTrouble};
use crate::service::{
    attached::Trial,
    models::ModelFile,
    resources::{Free, Resources},
    testing::Bench,
};

const RUN: Duration = Duration::from_secs(10);
const START: Duration = Duration::from_secs(30);

/// What the planner would see, as a test says.
#[derive(Default)]
struct Told(Mutex<EndpointCounters>);

#[async_trait]
impl PlannerView for Told {
    fn look_again(&self) {}

    async fn view(&self) -> anyhow::Result<(Counters, Policy)> {
        let name: EndpointName = "default".parse()?;
        let here = self.0.lock().unwrap().clone();
        let of = EndpointPolicy {
            scaling: Default::default(),
            slots_per_instance: 1,
            gpus: vec![],
            managed: true,
        };
        let counters = Counters {
            endpoints: [(name.clone(), here)].into(),
        };
        Ok((
            counters,
            Policy {
                endpoints: [(name, of)].into(),
            },
        ))
    }

    async fn logs(&self, _: &str, _: u64) -> anyhow::Result<bytes::Bytes> {
        anyhow::bail!("none")
    }

    fn resources(&self, _: InstanceId) -> Option<Resources> {
        None
    }

    fn free(&self, _: &EndpointName, _: Free) {}

    async fn model_metadata(&self, _: &EndpointName, _: &ModelFile) -> Option<serde_json::Value> {
        None
    }

    async fn try_out(&self, _: &Endpoint) -> Result<Trial, String> {
        Err("none".to_owned())
    }

    fn start_trouble(&self, _: &EndpointName) -> Option<StartTrouble> {
        None
    }
}

struct World {
    bench: Bench,
    told: Arc<Told>,
    instance: InstanceId,
}

impl World {
    /// Whose one instance took [`START`] to start, and which ran three jobs of [`RUN`] each.
    async fn experienced() -> World {
        let bench = Bench::new();
        let told = Arc::new(Told::default());
        bench.service.planner.set(told.clone()).ok().unwrap();
        let instance = bench.instance().await;
        let world = World {
            bench,
            told,
            instance,
        };
        world.bench.clock.advance(START);
        let reached = InstanceChange {
            phase: Some(StartStep::Ready.as_str().to_owned()),
            ..InstanceChange::default()
        };
        let store = &world.bench.service.store;
        let changed = store.change_instance(instance, InstanceState::Ready, reached);
        assert!(changed.await.unwrap());
        for _ in 0..3 {
            world.bench.job("{}").await;
            let claimed = world.claim().await;
            world.bench.clock.advance(RUN);
            world.end(&claimed).await;
        }
        world
    }

    async fn claim(&self) -> Claimed {
        let claim = Claim {
            endpoint: self.bench.endpoint(),
            instance: self.instance,
            owner: self.bench.service.node.clone(),
            loaded_models: vec![],
            offers: None,
            lease: Duration::from_secs(3600),
            except: vec![],
            max_running_per_tenant: 0,
        };
        self.bench.service.store.claim(claim).await.unwrap().unwrap()
    }

    async fn end(&self, claimed: &Claimed) {
        let finish = Finish::empty(AttemptOutcome::Done);
        let lease = Lease {
            job: claimed.job.id,
            fence: claimed.fence,
        };
        self.bench
            .service
            .store
            .finish(lease, finish)
            .await
            .unwrap()
            .unwrap();
    }

    fn planner_sees(&self, queued: u64, instances: &[(InstanceState, u32)]) {
        let now = self.bench.clock.now();
        let view = |&(state, busy): &(InstanceState, u32)| InstanceView {
            id: self.instance,
            state,
            state_since: now,
            idle_since: (busy == 0).then_some(now),
            slots: 1,
            busy,
            jobs_done: 3,
            rss_bytes: 0,
            gpu: None,
            phase: None,
        };
        *self.told.0.lock().unwrap() = EndpointCounters {
            queued,
            instances: instances.iter().map(view).collect(),
            ..EndpointCounters::default()
        };
    }

    /// Seconds, as a caller is told them.
    async fn told(&self, job: JobId) -> Option<f64> {
        let record = self.bench.record(job).await;
        let waiting = self.bench.service.why_waiting(&record).await.unwrap().unwrap();
        waiting.starts_in.map(|time| time.as_secs_f64())
    }
}

/// Within a factor of two; what little time the test itself takes counts as well.
fn about(told: Option<f64>, truth: f64) {
    let told = told.expect("an estimate");
    assert!(
        told <= truth * 2.0 && told >= truth / 2.0,
        "{told} s for {truth} s"
    );
}

#[tokio::test]
async fn a_line_behind_a_running_job_is_estimated_place_by_place() {
    let world = World::experienced().await;
    world.bench.job("{}").await;
    world.claim().await;
    world.bench.clock.advance(RUN / 5);
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(world.bench.job("{}").await);
    }
    world.planner_sees(3, &[(InstanceState::Ready, 1)]);
    for (job, truth) in waiting.into_iter().zip([8.0, 18.0, 28.0]) {
        about(world.told(job).await, truth);
    }
}

#[tokio::test]
async fn a_cold_start_counts_for_what_it_took_before() {
    let world = World::experienced().await;
    let first = world.bench.job("{}").await;
    let second = world.bench.job("{}").await;
    world.planner_sees(2, &[]);
    about(world.told(first).await, 30.0);
    about(world.told(second).await, 40.0);
    world.planner_sees(2, &[(InstanceState::Starting, 0)]);
    world.bench.clock.advance(START / 2);
    about(world.told(first).await, 15.0);
}

#[tokio::test]
async fn what_nobody_can_know_is_not_estimated() {
    let bench = Bench::new();
    let told = Arc::new(Told::default());
    bench.service.planner.set(told.clone()).ok().unwrap();
    let job = bench.job("{}").await;
    let record = bench.record(job).await;
    let waiting = bench.service.why_waiting(&record).await.unwrap().unwrap();
    assert_eq!(
        (waiting.position, waiting.starts_in),
        (0, None),
        "nothing ran yet"
    );

    let world = World::experienced().await;
    let job = world.bench.job("{}").await;
    world.planner_sees(1, &[(InstanceState::Ready, 0)]);
    world.told.0.lock().unwrap().paused = true;
    let record = world.bench.record(job).await;
    let waiting = world.bench.service.why_waiting(&record).await.unwrap().unwrap();
    assert_eq!((waiting.reason, waiting.starts_in), (WaitReason::Paused, None));
}

#[tokio::test]
async fn who_waited_for_a_start_is_told_so_also_afterwards() {
    let world = World::experienced().await;
    let service = &world.bench.service;
    let warm = world.bench.job("{}").await;
    let claimed = world.claim().await;
    assert!(!service.cold_start(&world.bench.record(warm).await).await.unwrap());
    world.end(&claimed).await;
    assert!(!service.cold_start(&world.bench.record(warm).await).await.unwrap());
    let steps = [
        InstanceState::Ready,
        InstanceState::Stopping,
        InstanceState::Stopped,
    ];
    for step in steps.windows(2) {
        let reached = InstanceChange {
            state: Some(step[1]),
            ..InstanceChange::default()
        };
        let changed = service.store.change_instance(world.instance, step[0], reached);
        assert!(changed.await.unwrap());
    }
    let cold = world.bench.job("{}").await;
    assert!(service.cold_start(&world.bench.record(cold).await).await.unwrap());
}
