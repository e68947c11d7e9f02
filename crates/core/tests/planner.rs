//! Examples and laws of the planner, through its public interface.

use std::time::Duration;

use darkroom_core::{
    EndpointName, InstanceId, InstanceState, Timestamp,
    endpoint::Scaling,
    scheduler::{
        Action, Counters, EndpointCounters, EndpointPolicy, InstanceView, Plan, Policy, Signal, Verdict,
        WaitReason, plan,
        plan::{Expiring, assume},
        waiting::StartPhase,
        why_waiting,
    },
};
use proptest::prelude::*;

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
        why_waiting(&name(endpoint), ahead, &self.counters, &self.policy, at(now)).unwrap()
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

use InstanceState::{Draining, Ready, Starting, Stopping};

#[test]
fn starts_from_zero_for_a_job_and_says_why() {
    let world = one(queued(1, 10), managed(0, 1));
    let plan = world.plan(10);
    let start = Action::Start {
        endpoint: name("default"),
        gpu: None,
        seen_live: 0,
    };
    assert_eq!(plan.actions, [start]);
    assert_eq!(
        plan.reasons[0].to_string(),
        "default: 1 jobs wait or run, 0 slots serve; start an instance"
    );
}

#[test]
fn does_nothing_when_nothing_is_wanted() {
    assert_eq!(one(queued(0, 0), managed(0, 5)).plan(10), Plan::default());
}

