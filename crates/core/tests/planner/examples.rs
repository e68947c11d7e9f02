//! What the planner does in situations an operator would recognise.

use darkroom_core::{
    InstanceState::{Draining, Ready, Starting, Stopping},
    instance::StartStep,
    scheduler::{HeldBack, Signal, Verdict, autoscale::ATTENTION, waiting::StartPhase},
};

use super::*;

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
    assert_eq!(world.actions(60), ["drain 2"]);
    assert_eq!(
        world.actions(1000),
        ["drain 2", "drain 1"],
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
    assert_eq!(one(counters(0), policy).actions(5), ["drain 1", "start default"]);
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
        ["drain 1"],
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
    assert_eq!(
        draining(0).actions(0),
        nothing(),
        "not in the moment it was drained"
    );
    assert!(draining(0).plan(0).next_wake.is_some());
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
    assert_eq!(world.actions(1), ["stop 3", "drain 2", "drain 4"]);
    let waits = world.why("default", 3, 1);
    let phase = StartPhase::Booting {
        since: at(0),
        reached: None,
    };
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
    assert_eq!(world.actions(1), ["drain 1", "drain 2", "stop 3"]);
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
        ["drain 1"],
        "and starts when the first one is gone"
    );
    assert_eq!(
        world.why("b", 0, 6),
        WaitReason::GpuBusy {
            holder: Some(name("a"))
        }
    );
    let told = world
        .why("b", 0, 6)
        .for_users_of(|endpoint| *endpoint != name("a"));
    assert_eq!(told, WaitReason::GpuBusy { holder: None });
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
        instances: vec![
            instance(2, Starting, 0, 5),
            InstanceView {
                phase: Some(StartStep::Listening),
                ..instance(1, Starting, 0, 7)
            },
        ],
        ..queued(1, 0)
    };
    let phase = StartPhase::Booting {
        since: at(7),
        reached: Some(StartStep::Listening),
    };
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
        why_waiting(
            &name("none"),
            0,
            None,
            &Counters::default(),
            &Policy::default(),
            at(0)
        ),
        WaitReason::EndpointRemoved
    );
}

#[test]
fn what_holds_back_one_job_is_told_before_what_all_wait_for() {
    let busy = EndpointCounters {
        instances: vec![instance(1, Ready, 0, 7)],
        ..queued(3, 0)
    };
    let world = one(busy, managed(0, 2));
    let why = |held_back| {
        let (counters, policy) = (&world.counters, &world.policy);
        why_waiting(&name("default"), 0, Some(held_back), counters, policy, at(9))
    };
    assert_eq!(
        why(HeldBack::Quota { running: 2, limit: 2 }),
        WaitReason::Quota { running: 2, limit: 2 }
    );
    let instances = vec!["box-a".to_owned()];
    let only = why(HeldBack::ModelOnlyOn {
        instances: instances.clone(),
    });
    assert_eq!(only, WaitReason::ModelOnlyOn { instances });
    assert_eq!(only.to_string(), "only box-a can run it");
    assert!(
        !only.for_clients().to_string().contains("box-a"),
        "where instances are is their operator's business"
    );
}

#[test]
fn demand_beyond_the_bound_is_told_and_what_the_bound_holds_is_not() {
    let busy = |waiting| EndpointCounters {
        instances: vec![instance(1, Ready, 1, 0)],
        ..queued(waiting, 0)
    };
    let plan = one(busy(2), managed(0, 1)).plan(1);
    assert_eq!(plan.actions, []);
    assert_eq!(
        plan.reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["default: 3 jobs wait or run, 1 slots serve; no more may be started"]
    );
    assert_eq!(one(busy(0), managed(0, 1)).plan(1).reasons, []);
}

#[test]
fn jobs_over_their_tenants_quota_start_nothing() {
    let counters = |over_quota| EndpointCounters {
        over_quota,
        instances: vec![instance(1, Ready, 1, 0)],
        ..queued(5, 0)
    };
    assert_eq!(one(counters(5), managed(0, 3)).actions(1), nothing());
    assert_eq!(one(counters(4), managed(0, 3)).actions(1), ["start default"]);
}

#[test]
fn jobs_that_no_box_can_run_start_nothing_and_keep_nothing() {
    let counters = |unplaced, busy| EndpointCounters {
        unplaced,
        instances: vec![instance(1, Ready, busy, 0)],
        ..queued(5, 0)
    };
    assert_eq!(one(counters(5, 1), managed(0, 3)).actions(1), nothing());
    assert_eq!(one(counters(4, 1), managed(0, 3)).actions(1), ["start default"]);
    let idle = one(counters(5, 0), managed(0, 3)).actions(IDLE_TIMEOUT);
    assert_ne!(idle, nothing());
    assert_eq!(
        one(counters(4, 0), managed(0, 1)).actions(IDLE_TIMEOUT),
        nothing()
    );
}

#[test]
fn callers_that_wait_for_an_instance_get_one_and_it_stays_while_they_do() {
    let waiting = |callers_waiting, instances: Vec<InstanceView>| EndpointCounters {
        callers_waiting,
        instances,
        ..queued(0, 0)
    };
    assert_eq!(
        one(waiting(7, vec![]), managed(0, 3)).actions(1),
        ["start default"]
    );
    let idle = vec![instance(1, Ready, 0, 0)];
    assert_eq!(
        one(waiting(7, idle.clone()), managed(0, 3)).actions(IDLE_TIMEOUT),
        nothing()
    );
    assert_eq!(
        one(waiting(0, idle), managed(0, 3)).actions(IDLE_TIMEOUT),
        ["drain 1"]
    );
    let none_allowed = managed(0, 0);
    assert_eq!(one(waiting(7, vec![]), none_allowed).actions(1), nothing());
}

#[test]
fn a_person_at_the_page_keeps_an_idle_instance_for_minutes_and_starts_none() {
    let watched = |user_active_at| EndpointCounters {
        user_active_at: Some(at(user_active_at)),
        instances: vec![instance(1, Ready, 0, 0)],
        ..queued(0, 0)
    };
    let world = one(watched(40), managed(0, 1));
    assert_eq!(world.actions(IDLE_TIMEOUT), nothing());
    assert_eq!(world.plan(IDLE_TIMEOUT).next_wake, Some(at(40 + IDLE_TIMEOUT)));
    assert_eq!(world.actions(40 + IDLE_TIMEOUT), ["drain 1"]);
    // However long instances may idle, a person who went away holds one no longer than that.
    let mut patient = managed(0, 1);
    patient.scaling.idle_timeout = Duration::from_secs(3600);
    let world = one(watched(3590), patient);
    assert_eq!(world.actions(3600), nothing());
    assert_eq!(world.actions(3590 + ATTENTION.as_secs()), ["drain 1"]);
    let nobody_there = EndpointCounters {
        user_active_at: Some(at(1)),
        ..queued(0, 0)
    };
    assert_eq!(one(nobody_there, managed(0, 1)).actions(1), nothing());
}
