//! Holding an endpoint's line, moving jobs in it, clearing it, and who may be served from it.

use std::time::Duration;

use darkroom_core::{Clock, JobId, JobState};

use super::{
    World, done, failed, tests,
    world::{endpoint, out_of_memory, tenant},
};
use crate::jobs::{Moved, Place};

/// Claims all that may be claimed and ends each, in the order in which they are handed out.
async fn order(world: &World) -> Vec<JobId> {
    let mut order = Vec::new();
    while let Some(claimed) = world.claim().await {
        order.push(claimed.job.id);
        world.finish(super::lease(&claimed), done()).await;
    }
    order
}

async fn moved(world: &World, job: JobId, place: Place) -> Moved {
    let moved = world.store().move_job(None, job, place).await.unwrap();
    moved.expect("there is such a job")
}

tests! {
    async fn a_paused_line_hands_out_nothing_until_it_is_resumed(world: World) {
        assert!(world.store().pause(&endpoint()).await.unwrap(), "also before its first job");
        let job = world.accept_one().await;
        assert!(world.claim().await.is_none());
        world.clock.advance(Duration::from_secs(5));
        assert!(!world.store().pause(&endpoint()).await.unwrap());
        let of = world.store().counters().await.unwrap()[&endpoint()].clone();
        assert_eq!(of.queued, 1);
        assert_eq!(of.paused_since.map(|at| world.clock.now().since(at)), Some(Duration::from_secs(5)));
        assert!(world.store().resume(&endpoint()).await.unwrap());
        assert!(!world.store().resume(&endpoint()).await.unwrap());
        assert_eq!(world.store().counters().await.unwrap()[&endpoint()].paused_since, None);
        assert_eq!(order(&world).await, [job]);
    }

    async fn a_job_goes_first_last_and_before_another(world: World) {
        let mut jobs = Vec::new();
        for _ in 0..4 {
            jobs.push(world.accept_one().await);
        }
        let [a, b, c, d] = jobs[..] else { panic!() };
        assert_eq!(moved(&world, c, Place::First).await, Moved::Now);
        assert_eq!(moved(&world, a, Place::Last).await, Moved::Now);
        assert_eq!(moved(&world, d, Place::Before(b)).await, Moved::Now);
        assert_eq!(moved(&world, d, Place::Before(d)).await, Moved::Now);
        let places = world.store().positions(&[a, b, c, d]).await.unwrap();
        assert_eq!([c, d, b, a].map(|id| places[&id]), [0, 1, 2, 3]);
        let e = world.accept_one().await;
        assert_eq!(order(&world).await, [c, d, b, a, e]);
        assert_eq!(moved(&world, a, Place::First).await, Moved::NotWaiting(JobState::Succeeded));
        let f = world.accept_one().await;
        assert_eq!(moved(&world, f, Place::Before(a)).await, Moved::NoSuchPlace);
        let counted = world.store().counters().await.unwrap()[&endpoint()].clone();
        assert_eq!((counted.queued, counted.queued_low_priority), (1, 0));
    }

    async fn the_first_place_is_the_next_turn_whoever_else_waits(world: World) {
        let mut high = world.new_job();
        high.priority = 7;
        high.tenant = tenant("u");
        let high = world.accept(high).await;
        let mut low = world.new_job();
        low.priority = -5;
        let low = world.accept(low).await;
        let plain = world.accept_one().await;
        assert_eq!(moved(&world, low, Place::First).await, Moved::Now);
        let of = world.store().counters().await.unwrap()[&endpoint()].clone();
        assert_eq!((of.queued, of.queued_low_priority), (3, 0));
        assert_eq!(order(&world).await, [low, high, plain]);
    }

    async fn a_tenant_moves_and_clears_only_its_own(world: World) {
        let mine = world.accept_one().await;
        let mut foreign = world.new_job();
        foreign.tenant = tenant("u");
        let foreign = world.accept(foreign).await;
        let (me, other) = (tenant("t"), tenant("u"));
        assert_eq!(world.store().move_job(Some(&other), mine, Place::First).await.unwrap(), None);
        let before = world.store().move_job(Some(&me), mine, Place::Before(foreign)).await.unwrap();
        assert_eq!(before, Some(Moved::NoSuchPlace));
        world.clock.advance(Duration::from_secs(1));
        let cleared = world.store().clear(&endpoint(), Some(&me), world.clock.now()).await.unwrap();
        assert_eq!((cleared.rows, cleared.more), (1, false));
        assert_eq!(world.store().job(None, mine).await.unwrap().unwrap().state, JobState::Cancelled);
        assert_eq!(order(&world).await, [foreign]);
    }

    async fn clearing_ends_what_waits_and_neither_what_runs_nor_what_comes_later(world: World) {
        let runs = world.accept_one().await;
        let held = world.claim_lease().await;
        let mut waiting = Vec::new();
        for priority in 0..201 {
            let mut job = world.new_job();
            job.priority = priority % 3;
            waiting.push(world.accept(job).await);
        }
        world.clock.advance(Duration::from_secs(1));
        let now = world.clock.now();
        let later = world.accept_one().await;
        let first = world.store().clear(&endpoint(), None, now).await.unwrap();
        assert_eq!((first.rows, first.more), (200, true));
        let second = world.store().clear(&endpoint(), None, now).await.unwrap();
        assert_eq!((second.rows, second.more), (1, false));
        for id in waiting {
            assert_eq!(world.store().job(None, id).await.unwrap().unwrap().state, JobState::Cancelled);
        }
        assert_eq!(world.store().job(None, runs).await.unwrap().unwrap().state, JobState::Running);
        world.finish(held, done()).await;
        assert_eq!(order(&world).await, [later]);
    }

    async fn a_tenant_at_its_quota_waits_while_others_are_served(world: World) {
        let mut jobs = Vec::new();
        for who in ["t", "t", "t", "u"] {
            let mut job = world.new_job();
            job.tenant = tenant(who);
            jobs.push(world.accept(job).await);
        }
        let claim = async || {
            let mut claim = world.claim_for(1);
            claim.max_running_per_tenant = 1;
            world.store().claim(claim).await.unwrap()
        };
        assert_eq!(world.store().over_quota(&endpoint(), 1).await.unwrap(), 2);
        let first = claim().await.expect("the first of t");
        let other = claim().await.expect("the one of u");
        assert_eq!([first.job.id, other.job.id], [jobs[0], jobs[3]]);
        assert!(claim().await.is_none(), "t runs one already");
        let full = world.store().at_quota(&endpoint(), 1).await.unwrap();
        assert_eq!(full.into_iter().collect::<Vec<_>>(), [(tenant("t"), 1), (tenant("u"), 1)]);
        assert_eq!(world.store().over_quota(&endpoint(), 1).await.unwrap(), 2);
        assert_eq!(world.store().over_quota(&endpoint(), 2).await.unwrap(), 1);
        world.finish(super::lease(&first), failed()).await;
        assert_eq!(claim().await.expect("the next of t").job.id, jobs[1]);
    }

    async fn a_job_that_ran_out_of_memory_comes_back_once(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        assert_eq!(world.finish(held, out_of_memory()).await, JobState::Queued);
        let job = world.store().job(None, id).await.unwrap().unwrap();
        assert_eq!((job.out_of_memory, job.lost_attempts, job.failure), (1, 0, None));
        let held = world.claim_lease().await;
        assert_eq!(world.finish(held, out_of_memory()).await, JobState::Failed);
        assert!(world.store().retry(None, id).await.unwrap().unwrap());
        assert_eq!(world.store().job(None, id).await.unwrap().unwrap().out_of_memory, 0);
    }

    async fn the_newest_runs_tell_how_long_a_run_takes(world: World) {
        for seconds in [1, 5, 3] {
            world.accept_one().await;
            let held = world.claim_lease().await;
            world.clock.advance(Duration::from_secs(seconds));
            world.finish(held, if seconds == 5 { failed() } else { done() }).await;
        }
        let runs = world.store().recent_runs(&endpoint(), 9).await.unwrap();
        assert_eq!(runs, [Duration::from_secs(3), Duration::from_secs(1)], "what failed tells nothing");
        assert_eq!(world.store().recent_runs(&endpoint(), 1).await.unwrap().len(), 1);
    }
}