#[test]
fn starts_as_many_as_the_jobs_need_within_the_bound() {
    let four_slots = EndpointPolicy {
        slots_per_instance: 4,
        ..managed(0, 9)
    };
    assert_eq!(one(queued(9, 0), four_slots).actions(1).len(), 3);

    let world = one(queued(50, 0), managed(0, 3));
    let plan = world.plan(1);
    let seen: Vec<u32> = plan
        .actions
        .iter()
        .map(|a| match a {
            Action::Start { seen_live, .. } => *seen_live,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(seen, [0, 1, 2], "each compares with what those before it leave");
}

#[test]
fn min_instances_are_kept_without_jobs_and_low_priority_jobs_start_nothing() {
    assert_eq!(
        one(queued(0, 0), managed(2, 3)).actions(1),
        ["start default", "start default"]
    );
    let low = EndpointCounters {
        queued_low_priority: 5,
        ..queued(5, 0)
    };
    let world = one(low, managed(0, 3));
    assert_eq!(world.actions(1), nothing());
    assert_eq!(world.why("default", 0, 1), WaitReason::LowPriority);
}

#[test]
fn a_paused_endpoint_starts_nothing_for_its_queue() {
    let paused = EndpointCounters {
        paused: true,
        ..queued(5, 0)
    };
    let world = one(paused, managed(0, 3));
    assert_eq!(world.actions(1), nothing());
    assert_eq!(world.why("default", 0, 1), WaitReason::Paused);
}

#[test]
fn idle_instances_go_longest_idle_first_down_to_what_is_wanted() {
    let idle = EndpointCounters {
        instances: vec![
            instance(1, Ready, 0, 20),
            instance(2, Ready, 0, 10),
            instance(3, Ready, 1, 0),
            instance(4, Ready, 0, 30),
        ],
        ..queued(0, 0)
    };
    let world = one(idle, managed(2, 4));
    assert_eq!(world.actions(59), nothing());
    assert_eq!(
        world.plan(59).next_wake,
        Some(at(60)),
        "when the longest idle one times out"
    );
    assert_eq!(world.actions(60), ["stop 2"]);
    assert_eq!(
        world.actions(1000),
        ["stop 2", "stop 1"],
        "one idle one stays for min_instances"
    );
}

#[test]
fn a_busy_instance_is_drained_never_stopped() {
    let worn = |busy| InstanceView {
        jobs_done: 7,
        ..instance(1, Ready, busy, 0)
    };
    let mut policy = managed(0, 2);
    policy.scaling.max_jobs_per_instance = 7;
    let counters = |busy| EndpointCounters {
        instances: vec![worn(busy)],
        ..queued(1, 0)
    };
    assert_eq!(
        one(counters(1), policy.clone()).actions(5),
        ["drain 1", "start default"]
    );
    assert_eq!(one(counters(0), policy).actions(5), ["stop 1", "start default"]);
}

#[test]
fn a_fat_instance_is_recycled() {
    let mut policy = managed(1, 1);
    policy.scaling.max_rss_bytes = 1000;
    let fat = InstanceView {
        rss_bytes: 1001,
        ..instance(1, Ready, 0, 0)
    };
    let world = one(
        EndpointCounters {
            instances: vec![fat],
            ..queued(1, 0)
        },
        policy,
    );
    assert_eq!(
        world.actions(5),
        ["stop 1"],
        "its replacement waits: there may be one only"
    );
}

#[test]
fn a_drained_instance_is_stopped_once_it_is_idle() {
    let draining = |busy| {
        let counters = EndpointCounters {
            instances: vec![instance(1, Draining, busy, 0)],
            ..queued(0, 0)
        };
        one(counters, managed(0, 1))
    };
    assert_eq!(draining(1).actions(500), nothing());
    assert_eq!(draining(0).actions(500), ["stop 1"]);
}

#[test]
fn a_start_that_takes_too_long_fails_and_is_backed_off() {
    let starting = EndpointCounters {
        instances: vec![instance(1, Starting, 0, 10)],
        ..queued(3, 0)
    };
    let world = one(starting, managed(0, 1));
    assert_eq!(
        world.plan(10 + START_TIMEOUT - 1).next_wake,
        Some(at(10 + START_TIMEOUT))
    );
    let plan = world.plan(10 + START_TIMEOUT);
    assert_eq!(plan.actions.iter().map(short).collect::<Vec<_>>(), ["fail 1"]);
    assert_eq!(plan.next_wake, Some(at(11 + START_TIMEOUT)));
    assert!(matches!(
        plan.reasons.last().unwrap().verdict,
        Verdict::BackingOff { .. }
    ));
}

#[test]
fn a_crash_loop_is_tried_later_and_later_one_at_a_time() {
    let failing = |failures| EndpointCounters {
        start_failures: failures,
        last_start_failure: Some((at(1000), "no module named torch".to_owned())),
        ..queued(9, 0)
    };
    for (failures, seconds) in [(1, 1), (2, 2), (3, 4), (6, 32), (7, 60), (30, 60)] {
        let world = one(failing(failures), managed(0, 8));
        assert_eq!(world.actions(1000 + seconds - 1), nothing(), "after {failures}");
        assert_eq!(world.plan(1000).next_wake, Some(at(1000 + seconds)));
        assert_eq!(world.actions(1000 + seconds), ["start default"]);
        let waits = world.why("default", 0, 1000);
        let until = at(1000 + seconds);
        let last_error = "no module named torch".to_owned();
        assert_eq!(waits, WaitReason::BackingOff { last_error, until });
    }
    let world = one(failing(5), managed(0, 1));
    assert_eq!(world.actions(10), ["start default"], "the clock was set back");
}

#[test]
fn the_excess_goes_after_max_was_lowered() {
    let counters = EndpointCounters {
        instances: vec![
            instance(1, Ready, 1, 0),
            instance(2, Ready, 0, 0),
            instance(3, Starting, 0, 0),
            instance(4, Ready, 1, 0),
        ],
        ..queued(9, 0)
    };
    let world = one(counters, managed(0, 1));
    assert_eq!(world.actions(1), ["stop 3", "stop 2", "drain 4"]);
    let waits = world.why("default", 3, 1);
    let phase = StartPhase::Booting { since: at(0) };
    assert_eq!(waits, WaitReason::Starting { phase });
}

#[test]
fn a_removed_endpoint_is_emptied() {
    let mut world = one(
        EndpointCounters {
            instances: vec![
                instance(1, Ready, 1, 0),
                instance(2, Ready, 0, 0),
                instance(3, Starting, 0, 0),
            ],
            ..queued(9, 0)
        },
        managed(0, 9),
    );
    world.policy.endpoints.clear();
    assert_eq!(world.actions(1), ["drain 1", "stop 2", "stop 3"]);
    assert_eq!(
        world
            .plan(1)
            .reasons
            .iter()
            .filter(|r| r.signal == Signal::Removed)
            .count(),
        3
    );
}

#[test]
fn what_others_run_is_neither_started_nor_stopped() {
    let pull = EndpointPolicy {
        managed: false,
        ..managed(0, 5)
    };
    let counters = EndpointCounters {
        instances: vec![instance(1, Ready, 0, 0)],
        ..queued(9, 0)
    };
    assert_eq!(one(counters, pull.clone()).actions(100_000), nothing());
    let world = one(queued(9, 0), pull);
    assert_eq!(world.actions(1), nothing());
    assert_eq!(world.why("default", 0, 1), WaitReason::NoWorker);
}

#[test]
fn one_instance_per_gpu_entry() {
    let world = one(queued(9, 0), on_gpus(9, &["0", "1", "1"]));
    assert_eq!(
        world.actions(1),
        ["start default on 0", "start default on 1", "start default on 1"]
    );
    let counters = EndpointCounters {
        instances: vec![with_gpu("1", instance(1, Ready, 1, 0))],
        ..queued(9, 0)
    };
    assert_eq!(
        one(counters, on_gpus(2, &["0", "1"])).actions(1),
        ["start default on 0"]
    );
}

#[test]
fn an_idle_endpoint_gives_its_gpu_to_one_that_has_work() {
    let idle = EndpointCounters {
        instances: vec![with_gpu("0", instance(1, Ready, 0, 0))],
        ..queued(0, 0)
    };
    let world = world(vec![
        ("a", idle, on_gpus(1, &["0"])),
        ("b", queued(1, 5), on_gpus(1, &["0"])),
    ]);
    assert_eq!(
        world.actions(6),
        ["stop 1"],
        "and starts when the first one is gone"
    );
    assert_eq!(world.why("b", 0, 6), WaitReason::GpuBusy { holder: name("a") });
}

#[test]
fn a_flooded_endpoint_gives_its_gpu_to_one_that_waited_longer() {
    let flooded = EndpointCounters {
        instances: vec![with_gpu("0", instance(1, Ready, 1, 0))],
        ..queued(100, 20)
    };
    let world = world(vec![
        ("a", flooded, on_gpus(1, &["0"])),
        ("b", queued(1, 10), on_gpus(1, &["0"])),
    ]);
    assert_eq!(world.actions(39), nothing());
    assert_eq!(world.plan(39).next_wake, Some(at(40)));
    assert_eq!(world.actions(40), ["drain 1"]);
}

#[test]
fn a_free_gpu_goes_to_the_oldest_job() {
    let world = world(vec![
        ("a", queued(5, 20), on_gpus(1, &["0"])),
        ("b", queued(1, 10), on_gpus(1, &["0"])),
    ]);
    assert_eq!(world.actions(30), ["start b on 0"]);
}

#[test]
fn deadlines_expire_or_wake() {
    let counters = EndpointCounters {
        next_lease_expiry: Some(at(10)),
        next_queue_ttl: Some(at(20)),
        ..EndpointCounters::default()
    };
    let world = one(counters, managed(0, 1));
    assert_eq!(world.actions(9), nothing());
    assert_eq!(world.plan(9).next_wake, Some(at(10)));
    assert_eq!(world.actions(10), ["expire leases"]);
    assert_eq!(world.plan(10).next_wake, Some(at(20)));
    assert_eq!(world.actions(20), ["expire leases", "expire queued"]);
}

#[test]
fn waiting_is_explained_by_what_is_there() {
    let booting = EndpointCounters {
        instances: vec![instance(1, Starting, 0, 7)],
        ..queued(1, 0)
    };
    let phase = StartPhase::Booting { since: at(7) };
    assert_eq!(
        one(booting, managed(0, 1)).why("default", 0, 9),
        WaitReason::Starting { phase }
    );
    let busy = EndpointCounters {
        instances: vec![instance(1, Ready, 1, 7), instance(2, Ready, 0, 7)],
        ..queued(3, 0)
    };
    let world = one(busy, managed(0, 2));
    assert_eq!(world.why("default", 0, 9), WaitReason::Slot);
    assert_eq!(
        world.why("default", 2, 9),
        WaitReason::MaxReached { ahead: 2, slots: 2 }
    );
    let leaving = EndpointCounters {
        instances: vec![instance(1, Stopping, 0, 7)],
        ..queued(1, 0)
    };
    let phase = StartPhase::PredecessorLeaving;
    assert_eq!(
        one(leaving, managed(0, 1)).why("default", 0, 9),
        WaitReason::Starting { phase }
    );
    let phase = StartPhase::Planned;
    assert_eq!(
        one(queued(1, 0), managed(0, 1)).why("default", 0, 9),
        WaitReason::Starting { phase }
    );
    assert_eq!(
        why_waiting(&name("none"), 0, &Counters::default(), &Policy::default(), at(0)),
        None
    );
}

fn any_instance() -> impl Strategy<Value = InstanceView> {
    let state = proptest::sample::select(InstanceState::ALL.to_vec());
    let gpu = proptest::option::of(proptest::sample::select(vec!["0", "1", "2"]));
    (
        state,
        1u32..4,
        0u32..4,
        0u64..300,
        proptest::option::of(0u64..300),
        0u32..9,
        0u64..2000,
        gpu,
    )
        .prop_map(
            |(state, slots, busy, since, idle, jobs_done, rss_bytes, gpu)| InstanceView {
                slots,
                idle_since: idle.map(at),
                jobs_done,
                rss_bytes,
                gpu: gpu.map(str::to_owned),
                ..instance(0, state, busy.min(slots), since)
            },
        )
}

fn any_endpoint() -> impl Strategy<Value = (EndpointCounters, Option<EndpointPolicy>)> {
    let counters = (
        0u64..8,
        0u64..8,
        proptest::bool::weighted(0.1),
        proptest::collection::vec(any_instance(), 0..6),
        0u32..4,
        proptest::option::of(0u64..300),
        proptest::option::of(0u64..300),
        0u64..300,
    )
        .prop_map(
            |(jobs, low, paused, instances, failures, failed, deadline, since)| EndpointCounters {
                queued_low_priority: low.min(jobs),
                paused,
                instances,
                start_failures: failures,
                last_start_failure: failed.map(|f| (at(f), "boom".to_owned())),
                next_lease_expiry: deadline.map(at),
                ..queued(jobs, since)
            },
        );
    let policy = (
        0u32..4,
        0u32..6,
        0u32..8,
        prop_oneof![Just(0u64), 500u64..2000],
        proptest::sample::subsequence(vec!["0", "1", "1", "2"], 0..4),
        proptest::bool::weighted(0.9),
        1u32..4,
    )
        .prop_map(|(min, max, jobs, rss, gpus, is_managed, slots)| {
            let mut policy = on_gpus(max, &gpus);
            policy.scaling.min_instances = min;
            policy.scaling.max_jobs_per_instance = jobs;
            policy.scaling.max_rss_bytes = rss;
            EndpointPolicy {
                managed: is_managed,
                slots_per_instance: slots,
                ..policy
            }
        });
    (counters, proptest::option::weighted(0.9, policy))
}

fn any_world() -> impl Strategy<Value = World> {
    proptest::collection::vec(any_endpoint(), 1..4).prop_map(|endpoints| {
        let mut id = 0;
        let mut world = world(vec![]);
        for (endpoint, (mut counters, policy)) in ["a", "b", "c"].into_iter().zip(endpoints) {
            for instance in &mut counters.instances {
                id += 1;
                instance.id = InstanceId::from_uuid(uuid::Uuid::from_u128(id));
            }
            world.counters.endpoints.insert(name(endpoint), counters);
            world.policy.endpoints.extend(policy.map(|p| (name(endpoint), p)));
        }
        world
    })
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World")
            .field("counters", &self.counters)
            .field("policy", &self.policy)
            .finish()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn planning_again_finds_nothing_to_do(mut world in any_world(), now in 0u64..400) {
        let first = world.plan(now);
        for action in &first.actions {
            assume(&mut world.counters, action, at(now));
        }
        let second = world.plan(now);
        prop_assert_eq!(&second.actions, &vec![]);
        prop_assert_eq!(second.next_wake, first.next_wake);
    }

    #[test]
    fn the_same_world_gives_the_same_plan(world in any_world(), now in 0u64..400) {
        prop_assert_eq!(world.plan(now), world.plan(now));
        prop_assert!(world.plan(now).next_wake.is_none_or(|wake| wake > at(now)));
    }

    #[test]
    fn no_busy_instance_is_stopped_and_every_action_carries_what_was_seen(world in any_world(), now in 0u64..400) {
        let plan = world.plan(now);
        for action in &plan.actions {
            let (Action::Drain { endpoint, instance, seen } | Action::Stop { endpoint, instance, seen }
                | Action::FailStart { endpoint, instance, seen }) = action else { continue };
            let there = world.counters.endpoints[endpoint].instances.iter().find(|i| i.id == *instance).unwrap();
            prop_assert_eq!((there.state, there.busy), (seen.state, seen.busy));
            let event = match action {
                Action::Drain { .. } => darkroom_core::instance::Event::DrainRequested,
                Action::FailStart { .. } => darkroom_core::instance::Event::StartFailed,
                _ => darkroom_core::instance::Event::StopRequested,
            };
            prop_assert!(darkroom_core::instance::apply(there.state, event).is_ok());
            if !matches!(action, Action::Drain { .. }) {
                prop_assert_eq!(there.busy, 0);
            }
        }
        prop_assert!(plan.reasons.len() >= plan.actions.len());
    }

    #[test]
    fn bounds_are_respected(mut world in any_world(), now in 0u64..400) {
        let live = |world: &World, endpoint: &EndpointName| {
            let all = &world.counters.endpoints[endpoint].instances;
            all.iter().filter(|i| !i.state.is_final()).count()
        };
        let plan = world.plan(now);
        for action in &plan.actions {
            if let Action::Start { endpoint, gpu, seen_live } = action {
                let policy = &world.policy.endpoints[endpoint];
                let before = live(&world, endpoint);
                prop_assert!(policy.managed);
                prop_assert_eq!(*seen_live as usize, before);
                prop_assert!(before < policy.most_instances());
                prop_assert_eq!(gpu.is_some(), !policy.gpus.is_empty());
                if let Some(gpu) = gpu {
                    let users = |n: &EndpointName| {
                        let all = &world.counters.endpoints[n].instances;
                        all.iter().filter(|i| !i.state.is_final() && i.gpu.as_ref() == Some(gpu)).count()
                    };
                    prop_assert!(users(endpoint) < policy.gpus.iter().filter(|g| *g == gpu).count());
                    let others = world.counters.endpoints.keys().filter(|n| *n != endpoint);
                    prop_assert!(others.into_iter().all(|n| users(n) == 0));
                }
            }
            assume(&mut world.counters, action, at(now));
        }
    }

    #[test]
    fn a_waiting_job_of_a_known_endpoint_has_a_reason(world in any_world(), ahead in 0u64..20, now in 0u64..400) {
        for endpoint in world.counters.endpoints.keys() {
            let reason = why_waiting(endpoint, ahead, &world.counters, &world.policy, at(now));
            prop_assert_eq!(reason.is_some(), world.policy.endpoints.contains_key(endpoint));
            prop_assert!(reason.is_none_or(|r| !r.to_string().is_empty()));
        }
    }
}
