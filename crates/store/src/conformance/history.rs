//! A tenant's history of an endpoint: what stands in it, in which order, how it is paged, counted and cleared; and the
//! places that jobs enter the line at.

use std::time::Duration;

use darkroom_core::{AttemptOutcome, Clock, JobId, JobState};

use super::{
    World, done, failed, tests,
    world::{endpoint, ends, external, tenant},
};
use crate::jobs::{
    Entry, HistoryFilter, HistoryOrder, HistoryPage, JobRecord, NamedJob, OnDuplicate, Submitted,
};

fn all() -> HistoryFilter {
    HistoryFilter {
        tenant: tenant("t"),
        endpoint: endpoint(),
        states: vec![],
        workflow_id: None,
    }
}

fn page(order: HistoryOrder, descending: bool, offset: u64, limit: u32) -> HistoryPage {
    HistoryPage {
        order,
        descending,
        offset,
        limit,
    }
}

/// As both ways of asking tell it.
async fn ids(world: &World, filter: &HistoryFilter, page: HistoryPage) -> Vec<JobId> {
    let found = world.store().history(filter.clone(), page).await.unwrap();
    let named = world.store().history_names(filter.clone(), page).await.unwrap();
    let name = |job: &JobRecord| NamedJob {
        id: job.id,
        external_id: job.external_id.clone(),
    };
    assert_eq!(named, found.iter().map(name).collect::<Vec<_>>());
    found.iter().map(|job| job.id).collect()
}

async fn length(world: &World, filter: &HistoryFilter) -> u64 {
    world.store().history_len(filter.clone()).await.unwrap()
}

/// Accepts a job and lets it run to its end a second later.
async fn ended(world: &World, took: u64) -> JobId {
    let id = world.accept_one().await;
    let lease = world.claim_lease().await;
    world.clock.advance(Duration::from_secs(took));
    world.finish(lease, done()).await;
    id
}

