//! What an attempt may write, and until when.

use std::time::Duration;

use darkroom_core::{AttemptState, Fence, InstanceId, JobState, attempt::Lease, event::EventKind};
use uuid::Uuid;

use super::{
    World, done, event, tests,
    world::{lease, node},
};
use crate::jobs::{Cancelled, RunningOn};

fn somewhere() -> RunningOn {
    RunningOn {
        instance: InstanceId::from_uuid(Uuid::from_u128(1)),
        client_id: "c".to_owned(),
        prompt_id: "p".to_owned(),
    }
}

tests! {
    async fn where_an_attempt_runs_is_known_to_an_adopting_server(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        assert_eq!(world.store().attempts(id).await.unwrap()[0].running_on, None);
        world.store().start(held, somewhere()).await.unwrap().unwrap();
        let open = world.store().open_attempts(Some(&node("a"))).await.unwrap();
        assert_eq!(open.len(), 1);
        assert_eq!((open[0].job, open[0].state), (id, AttemptState::Running));
        assert_eq!(open[0].running_on, Some(somewhere()));
        assert!(world.store().open_attempts(Some(&node("b"))).await.unwrap().is_empty());
        world.store().adopt(held, node("b"), Duration::from_secs(60)).await.unwrap().unwrap();
        let open = world.store().open_attempts(Some(&node("b"))).await.unwrap();
        let until = darkroom_core::Clock::now(&*world.clock).plus(Duration::from_secs(60));
        assert_eq!((open[0].fence, open[0].lease_until), (held.fence, until));
        world.store().start(held, somewhere()).await.unwrap().unwrap();
        world.finish(held, done()).await;
        assert!(world.store().open_attempts(None).await.unwrap().is_empty());
    }

    async fn a_lease_that_ran_out_is_lost_and_a_renewed_one_is_not(world: World) {
        let lost = world.accept_one().await;
        let kept = world.accept_one().await;
        let first = world.claim_lease().await;
        let second = world.claim_lease().await;
        world.clock.advance(Duration::from_secs(20));
        world.store().renew(second, Duration::from_secs(30)).await.unwrap().unwrap();
        assert_eq!(world.store().expire().await.unwrap().rows, 0);
        world.clock.advance(Duration::from_secs(11));
        assert_eq!(world.store().expire().await.unwrap().rows, 1);
        let job = world.store().job(None, lost).await.unwrap().unwrap();
        assert_eq!((job.state, job.lost_attempts), (JobState::Queued, 1));
        assert_eq!(world.store().job(None, kept).await.unwrap().unwrap().state, JobState::Running);
        assert!(world.store().renew(first, Duration::from_secs(30)).await.unwrap().is_err());
        assert_eq!(world.store().attempts(lost).await.unwrap()[0].state, AttemptState::Lost);
    }

    async fn every_write_under_a_stale_fence_is_refused_and_changes_nothing(world: World) {
        let id = world.accept_one().await;
        let old = world.claim_lease().await;
        world.clock.advance(Duration::from_secs(31));
        world.store().expire().await.unwrap();
        let new = lease(&world.claim().await.unwrap());
        let before = world.store().events(id, 0, 100).await.unwrap();
        let wrong = Lease { job: world.new_job().id, fence: new.fence };
        for stale in [old, Lease { job: id, fence: Fence(999) }, wrong] {
            let second = Duration::from_secs(1);
            let log = vec![event(EventKind::Log, "{}")];
            assert!(world.store().start(stale, somewhere()).await.unwrap().is_err());
            assert!(world.store().collecting(stale).await.unwrap().is_err());
            assert!(world.store().renew(stale, second).await.unwrap().is_err());
            assert!(world.store().adopt(stale, node("b"), second).await.unwrap().is_err());
            assert!(world.store().append_events(stale, log).await.unwrap().is_err());
            assert!(world.store().finish(stale, done()).await.unwrap().is_err());
        }
        let job = world.store().job(None, id).await.unwrap().unwrap();
        assert_eq!((job.state, job.outputs.len()), (JobState::Running, 0));
        assert_eq!(world.store().events(id, 0, 100).await.unwrap(), before);
        assert_eq!(world.finish(new, done()).await, JobState::Succeeded);
        assert!(world.store().finish(new, done()).await.unwrap().is_err(), "done is done once");
    }

    async fn a_cancel_reaches_the_attempt_with_its_renewal(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        let ttl = Duration::from_secs(30);
        assert!(!world.store().renew(held, ttl).await.unwrap().unwrap().cancel_requested);
        assert_eq!(world.store().cancel(None, id).await.unwrap(), Some(Cancelled::Requested));
        assert!(world.store().renew(held, ttl).await.unwrap().unwrap().cancel_requested);
        assert!(world.store().job(None, id).await.unwrap().unwrap().cancel_requested);
    }

    async fn a_gap_in_our_time_is_nobodys_fault(world: World) {
        let id = world.accept_one().await;
        world.claim_lease().await;
        world.clock.advance(Duration::from_secs(600));
        world.store().extend_leases(Duration::from_secs(600)).await.unwrap();
        assert_eq!(world.store().expire().await.unwrap().rows, 0);
        world.store().shorten_leases(Duration::from_secs(30)).await.unwrap();
        assert_eq!(world.store().expire().await.unwrap().rows, 1);
        assert_eq!(world.store().job(None, id).await.unwrap().unwrap().lost_attempts, 1);
    }

    async fn a_collecting_attempt_keeps_its_lease(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        world.store().start(held, somewhere()).await.unwrap().unwrap();
        world.store().collecting(held).await.unwrap().unwrap();
        world.clock.advance(Duration::from_secs(25));
        world.store().renew(held, Duration::from_secs(30)).await.unwrap().unwrap();
        world.clock.advance(Duration::from_secs(25));
        assert_eq!(world.store().expire().await.unwrap().rows, 0);
        assert_eq!(world.finish(held, done()).await, JobState::Succeeded);
        assert_eq!(world.store().attempts(id).await.unwrap()[0].state, AttemptState::Done);
    }
}
