//! How long ended jobs are kept: their endpoint's retention, and their own time.

use std::time::Duration;

use darkroom_core::{JobState, Keep, Payload, keep::TOLD_FOR};

use super::{
    World, done, external, failed, file, tests,
    world::{blob, endpoint, tenant},
};
use crate::jobs::{Deleted, Finish, NewJob, OnDuplicate};

const HOUR: Duration = Duration::from_secs(3600);

fn that_lives(world: &World, life: Duration) -> NewJob {
    let keep = Keep {
        life: Some(life),
        after_end: None,
    };
    NewJob {
        keep,
        ..world.new_job()
    }
}

tests! {
    async fn old_finished_jobs_are_forgotten_with_all_that_is_theirs(world: World) {
        let mut old = world.new_job();
        old.external_id = external("x", OnDuplicate::Reject);
        old.input = Payload::Blob { key: blob("jobs/o/input.json"), size: 1 };
        let old = world.accept(old).await;
        let held = world.claim_lease().await;
        world.finish(held, Finish { outputs: vec![file("outputs/a/b/x.png")], ..done() }).await;
        world.clock.advance(Duration::from_secs(100));
        let young = world.accept_one().await;
        let held = world.claim_lease().await;
        world.finish(held, done()).await;
        let waiting = world.accept_one().await;
        let hour = Duration::from_secs(3600);
        world.clock.advance(hour - Duration::from_secs(50));
        let swept = world.store().sweep_finished(&endpoint(), hour).await.unwrap();
        assert_eq!((swept.rows, swept.more), (1, false));
        assert!(world.store().job(None, old).await.unwrap().is_none());
        assert!(world.store().events(old, 0, 10).await.unwrap().is_empty());
        assert!(world.store().attempts(old).await.unwrap().is_empty());
        assert!(world.store().refs_of(&format!("job:{old}")).await.unwrap().is_empty());
        let t = tenant("t");
        assert_eq!(world.store().job_by_external_id(&t, None, "fc_task", "x").await.unwrap(), None);
        let trash = world.store().trash_due(Duration::ZERO, 10).await.unwrap();
        assert_eq!(trash, [blob("jobs/o/input.json"), blob("outputs/a/b/x.png")]);
        for kept in [young, waiting] {
            assert!(world.store().job(None, kept).await.unwrap().is_some());
        }
    }

    async fn a_job_is_deleted_once_it_has_ended_and_was_told(world: World) {
        let mut told = world.new_job();
        told.meta.webhook = Some("https://example.com/hook".to_owned());
        let job = world.accept(told).await;
        let store = world.store();
        assert_eq!(store.delete_job(None, job).await.unwrap(), Some(Deleted::NotEnded));
        let held = world.claim_lease().await;
        assert_eq!(store.delete_job(None, job).await.unwrap(), Some(Deleted::NotEnded));
        world.finish(held, Finish { outputs: vec![file("outputs/a/b/x.png")], ..done() }).await;
        assert_eq!(store.delete_job(None, job).await.unwrap(), Some(Deleted::StillTold));
        assert!(store.job(None, job).await.unwrap().is_some());
        let due = store.outbox_due("webhook", 10).await.unwrap();
        store.outbox_done(due[0].id).await.unwrap();
        assert_eq!(store.delete_job(Some(&tenant("stranger")), job).await.unwrap(), None);
        assert_eq!(store.delete_job(None, job).await.unwrap(), Some(Deleted::Now));
        assert_eq!(store.delete_job(None, job).await.unwrap(), None);
        assert!(store.refs_of(&format!("job:{job}")).await.unwrap().is_empty());
        assert_eq!(store.trash_due(Duration::ZERO, 10).await.unwrap(), [blob("outputs/a/b/x.png")]);
    }

    async fn sweeping_takes_small_steps(world: World) {
        for _ in 0..201 {
            let id = world.accept_one().await;
            world.store().cancel(None, id).await.unwrap();
        }
        let first = world.store().sweep_finished(&endpoint(), Duration::ZERO).await.unwrap();
        assert_eq!((first.rows, first.more), (200, true));
        let second = world.store().sweep_finished(&endpoint(), Duration::ZERO).await.unwrap();
        assert_eq!((second.rows, second.more), (1, false));
    }

    async fn a_job_is_deleted_when_its_own_time_is_over(world: World) {
        let short = world.accept(that_lives(&world, HOUR)).await;
        let held = world.claim_lease().await;
        world.finish(held, Finish { outputs: vec![file("outputs/a/b/x.png")], ..done() }).await;
        let running = world.accept(that_lives(&world, HOUR)).await;
        world.claim_lease().await;
        let store = world.store();
        let record = store.job(None, short).await.unwrap().unwrap();
        assert_eq!(record.lives_until, Some(record.created_at.plus(HOUR)));
        assert_eq!(record.delete_at, record.lives_until);
        assert_eq!(store.job(None, running).await.unwrap().unwrap().delete_at, None, "it has not ended");
        world.clock.advance(HOUR - Duration::from_secs(1));
        assert_eq!(store.sweep_expired().await.unwrap().rows, 0);
        world.clock.advance(Duration::from_secs(1));
        let swept = store.sweep_expired().await.unwrap();
        assert_eq!((swept.rows, swept.more), (1, false));
        assert!(store.job(None, short).await.unwrap().is_none());
        assert!(store.refs_of(&format!("job:{short}")).await.unwrap().is_empty());
        assert_eq!(store.trash_due(Duration::ZERO, 10).await.unwrap(), [blob("outputs/a/b/x.png")]);
        assert!(store.job(None, running).await.unwrap().is_some());
    }

    async fn a_job_that_waited_beyond_its_own_time_is_told_of_before_it_is_deleted(world: World) {
        let mut job = that_lives(&world, HOUR);
        job.queue_ttl = Some(2 * HOUR);
        let waited = world.accept(job).await;
        world.clock.advance(HOUR);
        let store = world.store();
        store.expire().await.unwrap();
        let record = store.job(None, waited).await.unwrap().unwrap();
        assert_eq!(record.state, JobState::Expired);
        assert_eq!(store.sweep_expired().await.unwrap().rows, 0);
        world.clock.advance(TOLD_FOR);
        assert_eq!(store.sweep_expired().await.unwrap().rows, 1);
    }

    async fn what_its_protocol_promises_counts_from_the_end(world: World) {
        let keep = Keep { life: None, after_end: Some(HOUR) };
        let id = world.accept(NewJob { keep, ..world.new_job() }).await;
        world.clock.advance(5 * HOUR);
        let held = world.claim_lease().await;
        world.finish(held, done()).await;
        world.clock.advance(HOUR - Duration::from_secs(1));
        assert_eq!(world.store().sweep_expired().await.unwrap().rows, 0);
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(world.store().sweep_expired().await.unwrap().rows, 1);
        assert!(world.store().job(None, id).await.unwrap().is_none());
    }

    async fn a_job_that_is_retried_keeps_what_is_left_of_its_own_time(world: World) {
        let mut job = that_lives(&world, HOUR);
        job.queue_ttl = Some(HOUR);
        let id = world.accept(job).await;
        let held = world.claim_lease().await;
        world.finish(held, failed()).await;
        world.clock.advance(HOUR / 2);
        let store = world.store();
        store.retry(None, id).await.unwrap();
        assert_eq!(store.job(None, id).await.unwrap().unwrap().delete_at, None);
        world.clock.advance(HOUR / 2);
        assert_eq!(store.sweep_expired().await.unwrap().rows, 0);
        store.expire().await.unwrap();
        let record = store.job(None, id).await.unwrap().unwrap();
        assert_eq!(record.state, JobState::Expired, "and did not begin a new one");
    }

    async fn a_life_is_shortened_and_never_made_longer(world: World) {
        let minute = Duration::from_secs(60);
        let ended = world.accept_one().await;
        let held = world.claim_lease().await;
        world.finish(held, done()).await;
        let waiting = world.accept(that_lives(&world, HOUR)).await;
        let store = world.store();
        let stranger = tenant("stranger");
        assert_eq!(store.shorten_life(Some(&stranger), ended, minute).await.unwrap(), None);
        for job in [ended, waiting] {
            for rest in [minute, HOUR] {
                assert_eq!(store.shorten_life(None, job, rest).await.unwrap(), Some(()));
            }
        }
        world.clock.advance(minute - Duration::from_secs(1));
        assert_eq!(store.sweep_expired().await.unwrap().rows, 0);
        assert_eq!(store.expire().await.unwrap().rows, 0);
        world.clock.advance(Duration::from_secs(1));
        assert_eq!(store.expire().await.unwrap().rows, 1);
        assert_eq!(store.sweep_expired().await.unwrap().rows, 1);
        assert!(store.job(None, ended).await.unwrap().is_none());
        assert_eq!(store.job(None, waiting).await.unwrap().unwrap().state, JobState::Expired);
    }

    async fn a_job_whose_end_is_still_to_be_told_is_not_deleted(world: World) {
        let mut job = that_lives(&world, HOUR);
        job.meta.webhook = Some("https://example.com/hook".to_owned());
        let id = world.accept(job).await;
        let held = world.claim_lease().await;
        world.finish(held, done()).await;
        world.clock.advance(HOUR);
        let store = world.store();
        assert_eq!(store.sweep_expired().await.unwrap().rows, 0);
        let due = store.outbox_due("webhook", 10).await.unwrap();
        store.outbox_done(due[0].id).await.unwrap();
        assert_eq!(store.sweep_expired().await.unwrap().rows, 1);
        assert!(store.job(None, id).await.unwrap().is_none());
    }
}