tests! {
    async fn what_ended_stands_in_history_in_the_order_of_ends(world: World) {
        let first = world.accept_one().await;
        let second = world.accept_one().await;
        let (one, two) = (world.claim_lease().await, world.claim_lease().await);
        assert_eq!((one.job, two.job), (first, second));
        world.clock.advance(Duration::from_secs(1));
        world.finish(two, failed()).await;
        world.clock.advance(Duration::from_secs(1));
        world.finish(one, done()).await;
        world.accept_one().await;
        let order = |order, descending| page(order, descending, 0, 10);
        assert_eq!(ids(&world, &all(), order(HistoryOrder::Ended, false)).await, [second, first]);
        assert_eq!(ids(&world, &all(), order(HistoryOrder::Ended, true)).await, [first, second]);
        assert_eq!(ids(&world, &all(), order(HistoryOrder::Accepted, true)).await, [second, first]);
        assert_eq!(ids(&world, &all(), order(HistoryOrder::Duration, true)).await, [first, second]);
        assert_eq!(length(&world, &all()).await, 2);
        let failures = HistoryFilter { states: vec![JobState::Failed, JobState::Expired], ..all() };
        assert_eq!(ids(&world, &failures, order(HistoryOrder::Ended, false)).await, [second]);
        assert_eq!(length(&world, &failures).await, 1);
        for other in [
            HistoryFilter { tenant: tenant("u"), ..all() },
            HistoryFilter { endpoint: "other".parse().unwrap(), ..all() },
        ] {
            assert!(ids(&world, &other, order(HistoryOrder::Ended, false)).await.is_empty());
            assert_eq!(length(&world, &other).await, 0);
        }
    }

    async fn pages_of_history_are_counted_from_its_beginning(world: World) {
        let mut ran = Vec::new();
        for _ in 0..5 {
            ran.push(ended(&world, 1).await);
        }
        for order in [HistoryOrder::Ended, HistoryOrder::Accepted] {
            assert_eq!(ids(&world, &all(), page(order, false, 1, 2)).await, ran[1..3]);
            assert_eq!(ids(&world, &all(), page(order, true, 0, 2)).await, [ran[4], ran[3]]);
            assert!(ids(&world, &all(), page(order, false, 5, 2)).await.is_empty());
            assert!(ids(&world, &all(), page(order, false, u64::MAX, 2)).await.is_empty());
            assert!(ids(&world, &all(), page(order, false, 0, 0)).await.is_empty());
        }
    }

    async fn a_cancelled_job_stands_in_history_only_if_it_ever_began(world: World) {
        let waited = world.accept_one().await;
        assert!(world.store().cancel_waiting(Some(&tenant("t")), waited).await.unwrap());
        assert!(!world.store().is_remembered(waited).await.unwrap());
        let ran = world.accept_one().await;
        let lease = world.claim_lease().await;
        assert!(!world.store().cancel_waiting(Some(&tenant("t")), ran).await.unwrap(), "it does not wait");
        world.store().cancel(None, ran).await.unwrap();
        world.finish(lease, ends(AttemptOutcome::Cancelled)).await;
        assert_eq!(ids(&world, &all(), page(HistoryOrder::Ended, false, 0, 9)).await, [ran]);
        assert_eq!(length(&world, &all()).await, 1);
    }

    async fn a_waiting_job_is_cancelled_by_its_own_tenant_alone(world: World) {
        let id = world.accept_one().await;
        assert!(!world.store().cancel_waiting(Some(&tenant("u")), id).await.unwrap());
        assert!(!world.store().cancel_waiting(None, world.new_job().id).await.unwrap());
        assert!(world.store().cancel_waiting(None, id).await.unwrap());
        assert!(!world.store().cancel_waiting(None, id).await.unwrap(), "once");
        assert_eq!(world.store().job(None, id).await.unwrap().unwrap().state, JobState::Cancelled);
    }

    async fn what_is_forgotten_is_in_no_page_and_stays_a_job(world: World) {
        let mut ran = Vec::new();
        for _ in 0..4 {
            ran.push(ended(&world, 1).await);
        }
        let waiting = world.accept_one().await;
        let t = tenant("t");
        let wanted = vec![ran[1], waiting, world.new_job().id, ran[1]];
        assert_eq!(world.store().forget(&t, &endpoint(), wanted).await.unwrap(), 1);
        assert_eq!(world.store().forget(&tenant("u"), &endpoint(), ran.clone()).await.unwrap(), 0);
        let order = page(HistoryOrder::Accepted, false, 0, 9);
        assert_eq!(ids(&world, &all(), order).await, [ran[0], ran[2], ran[3]]);
        assert_eq!(length(&world, &all()).await, 3);
        assert!(!world.store().is_remembered(ran[1]).await.unwrap());
        assert!(world.store().is_remembered(ran[0]).await.unwrap());
        assert_eq!(world.store().job(Some(&t), ran[1]).await.unwrap().unwrap().state, JobState::Succeeded);
        let until = world.clock.now();
        world.clock.advance(Duration::from_secs(1));
        let lease = world.claim_lease().await;
        world.finish(lease, done()).await;
        let swept = world.store().forget_all(&t, &endpoint(), until).await.unwrap();
        assert_eq!((swept.rows, swept.more), (3, false));
        assert_eq!(ids(&world, &all(), order).await, [waiting], "what ended later stays");
        assert_eq!(length(&world, &all()).await, 1);
    }

    async fn a_job_that_is_queued_again_or_swept_leaves_history(world: World) {
        let again = ended(&world, 1).await;
        let swept = ended(&world, 1).await;
        assert_eq!(world.store().retry(None, again).await.unwrap(), Some(true));
        assert_eq!(length(&world, &all()).await, 1);
        world.clock.advance(Duration::from_secs(60));
        let gone = world.store().sweep_finished(&endpoint(), Duration::from_secs(30)).await.unwrap();
        assert_eq!(gone.rows, 1);
        assert_eq!(length(&world, &all()).await, 0);
        assert!(!world.store().is_remembered(swept).await.unwrap());
        let lease = world.claim_lease().await;
        world.finish(lease, done()).await;
        assert_eq!(ids(&world, &all(), page(HistoryOrder::Ended, false, 0, 9)).await, [again]);
        assert_eq!(length(&world, &all()).await, 1);
    }

    async fn history_is_filtered_by_workflow(world: World) {
        let mut named = world.new_job();
        named.meta.options = serde_json::json!({"workflow_id": "图-1"});
        let named = world.accept(named).await;
        let lease = world.claim_lease().await;
        world.finish(lease, done()).await;
        ended(&world, 1).await;
        let filter = HistoryFilter { workflow_id: Some("图-1".to_owned()), ..all() };
        assert_eq!(ids(&world, &filter, page(HistoryOrder::Accepted, true, 0, 9)).await, [named]);
        assert_eq!(length(&world, &filter).await, 1);
    }

    async fn jobs_enter_the_line_where_they_wish_and_keep_their_numbers(world: World) {
        let enter = async |entry| {
            let mut job = world.new_job();
            job.entry = entry;
            let id = world.accept(job).await;
            (id, world.store().job(None, id).await.unwrap().unwrap().place)
        };
        let (second, at_second) = enter(Entry::Back).await;
        let (third, at_third) = enter(Entry::Back).await;
        let (front1, at_front1) = enter(Entry::Front).await;
        let (front2, at_front2) = enter(Entry::Front).await;
        let (chosen, at_chosen) = enter(Entry::At(-100)).await;
        let (tie, at_tie) = enter(Entry::At(at_second)).await;
        assert_eq!([at_second, at_third, at_front1, at_front2, at_chosen, at_tie], [1, 2, -3, -4, -100, 1]);
        let mut served = Vec::new();
        while let Some(claimed) = world.claim().await {
            served.push(claimed.job.id);
        }
        assert_eq!(served, [chosen, front2, front1, second, tie, third]);
        assert_eq!(world.store().job(None, front2).await.unwrap().unwrap().place, -4);
    }

    async fn a_name_stands_for_the_live_job_and_moves_on_after_its_end(world: World) {
        let named = || {
            let mut job = world.new_job();
            job.external_id = external("p", OnDuplicate::WhileLive);
            job
        };
        let first = world.accept(named()).await;
        assert_eq!(world.store().submit(named()).await.unwrap(), Submitted::Existing(first));
        let lease = world.claim_lease().await;
        assert_eq!(world.store().submit(named()).await.unwrap(), Submitted::Existing(first), "while it runs too");
        world.finish(lease, done()).await;
        let second = world.accept(named()).await;
        let found = world.store().job_by_external_id(&tenant("t"), None, "fc_task", "p").await.unwrap();
        assert_eq!(found, Some(second));
    }
}
