//! What holds in any situation.

use darkroom_core::scheduler::plan::assume;
use proptest::prelude::*;

use super::*;

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
    fn a_waiting_job_has_a_reason_and_only_one_of_an_unknown_endpoint_waits_for_it(world in any_world(), ahead in 0u64..20, now in 0u64..400) {
        for endpoint in world.counters.endpoints.keys() {
            let reason = why_waiting(endpoint, ahead, None, &world.counters, &world.policy, at(now));
            let removed = reason == WaitReason::EndpointRemoved;
            prop_assert_eq!(!removed, world.policy.endpoints.contains_key(endpoint));
            prop_assert!(!reason.to_string().is_empty());
        }
    }
}
