//! Accepting jobs: what is stored, external ids, bounds.

use std::time::Duration;

use darkroom_core::{InstanceState, JobState, Payload};

use super::{
    World,
    catalog::instance,
    done, tests,
    world::{blob, endpoint, external, tenant},
};
use crate::{
    catalog::{InstanceChange, InstanceRecord},
    jobs::{OnDuplicate, Submitted},
};

tests! {
    async fn an_accepted_job_reads_back_as_it_was_given(world: World) {
        let mut job = world.new_job();
        job.priority = -3;
        job.input = Payload::Inline("{\"text\":\"图像 ✓\"}".into());
        job.meta.options = serde_json::json!({ "big": 9007199254740993_u64 });
        job.meta.request_id = "r1".to_owned();
        job.external_id = external("t-1", OnDuplicate::Reject);
        let id = world.accept(job.clone()).await;
        let read = world.store().job(None, id).await.unwrap().unwrap();
        assert_eq!(read.state, JobState::Queued);
        assert_eq!((read.id, &read.tenant, &read.endpoint), (id, &job.tenant, &job.endpoint));
        assert_eq!((read.priority, &read.input, &read.meta), (-3, &job.input, &job.meta));
        assert_eq!(read.external_id, Some(("fc_task".to_owned(), "t-1".to_owned())));
        assert_eq!(read.attempts, 0);
        let events = world.store().events(id, 0, 10).await.unwrap();
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].seq, events[0].attempt), (1, 0));
        assert_eq!(events[0].data, r#"{"state":"queued"}"#);
    }

    async fn a_blob_input_is_referred_to_from_the_start(world: World) {
        let mut job = world.new_job();
        let key = blob("jobs/x/input.json");
        world.store().intend(&key).await.unwrap();
        job.input = Payload::Blob { key: key.clone(), size: 40_000 };
        let id = world.accept(job.clone()).await;
        assert_eq!(world.store().job(None, id).await.unwrap().unwrap().input, job.input);
        let refs = world.store().refs_to(&key).await.unwrap();
        assert_eq!(refs.len(), 1);
        assert_eq!((refs[0].owner.as_str(), refs[0].name.as_str()), (format!("job:{id}").as_str(), "input"));
        world.clock.advance(std::time::Duration::from_secs(90_000));
        assert!(world.store().trash_due(std::time::Duration::ZERO, 9).await.unwrap().is_empty());
    }

    async fn a_submit_tells_whether_an_instance_of_its_endpoint_is_ready(world: World) {
        let ready = async || {
            let submitted = world.store().submit(world.new_job()).await.unwrap();
            submitted == Submitted::Accepted { instance_ready: true }
        };
        let becomes = async |instance: &InstanceRecord, from, to| {
            let change = InstanceChange { state: Some(to), ..InstanceChange::default() };
            assert!(world.store().change_instance(instance.id, from, change).await.unwrap());
        };
        let (other, own) = (InstanceRecord { endpoint: "other".parse().unwrap(), ..instance(&world) }, instance(&world));
        world.store().add_instance(other.clone()).await.unwrap();
        becomes(&other, InstanceState::Starting, InstanceState::Ready).await;
        world.store().add_instance(own.clone()).await.unwrap();
        assert!(!ready().await, "one of another endpoint is, its own still starts");
        becomes(&own, InstanceState::Starting, InstanceState::Ready).await;
        assert!(ready().await);
        becomes(&own, InstanceState::Ready, InstanceState::Draining).await;
        assert!(!ready().await, "it takes no more jobs");
    }

    async fn another_tenants_job_is_not_there(world: World) {
        let id = world.accept_one().await;
        assert!(world.store().job(Some(&tenant("t")), id).await.unwrap().is_some());
        assert!(world.store().job(Some(&tenant("other")), id).await.unwrap().is_none());
        assert!(world.store().cancel(Some(&tenant("other")), id).await.unwrap().is_none());
        assert!(world.store().retry(Some(&tenant("other")), id).await.unwrap().is_none());
    }

    async fn a_used_external_id_is_refused_repeated_or_moved_as_its_dialect_wants(world: World) {
        let mut first = world.new_job();
        first.external_id = external("x", OnDuplicate::Reject);
        let first = world.accept(first).await;
        let submit = |rule| {
            let mut job = world.new_job();
            job.external_id = external("x", rule);
            (job.id, job)
        };
        let (_, refused) = submit(OnDuplicate::Reject);
        assert_eq!(world.store().submit(refused).await.unwrap(), Submitted::Duplicate(first));
        let (_, same) = submit(OnDuplicate::Existing);
        let not_made = same.id;
        assert_eq!(world.store().submit(same).await.unwrap(), Submitted::Existing(first));
        assert!(world.store().job(None, not_made).await.unwrap().is_none());
        let (moved, job) = submit(OnDuplicate::Replace);
        world.accept(job).await;
        let t = tenant("t");
        let found = world.store().job_by_external_id(&t, None, "fc_task", "x").await.unwrap();
        assert_eq!(found, Some(moved));
        assert!(world.store().job(None, first).await.unwrap().is_some(), "the old job stays");
    }

    async fn an_external_id_that_is_good_once_a_day_is_refused_for_a_day_and_then_moves(world: World) {
        let day = Duration::from_secs(24 * 3600);
        let submit = || {
            let mut job = world.new_job();
            job.external_id = external("x", OnDuplicate::RejectWithin(day));
            job
        };
        let first = world.accept(submit()).await;
        let lease = world.claim_lease().await;
        world.finish(lease, done()).await;
        for wait in [Duration::ZERO, day - Duration::from_secs(1)] {
            world.clock.advance(wait);
            assert_eq!(world.store().submit(submit()).await.unwrap(), Submitted::Duplicate(first));
        }
        world.clock.advance(Duration::from_secs(1));
        let second = world.accept(submit()).await;
        assert_eq!(world.store().submit(submit()).await.unwrap(), Submitted::Duplicate(second));
        assert!(world.store().job(None, first).await.unwrap().is_some(), "the old job stays");
    }

    async fn external_ids_are_apart_by_tenant_endpoint_and_dialect(world: World) {
        let mut one = world.new_job();
        one.external_id = external("x", OnDuplicate::Reject);
        let mut two = one.clone();
        two.id = world.new_job().id;
        two.tenant = tenant("u");
        let mut three = one.clone();
        three.id = world.new_job().id;
        three.endpoint = "other".parse().unwrap();
        let one = world.accept(one).await;
        let two = world.accept(two).await;
        let three = world.accept(three).await;
        let find = async |t: &str, endpoint: Option<&darkroom_core::EndpointName>, dialect: &str| {
            world.store().job_by_external_id(&tenant(t), endpoint, dialect, "x").await.unwrap()
        };
        assert_eq!(find("t", Some(&endpoint()), "fc_task").await, Some(one));
        assert_eq!(find("u", Some(&endpoint()), "fc_task").await, Some(two));
        assert_eq!(find("t", None, "fc_task").await, Some(three), "the newest of several");
        assert_eq!(find("u", Some(&"other".parse().unwrap()), "fc_task").await, None);
        assert_eq!(find("t", None, "prompt_id").await, None);
    }

    async fn of_many_with_one_external_id_one_is_accepted(world: World) {
        let jobs: Vec<_> = (0..20).map(|_| {
            let mut job = world.new_job();
            job.external_id = external("x", OnDuplicate::Reject);
            job
        }).collect();
        let tasks: Vec<_> = jobs.into_iter().map(|job| {
            let store = world.store().clone();
            tokio::spawn(async move { store.submit(job).await.unwrap() })
        }).collect();
        let mut accepted = 0;
        for task in tasks {
            accepted += u32::from(matches!(task.await.unwrap(), Submitted::Accepted { .. }));
        }
        assert_eq!(accepted, 1);
    }

    async fn a_full_queue_refuses_and_takes_again_when_there_is_room(world: World) {
        let bounded = || {
            let mut job = world.new_job();
            job.max_queued = 2;
            job
        };
        world.accept(bounded()).await;
        world.accept(bounded()).await;
        let refused = bounded();
        let id = refused.id;
        assert_eq!(world.store().submit(refused).await.unwrap(), Submitted::QueueFull { queued: 2 });
        assert!(world.store().job(None, id).await.unwrap().is_none());
        world.claim().await.unwrap();
        world.accept(bounded()).await;
    }
}
