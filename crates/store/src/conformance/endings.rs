//! How jobs end: finish, cancel, retry, expiry, and what leaves the process.

use std::time::Duration;

use darkroom_core::{AttemptOutcome, JobState, Payload, event::EventKind, failure::FailureCode};

use super::{
    World, done, event, failed, file, lost, released, tests,
    world::{blob, endpoint, ends, tenant},
};
use crate::jobs::{Cancelled, Finish};

tests! {
    async fn a_cancel_of_what_waits_leaves_what_runs_and_ends_are_counted(world: World) {
        let running = world.accept_one().await;
        let held = world.claim_lease().await;
        let waiting = world.accept_one().await;
        let store = world.store();
        assert!(!store.cancel_waiting(None, running).await.unwrap());
        assert!(!store.cancel_waiting(Some(&tenant("stranger")), waiting).await.unwrap());
        assert!(store.cancel_waiting(None, waiting).await.unwrap());
        assert!(!store.cancel_waiting(None, waiting).await.unwrap(), "once");
        world.finish(held, failed()).await;
        store.retry(None, running).await.unwrap();
        let held = world.claim_lease().await;
        world.finish(held, done()).await;
        let counters = store.counters().await.unwrap();
        let of = &counters[&endpoint()];
        assert_eq!((of.completed, of.failed, of.retried), (1, 1, 1));
    }

    async fn a_success_stores_result_outputs_events_and_references_together(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        let finish = Finish {
            outputs: vec![file("outputs/a/b/x.png")],
            result: Some(Payload::Blob { key: blob("jobs/r/result.json"), size: 70_000 }),
            events: vec![event(EventKind::ProgressSummary, r#"{"p":1}"#)],
            ..done()
        };
        assert_eq!(world.finish(held, finish.clone()).await, JobState::Succeeded);
        let job = world.store().job(None, id).await.unwrap().unwrap();
        assert_eq!((job.state, &job.outputs, &job.result), (JobState::Succeeded, &finish.outputs, &finish.result));
        assert_eq!(job.finished_at, Some(darkroom_core::Clock::now(&*world.clock)));
        assert_eq!(job.failure, None);
        let refs = world.store().refs_of(&format!("job:{id}")).await.unwrap();
        let names: Vec<_> = refs.iter().map(|r| (r.name.as_str(), r.blob.as_str(), r.content_type.as_str())).collect();
        assert_eq!(names, [
            ("output/0", "outputs/a/b/x.png", "image/png"),
            ("result", "jobs/r/result.json", "application/json"),
        ]);
        let kinds: Vec<_> = world.store().events(id, 0, 10).await.unwrap().into_iter().map(|e| e.data).collect();
        assert_eq!(kinds[2], r#"{"p":1}"#);
        assert_eq!(kinds[3], r#"{"state":"succeeded","attempt":1}"#);
    }

    async fn a_failed_workflow_is_final_and_says_why(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        assert_eq!(world.finish(held, failed()).await, JobState::Failed);
        let job = world.store().job(None, id).await.unwrap().unwrap();
        assert_eq!(job.failure.unwrap().code, FailureCode::ExecutionError);
        assert!(world.claim().await.is_none());
        let last = world.store().events(id, 2, 10).await.unwrap().pop().unwrap();
        let data: serde_json::Value = serde_json::from_str(&last.data).unwrap();
        assert_eq!(data, serde_json::json!({
            "state": "failed", "attempt": 1, "code": "execution_error", "message": "node 3 raised",
        }));
    }

    async fn lost_attempts_count_and_released_ones_do_not(world: World) {
        let id = world.accept_one().await;
        for attempt in 1..=5 {
            let claimed = world.claim().await.unwrap();
            assert_eq!(claimed.attempt, attempt);
            assert_eq!(world.finish(super::world::lease(&claimed), released()).await, JobState::Queued);
        }
        let held = world.claim_lease().await;
        let discarded = Finish { outputs: vec![file("outputs/a/b/x.png")], ..lost() };
        assert_eq!(world.finish(held, discarded).await, JobState::Queued);
        assert!(world.store().job(None, id).await.unwrap().unwrap().outputs.is_empty());
        let held = world.claim_lease().await;
        assert_eq!(world.finish(held, lost()).await, JobState::Failed);
        let job = world.store().job(None, id).await.unwrap().unwrap();
        assert_eq!((job.attempts, job.lost_attempts), (7, 2));
        assert_eq!(job.failure.unwrap().code, FailureCode::InstanceLost);
        assert_eq!(world.store().attempts(id).await.unwrap().len(), 7);
    }

    async fn credentials_stay_until_their_job_ends(world: World) {
        let sealed = async |id| world.store().sealed(id).await.unwrap();
        let accept = async |ttl| {
            let mut job = world.new_job();
            job.sealed = Some(b"sealed".to_vec());
            job.queue_ttl = ttl;
            world.accept(job).await
        };
        let id = accept(None).await;
        let plain = world.accept_one().await;
        assert_eq!(sealed(plain).await, None);
        world.store().cancel(None, plain).await.unwrap();
        let held = world.claim_lease().await;
        assert_eq!(world.finish(held, lost()).await, JobState::Queued);
        assert_eq!(sealed(id).await.as_deref(), Some(&b"sealed"[..]));
        let held = world.claim_lease().await;
        assert_eq!(world.finish(held, done()).await, JobState::Succeeded);
        assert_eq!(sealed(id).await, None);
        let cancelled = accept(None).await;
        world.store().cancel(None, cancelled).await.unwrap();
        assert_eq!(sealed(cancelled).await, None);
        let expired = accept(Some(Duration::from_secs(1))).await;
        world.clock.advance(Duration::from_secs(2));
        world.store().expire().await.unwrap();
        assert_eq!(sealed(expired).await, None);
    }

    async fn a_given_back_job_keeps_its_place(world: World) {
        let first = world.accept_one().await;
        world.accept_one().await;
        let held = world.claim_lease().await;
        world.finish(held, released()).await;
        assert_eq!(world.claim().await.unwrap().job.id, first);
    }

    async fn a_waiting_job_is_cancelled_at_once_and_only_once(world: World) {
        let id = world.accept_one().await;
        assert_eq!(world.store().cancel(Some(&tenant("t")), id).await.unwrap(), Some(Cancelled::Now));
        let again = world.store().cancel(None, id).await.unwrap();
        assert_eq!(again, Some(Cancelled::AlreadyFinal(JobState::Cancelled)));
        assert!(world.claim().await.is_none());
        assert_eq!(world.store().cancel(None, world.new_job().id).await.unwrap(), None);
    }

    async fn a_running_job_is_cancelled_by_its_attempt_or_its_loss(world: World) {
        for outcome in [AttemptOutcome::Cancelled, lost().outcome, released().outcome] {
            let id = world.accept_one().await;
            let held = world.claim_lease().await;
            assert_eq!(world.store().cancel(None, id).await.unwrap(), Some(Cancelled::Requested));
            assert_eq!(world.finish(held, ends(outcome)).await, JobState::Cancelled);
        }
    }

    async fn a_result_that_came_before_the_cancel_is_a_result(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        world.store().cancel(None, id).await.unwrap();
        assert_eq!(world.finish(held, done()).await, JobState::Succeeded);
    }

    async fn a_retry_is_a_new_attempt_at_the_end_of_the_line(world: World) {
        let id = world.accept_one().await;
        assert_eq!(world.store().retry(None, id).await.unwrap(), Some(false));
        let held = world.claim_lease().await;
        assert_eq!(world.store().retry(None, id).await.unwrap(), Some(false));
        let finish = Finish { outputs: vec![file("outputs/a/b/x.png")], ..done() };
        world.finish(held, finish).await;
        let other = world.accept_one().await;
        assert_eq!(world.store().retry(None, id).await.unwrap(), Some(true));
        let job = world.store().job(None, id).await.unwrap().unwrap();
        assert_eq!((job.state, job.finished_at, job.outputs.len()), (JobState::Queued, None, 0));
        assert!(world.store().refs_of(&format!("job:{id}")).await.unwrap().is_empty());
        assert_eq!(world.claim().await.unwrap().job.id, other);
        let again = world.claim().await.unwrap();
        assert_eq!((again.job.id, again.attempt), (id, 2));
        assert_eq!(world.store().retry(None, world.new_job().id).await.unwrap(), None);
    }

    async fn a_job_that_waited_too_long_expires_and_waits_anew_after_a_loss(world: World) {
        let mut job = world.new_job();
        job.queue_ttl = Some(Duration::from_secs(60));
        let id = world.accept(job).await;
        world.clock.advance(Duration::from_secs(59));
        let held = world.claim_lease().await;
        world.clock.advance(Duration::from_secs(20));
        world.finish(held, lost()).await;
        assert_eq!(world.store().expire().await.unwrap().rows, 0, "it waits since it was given back");
        world.clock.advance(Duration::from_secs(60));
        assert_eq!(world.store().expire().await.unwrap().rows, 1);
        let job = world.store().job(None, id).await.unwrap().unwrap();
        assert_eq!((job.state, job.failure.unwrap().code), (JobState::Expired, FailureCode::QueueTimeout));
        assert_eq!(world.store().expire().await.unwrap(), Default::default());
    }

    async fn a_final_state_is_told_once_to_the_webhook(world: World) {
        let mut job = world.new_job();
        job.meta.webhook = Some("https://example.com/hook".to_owned());
        let id = world.accept(job).await;
        let held = world.claim_lease().await;
        world.finish(held, lost()).await;
        assert!(world.store().outbox_due("webhook", 10).await.unwrap().is_empty(), "given back is not final");
        let held = world.claim_lease().await;
        world.finish(held, done()).await;
        assert!(world.store().finish(held, done()).await.unwrap().is_err());
        let due = world.store().outbox_due("webhook", 10).await.unwrap();
        assert_eq!(due.len(), 1);
        assert_eq!((due[0].job, due[0].kind.as_str(), due[0].tries), (id, "webhook", 0));
        let body: serde_json::Value = serde_json::from_str(&due[0].body).unwrap();
        assert_eq!(body["url"], "https://example.com/hook");
        assert_eq!(body["state"], "succeeded");
    }
}
