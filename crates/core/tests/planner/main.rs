//! Examples and laws of the planner, through its public interface.

mod examples;
mod laws;

use std::time::Duration;

use darkroom_core::{
    EndpointName, InstanceId, InstanceState, Timestamp,
    endpoint::Scaling,
    scheduler::{
        Action, Counters, EndpointCounters, EndpointPolicy, InstanceView, Plan, Policy, WaitReason, plan,
        plan::Expiring, why_waiting,
    },
};

const START_TIMEOUT: u64 = 100;
const IDLE_TIMEOUT: u64 = 50;

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(seconds).unwrap() * 1000)
}

fn name(text: &str) -> EndpointName {
    text.parse().unwrap()
}

fn managed(min_instances: u32, max_instances: u32) -> EndpointPolicy {
    EndpointPolicy {
        scaling: Scaling {
            min_instances,
            max_instances,
            idle_timeout: Duration::from_secs(IDLE_TIMEOUT),
            start_timeout: Duration::from_secs(START_TIMEOUT),
            ..Scaling::default()
        },
        gpus: vec![],
        managed: true,
        slots_per_instance: 1,
    }
}

fn on_gpus(max_instances: u32, gpus: &[&str]) -> EndpointPolicy {
    EndpointPolicy {
        gpus: gpus.iter().map(|g| (*g).to_owned()).collect(),
        ..managed(0, max_instances)
    }
}

fn instance(n: u128, state: InstanceState, busy: u32, since: u64) -> InstanceView {
    InstanceView {
        id: InstanceId::from_uuid(uuid::Uuid::from_u128(n)),
        state,
        slots: 1,
        busy,
        state_since: at(since),
        idle_since: None,
        jobs_done: 0,
        rss_bytes: 0,
        gpu: None,
        phase: None,
    }
}

fn with_gpu(gpu: &str, instance: InstanceView) -> InstanceView {
    InstanceView {
        gpu: Some(gpu.to_owned()),
        ..instance
    }
}

fn queued(jobs: u64, since: u64) -> EndpointCounters {
    EndpointCounters {
        queued: jobs,
        oldest_queued_at: (jobs > 0).then(|| at(since)),
        ..EndpointCounters::default()
    }
}

#[derive(Debug)]
struct World {
    counters: Counters,
    policy: Policy,
}

fn world(endpoints: Vec<(&str, EndpointCounters, EndpointPolicy)>) -> World {
    let mut world = World {
        counters: Counters::default(),
        policy: Policy::default(),
    };
    for (endpoint, counters, policy) in endpoints {
        world.counters.endpoints.insert(name(endpoint), counters);
        world.policy.endpoints.insert(name(endpoint), policy);
    }
    world
}

fn one(counters: EndpointCounters, policy: EndpointPolicy) -> World {
    world(vec![("default", counters, policy)])
}

impl World {
    fn plan(&self, now: u64) -> Plan {
        plan(&self.counters, &self.policy, at(now))
    }

    fn actions(&self, now: u64) -> Vec<String> {
        self.plan(now).actions.iter().map(short).collect()
    }

    fn why(&self, endpoint: &str, ahead: u64, now: u64) -> WaitReason {
        why_waiting(
            &name(endpoint),
            ahead,
            None,
            &self.counters,
            &self.policy,
            at(now),
        )
    }
}

/// `start default`, `start default on 0`, `stop 1`, …
fn short(action: &Action) -> String {
    let number = |id: &InstanceId| id.as_uuid().as_u128().to_string();
    match action {
        Action::Start {
            endpoint, gpu: None, ..
        } => format!("start {endpoint}"),
        Action::Start {
            endpoint,
            gpu: Some(gpu),
            ..
        } => format!("start {endpoint} on {gpu}"),
        Action::Drain { instance, .. } => format!("drain {}", number(instance)),
        Action::Stop { instance, .. } => format!("stop {}", number(instance)),
        Action::FailStart { instance, .. } => format!("fail {}", number(instance)),
        Action::Expire {
            what: Expiring::Leases,
            ..
        } => "expire leases".to_owned(),
        Action::Expire {
            what: Expiring::QueuedJobs,
            ..
        } => "expire queued".to_owned(),
    }
}

fn nothing() -> Vec<String> {
    vec![]
}
