//! Who gets which job.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use darkroom_core::{
    InstanceId, InstanceState, JobState,
    scheduler::{Need, Needs, Offers},
};
use uuid::Uuid;

use crate::{
    catalog::{InstanceChange, InstanceRecord},
    jobs::Claim,
};

use super::{
    World,
    catalog::instance,
    lost, tests,
    world::{endpoint, lease, tenant},
};

tests! {
    async fn nothing_waiting_is_nothing_claimed(world: World) {
        assert!(world.claim().await.is_none());
        world.accept_one().await;
        let mut elsewhere = world.claim_for(1);
        elsewhere.endpoint = "other".parse().unwrap();
        assert!(world.store().claim(elsewhere).await.unwrap().is_none());
    }

    async fn a_claim_brings_the_job_an_attempt_and_a_fence(world: World) {
        let id = world.accept_one().await;
        let claimed = world.claim().await.unwrap();
        assert_eq!((claimed.job.id, claimed.attempt), (id, 1));
        assert_eq!(claimed.job.state, JobState::Running);
        assert_eq!(claimed.job.started_at, Some(darkroom_core::Clock::now(&*world.clock)));
        assert!(!claimed.reason.is_empty());
        let attempts = world.store().attempts(id).await.unwrap();
        assert_eq!(attempts.len(), 1);
        assert_eq!((attempts[0].fence, attempts[0].number), (claimed.fence, 1));
        assert_eq!(attempts[0].reason, claimed.reason);
        assert!(world.claim().await.is_none(), "a job is held once");
    }

    async fn an_instance_that_drains_claims_nothing_and_counts_what_ended_on_it(world: World) {
        world.accept_one().await;
        world.accept_one().await;
        let claim = world.claim_for(1);
        let id = claim.instance;
        let to = |state| InstanceChange { state: Some(state), ..InstanceChange::default() };
        world.store().add_instance(InstanceRecord { id, ..instance(&world) }).await.unwrap();
        assert!(world.store().claim(claim.clone()).await.unwrap().is_none(), "it only starts");
        assert!(world.store().change_instance(id, InstanceState::Starting, to(InstanceState::Ready)).await.unwrap());
        let claimed = world.store().claim(claim.clone()).await.unwrap().unwrap();
        world.finish(lease(&claimed), super::done()).await;
        assert_eq!(world.store().instance(id).await.unwrap().unwrap().jobs_done, 1);
        assert!(world.store().change_instance(id, InstanceState::Ready, to(InstanceState::Draining)).await.unwrap());
        assert!(world.store().claim(claim).await.unwrap().is_none(), "it drains");
    }

    async fn fences_grow_for_ever(world: World) {
        let mut last = 0;
        for _ in 0..3 {
            world.accept_one().await;
            let claimed = world.claim().await.unwrap();
            assert!(claimed.fence.0 > last);
            last = claimed.fence.0;
            world.finish(lease(&claimed), lost()).await;
            let again = world.claim().await.unwrap();
            assert!(again.fence.0 > last);
            last = again.fence.0;
            world.finish(lease(&again), super::done()).await;
        }
    }

    async fn higher_priority_first_then_older(world: World) {
        let low = { let mut j = world.new_job(); j.priority = -1; world.accept(j).await };
        let a = world.accept_one().await;
        let b = world.accept_one().await;
        let high = { let mut j = world.new_job(); j.priority = 5; world.accept(j).await };
        for expected in [high, a, b, low] {
            assert_eq!(world.claim().await.unwrap().job.id, expected);
        }
    }

    async fn a_flooding_tenant_does_not_starve_another(world: World) {
        for _ in 0..40 {
            let mut job = world.new_job();
            job.tenant = tenant("flood");
            world.accept(job).await;
        }
        let mut quiet = BTreeSet::new();
        for _ in 0..3 {
            let mut job = world.new_job();
            job.tenant = tenant("quiet");
            quiet.insert(world.accept(job).await);
        }
        for _ in 0..7 {
            quiet.remove(&world.claim().await.unwrap().job.id);
        }
        assert!(quiet.is_empty(), "turns are taken one by one");
    }

    async fn what_a_tenant_had_alone_counts_for_nobody(world: World) {
        let accept = async |name: &str, n: usize| {
            for _ in 0..n {
                let mut job = world.new_job();
                job.tenant = tenant(name);
                world.accept(job).await;
            }
        };
        accept("first", 30).await;
        for _ in 0..20 {
            assert_eq!(world.claim().await.unwrap().job.tenant, tenant("first"));
        }
        accept("second", 10).await;
        let mut had = BTreeMap::new();
        for _ in 0..10 {
            *had.entry(world.claim().await.unwrap().job.tenant).or_insert(0) += 1;
        }
        assert_eq!(had, BTreeMap::from([(tenant("first"), 5), (tenant("second"), 5)]));
    }

    async fn more_tenants_than_are_looked_at_all_get_their_turn(world: World) {
        for n in 0..60 {
            for _ in 0..2 {
                let mut job = world.new_job();
                job.tenant = tenant(&format!("t{n}"));
                world.accept(job).await;
            }
        }
        let mut served = BTreeSet::new();
        for _ in 0..60 {
            served.insert(world.claim().await.unwrap().job.tenant);
        }
        assert_eq!(served.len(), 60, "nobody has two before everybody has one");
    }

    async fn loaded_models_win_but_overtake_only_so_often(world: World) {
        let plain = world.accept_one().await;
        for _ in 0..10 {
            let mut job = world.new_job();
            job.meta.models = vec!["sdxl".to_owned()];
            world.accept(job).await;
        }
        let mut overtaken = 0;
        loop {
            let mut claim = world.claim_for(1);
            claim.loaded_models = vec!["sdxl".to_owned(), "vae".to_owned()];
            if world.store().claim(claim).await.unwrap().unwrap().job.id == plain {
                break;
            }
            overtaken += 1;
        }
        assert_eq!(overtaken, darkroom_core::scheduler::pick::MAX_SKIPS);
    }

    async fn what_waits_with_lower_priority_does_not_narrow_the_choice(world: World) {
        world.accept_one().await;
        world.claim().await.unwrap();
        let mut lower = world.new_job();
        lower.priority = -1;
        lower.tenant = tenant("never-served");
        world.accept(lower).await;
        world.accept_one().await;
        let mut fitting = world.new_job();
        fitting.meta.models = vec!["sdxl".to_owned()];
        let fitting = world.accept(fitting).await;
        let mut claim = world.claim_for(1);
        claim.loaded_models = vec!["sdxl".to_owned()];
        assert_eq!(world.store().claim(claim).await.unwrap().unwrap().job.id, fitting);
    }

    async fn a_job_lost_on_an_instance_goes_to_another_one(world: World) {
        let first = world.accept_one().await;
        let second = world.accept_one().await;
        let claimed = world.claim().await.unwrap();
        assert_eq!(claimed.job.id, first);
        world.finish(lease(&claimed), lost()).await;
        assert_eq!(world.claim().await.unwrap().job.id, second, "the same instance takes the other");
        let other = world.store().claim(world.claim_for(2)).await.unwrap().unwrap();
        assert_eq!((other.job.id, other.attempt), (first, 2));
    }

    async fn what_a_slot_may_still_be_at_is_not_handed_to_it_again(world: World) {
        let first = world.accept_one().await;
        let second = world.accept_one().await;
        let mut claim = world.claim_for(1);
        claim.except = vec![first];
        assert_eq!(world.store().claim(claim.clone()).await.unwrap().unwrap().job.id, second);
        assert!(world.store().claim(claim).await.unwrap().is_none(), "rather nothing");
        assert_eq!(world.store().claim(world.claim_for(2)).await.unwrap().unwrap().job.id, first);
    }

    async fn a_box_takes_only_what_can_run_there_however_much_else_waits(world: World) {
        let needing = |class: &str| {
            let mut job = world.new_job();
            job.meta.needs = Needs([Need::Class(class.to_owned())].into());
            job
        };
        let offering = |instance: u128, classes: &[&str]| {
            let mut offers = Offers::default();
            classes.iter().for_each(|class| offers.add_class(class));
            Claim { offers: Some(Arc::new(offers)), ..world.claim_for(instance) }
        };
        let mut urgent = needing("flux");
        urgent.priority = 9;
        let urgent = world.accept(urgent).await;
        // More than are handed to `pick` at once, of more tenants than are looked at where boxes are equal.
        for n in 0..40 {
            let mut job = needing("flux");
            job.tenant = tenant(&format!("t{n}"));
            world.accept(job).await;
            world.accept(needing("flux")).await;
        }
        let sdxl = world.accept(needing("sdxl")).await;
        let mut low = needing("sdxl");
        low.priority = -1;
        let low = world.accept(low).await;
        let mut any = world.new_job();
        any.tenant = tenant("any");
        let any = world.accept(any).await;

        assert_eq!(world.store().needs(sdxl).await.unwrap(), needing("sdxl").meta.needs);
        assert!(world.store().needs(any).await.unwrap().is_empty());
        let waiting: BTreeMap<_, _> =
            world.store().waiting_needs(&endpoint()).await.unwrap().into_iter().map(|(n, jobs)| (n.0, jobs)).collect();
        let counted = [("flux", 81), ("sdxl", 1)].map(|(class, jobs)| (needing(class).meta.needs.0, jobs));
        assert_eq!(waiting, BTreeMap::from(counted), "those that start something");
        let mut taken = BTreeSet::new();
        for _ in 0..3 {
            taken.insert(world.store().claim(offering(1, &["sdxl"])).await.unwrap().unwrap().job.id);
        }
        assert_eq!(taken, BTreeSet::from([sdxl, low, any]));
        assert!(world.store().claim(offering(1, &["sdxl"])).await.unwrap().is_none());
        assert!(world.store().claim(offering(1, &[])).await.unwrap().is_none());
        let both = world.store().claim(offering(2, &["flux", "sdxl"])).await.unwrap().unwrap();
        assert_eq!(both.job.id, urgent);
        assert!(world.store().claim(world.claim_for(3)).await.unwrap().is_some(), "equal boxes take any");
    }

    async fn many_slots_claiming_at_once_never_share_a_job(world: World) {
        for _ in 0..30 {
            world.accept_one().await;
        }
        let tasks: Vec<_> = (0..40u128).map(|n| {
            let store = world.store().clone();
            let mut claim = world.claim_for(n);
            claim.instance = InstanceId::from_uuid(Uuid::from_u128(n));
            tokio::spawn(async move { store.claim(claim).await.unwrap().map(|c| c.job.id) })
        }).collect();
        let mut got = Vec::new();
        for task in tasks {
            got.extend(task.await.unwrap());
        }
        assert_eq!(got.len(), 30);
        assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), 30);
    }

    async fn counters_follow_every_change(world: World) {
        let read = async || {
            let counters = world.store().counters().await.unwrap();
            let counters = counters.get(&endpoint()).cloned().unwrap_or_default();
            assert_eq!(world.store().queued(&endpoint()).await.unwrap(), counters.queued);
            counters
        };
        assert_eq!(read().await, Default::default());
        let accepted_at = darkroom_core::Clock::now(&*world.clock);
        world.accept_one().await;
        world.clock.advance(Duration::from_secs(1));
        let mut low = world.new_job();
        low.priority = -1;
        low.queue_ttl = Some(Duration::from_secs(60));
        world.accept(low).await;
        let now = read().await;
        assert_eq!((now.queued, now.queued_low_priority, now.running), (2, 1, 0));
        assert_eq!(now.oldest_queued_at, Some(accepted_at));
        assert_eq!(now.next_expiry_at, Some(accepted_at.plus(Duration::from_secs(61))));
        let held = world.claim_lease().await;
        let now = read().await;
        assert_eq!((now.queued, now.queued_low_priority, now.running), (1, 1, 1));
        assert_eq!(now.next_lease_expiry_at, Some(accepted_at.plus(Duration::from_secs(31))));
        world.store().collecting(held).await.unwrap().unwrap();
        world.store().collecting(held).await.unwrap().unwrap();
        let now = read().await;
        assert_eq!((now.running, now.collecting), (0, 1));
        world.finish(held, super::done()).await;
        let held = world.claim_lease().await;
        world.finish(held, super::failed()).await;
        let ended = crate::jobs::QueueCounters {
            completed: 1,
            failed: 1,
            ..Default::default()
        };
        assert_eq!(read().await, ended);
    }
}
