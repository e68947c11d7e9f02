//! Queues: what comes back, what is delivered too often, what jobs and restarts do to items, and what is forgotten.

use std::time::Duration;

use darkroom_core::{JobState, Payload};

use super::{
    World, done, failed,
    queues::{GRACE, MAX_IDLE, deliver, input, item, join, policy, queue, tags, take},
    tests,
    world::{blob, node, tenant},
};
use crate::{
    jobs::Cancelled,
    queues::{Committed, Deliver, NewItem, Place, Policy, Put, QueueId, Session, Side},
};

const HOUR: Duration = Duration::from_secs(3600);

async fn ids(world: &World, queue: &QueueId) -> Vec<u64> {
    let items = world
        .store()
        .items(queue, crate::queues::Wanted::default(), 100)
        .await
        .unwrap();
    items.into_iter().map(|item| item.index).collect()
}

async fn put_job(world: &World, name: &str) -> (darkroom_core::JobId, Put) {
    let job = world.new_job();
    let id = job.id;
    let new = NewItem {
        named: true,
        tags: tags(&[("task_id", "mine")]),
        ..item(name)
    };
    (id, world.store().put_job(&input(), new, job).await.unwrap())
}

/// Lets a session have an item and come back, until it was delivered as often as the rule allows.
async fn tire(world: &World, session: Session, rule: &Policy) {
    for _ in 0..rule.max_delivery {
        let wanted = Deliver {
            policy: rule.clone(),
            ..deliver(session)
        };
        assert_eq!(
            world.store().deliver(wanted).await.unwrap().unwrap().items.len(),
            1
        );
        world.clock.advance(MAX_IDLE);
    }
}

tests! {
    async fn an_item_that_is_held_too_long_goes_to_another(world: World) {
        world.put_many(1).await;
        let slow = world.join(join("eas", "slow", 1)).await;
        let other = world.join(join("eas", "other", 1)).await;
        assert_eq!(world.get(slow).await, [1]);
        world.clock.advance(MAX_IDLE);
        assert_eq!(world.get(other).await, [1]);
        let late = world.store().commit(&input(), "eas", vec![1]).await.unwrap();
        assert_eq!((late, world.length().await), (Committed::default(), 0), "work done late is done");
    }

    async fn a_negative_commit_gives_the_item_to_others_and_may_count(world: World) {
        world.put_many(1).await;
        let session = world.join(join("eas", "a", 1)).await;
        for _ in 0..5 {
            assert_eq!(world.get(session).await, [1], "one that does not count can come back for ever");
            world.store().refuse(&input(), "eas", vec![1], false).await.unwrap();
        }
        for _ in 0..policy().max_delivery {
            assert_eq!(world.get(session).await, [1]);
            world.store().refuse(&input(), "eas", vec![1], true).await.unwrap();
        }
        assert_eq!(world.get(session).await, [0u64; 0]);
        let odd = world.store().refuse(&input(), "eas", vec![7], true).await.unwrap();
        assert_eq!(odd.never, [7]);
    }

    async fn what_one_group_could_not_do_is_still_for_the_others(world: World) {
        let (tired, other) = (world.join(join("a", "x", 1)).await, world.join(join("b", "y", 1)).await);
        let index = world.put(item("hard")).await;
        for _ in 0..policy().max_delivery {
            assert_eq!(world.get(tired).await, [index]);
            world.store().refuse(&input(), "a", vec![index], true).await.unwrap();
        }
        assert_eq!(world.get(tired).await, [0; 0], "it went to the rear");
        assert_eq!(world.store().queue(&queue(Side::InputRear)).await.unwrap().unwrap().length, 1);
        assert_eq!(world.get(other).await, [index], "the other group never had it");
        world.commit("b", index).await;
        assert_eq!(world.length().await, 0, "all groups are done with it");
    }

    async fn an_item_delivered_too_often_goes_to_the_rear_with_its_body(world: World) {
        let key = blob("big");
        world.store().intend(&key).await.unwrap();
        let big = NewItem {
            payload: Payload::Blob { key: key.clone(), size: 5 },
            tags: tags(&[("k", "v")]),
            ..item("x")
        };
        world.put(big).await;
        let session = world.join(join("eas", "a", 1)).await;
        tire(&world, session, &policy()).await;
        assert_eq!(world.get(session).await, [0u64; 0]);
        assert_eq!(ids(&world, &input()).await, [0u64; 0]);
        let rear = queue(Side::InputRear);
        let there = world.store().items(&rear, Default::default(), 9).await.unwrap();
        assert_eq!((there[0].index, &there[0].tags), (1, &tags(&[("k", "v")])));
        assert_eq!(there[0].payload.as_ref().unwrap().blob(), Some(&key));
        assert_eq!(world.store().refs_to(&key).await.unwrap().len(), 1);
        assert_eq!(world.store().delete(&rear, vec![1]).await.unwrap(), 1);
        assert_eq!(world.store().trash_due(Duration::ZERO, 9).await.unwrap(), [key]);
    }

    async fn or_is_dropped_where_that_is_the_rule(world: World) {
        world.put_many(1).await;
        let rule = Policy { to_rear: false, ..policy() };
        let session = world.join(join("eas", "a", 1)).await;
        tire(&world, session, &rule).await;
        let last = Deliver { policy: rule, ..deliver(session) };
        assert!(world.store().deliver(last).await.unwrap().unwrap().items.is_empty());
        assert_eq!(world.length().await, 0);
        assert!(world.store().queue(&queue(Side::InputRear)).await.unwrap().is_none());
    }

    async fn a_body_in_a_blob_lives_as_long_as_its_item(world: World) {
        let key = blob("big");
        world.put(NewItem { payload: Payload::Blob { key: key.clone(), size: 5 }, ..item("x") }).await;
        assert_eq!(world.store().refs_to(&key).await.unwrap().len(), 1);
        let session = world.join(join("eas", "a", 1)).await;
        assert_eq!(world.get(session).await, [1]);
        world.commit("eas", 1).await;
        assert!(world.store().refs_to(&key).await.unwrap().is_empty());
        assert_eq!(world.store().trash_due(Duration::ZERO, 9).await.unwrap(), [key]);
    }

    async fn a_job_behind_an_item_is_not_delivered_and_its_end_asks_for_a_result_once(world: World) {
        let (id, put) = put_job(&world, "x").await;
        assert_eq!(put, Put::At(1));
        assert_eq!(put_job(&world, "x").await.1, Put::Existing(1), "a repeated request is the same job");
        assert_eq!(world.store().counters().await.unwrap()[&super::endpoint()].queued, 1);
        assert_eq!(world.store().place(&input(), 1).await.unwrap(), Some(Place::Job(id)));
        let session = world.join(join("eas", "a", 1)).await;
        assert_eq!(world.get(session).await, [0u64; 0]);
        assert!(world.store().take(&input(), take(1, 1)).await.unwrap().is_empty());

        let held = world.claim_lease().await;
        assert_eq!(world.length().await, 1);
        assert_eq!(world.finish(held, done()).await, JobState::Succeeded);
        assert_eq!(world.length().await, 0);
        let due = world.store().outbox_due("sink", 9).await.unwrap();
        assert_eq!((due.len(), due[0].job), (1, id));
        assert!(due[0].body.contains("\"task_id\":\"mine\""), "{}", due[0].body);
        assert!(world.store().outbox_due("webhook", 9).await.unwrap().is_empty());

        let sink = queue(Side::Sink);
        let result = || NewItem { max_length: 0, ..item("x") };
        assert_eq!(world.store().put_result(due[0].id, &sink, result()).await.unwrap(), Some(Put::At(1)));
        assert_eq!(world.store().put_result(due[0].id, &sink, result()).await.unwrap(), None, "once");
        assert_eq!(ids(&world, &sink).await, [1]);
    }

    async fn a_retried_job_sends_another_result_unless_the_first_still_waits(world: World) {
        let (id, _) = put_job(&world, "x").await;
        let sink = queue(Side::Sink);
        for expected in [Put::At(1), Put::Existing(1), Put::At(2)] {
            let held = world.claim_lease().await;
            world.finish(held, failed()).await;
            let due = world.store().outbox_due("sink", 9).await.unwrap();
            assert_eq!(world.store().put_result(due[0].id, &sink, item("x")).await.unwrap(), Some(expected));
            if expected == Put::Existing(1) {
                world.store().delete(&sink, vec![1]).await.unwrap();
            }
            assert_eq!(world.store().retry(None, id).await.unwrap(), Some(true));
        }
    }

    async fn a_result_is_put_beside_somebody_elses_item_of_the_same_name(world: World) {
        put_job(&world, "x").await;
        let sink = queue(Side::Sink);
        assert_eq!(world.store().put(&sink, item("x")).await.unwrap(), Put::At(1));
        let held = world.claim_lease().await;
        world.finish(held, failed()).await;
        let due = world.store().outbox_due("sink", 9).await.unwrap();
        assert_eq!(world.store().put_result(due[0].id, &sink, item("x")).await.unwrap(), Some(Put::At(2)));
    }

    async fn deleting_or_truncating_an_unfinished_one_cancels_it(world: World) {
        let (waits, _) = put_job(&world, "x").await;
        let held = world.claim_lease().await;
        assert_eq!(held.job, waits);
        let (queued, _) = put_job(&world, "y").await;
        assert_eq!(world.store().delete(&input(), vec![1]).await.unwrap(), 1);
        assert_eq!(world.store().truncate(&input(), 9).await.unwrap().rows, 1);
        assert_eq!(world.store().job(None, queued).await.unwrap().unwrap().state, JobState::Cancelled);
        assert!(world.store().job(None, held.job).await.unwrap().unwrap().cancel_requested);
        world.finish(held, super::world::ends(darkroom_core::AttemptOutcome::Cancelled)).await;
        assert!(world.store().outbox_due("sink", 9).await.unwrap().is_empty(), "nobody waits for it");
        assert_eq!(world.store().cancel(None, queued).await.unwrap(), Some(Cancelled::AlreadyFinal(JobState::Cancelled)));
    }

    async fn a_cancel_by_another_way_sends_a_result(world: World) {
        let (id, _) = put_job(&world, "x").await;
        world.store().cancel(Some(&tenant("t")), id).await.unwrap();
        assert_eq!(world.store().outbox_due("sink", 9).await.unwrap().len(), 1);
        assert_eq!(world.length().await, 0);
    }

    async fn a_full_job_queue_refuses_its_item(world: World) {
        let mut job = world.new_job();
        job.max_queued = 0;
        let put = world.store().put_job(&input(), item("x"), job).await.unwrap();
        assert_eq!(put, Put::Full { length: 0 });
        world.accept_one().await;
        let queue = world.store().queue(&input()).await.unwrap();
        assert!(queue.is_none_or(|q| q.last == 0), "nothing is half accepted");
    }

    async fn a_new_start_returns_what_was_being_sent_and_counts_no_delivery(world: World) {
        world.put_many(2).await;
        for _ in 0..6 {
            let session = world.join(join("eas", "a", 1)).await;
            assert_eq!(world.get(session).await, [1], "its own restarts do not tire an item");
            assert_eq!(world.store().take(&input(), take(1, 1)).await.unwrap().len(), 1);
            world.store().recover_queues(&node("other")).await.unwrap();
            assert_eq!(world.length().await, 1, "another server's are not ours");
            world.store().recover_queues(&node("a")).await.unwrap();
            assert_eq!(world.length().await, 2);
            assert!(world.store().deliver(deliver(session)).await.unwrap().is_err());
        }
        let other = world.join(join("eas", "b", 2)).await;
        assert_eq!(world.get(other).await, [2], "the first one's consumer may come back");
        world.clock.advance(GRACE);
        assert_eq!(world.get(other).await, [1]);
    }

    async fn a_group_that_does_not_come_back_is_forgotten(world: World) {
        world.put_many(3).await;
        let a = world.join(join("a", "1", 9)).await;
        let b = world.join(join("b", "1", 9)).await;
        assert_eq!(world.get(a).await.len() + world.get(b).await.len(), 6);
        world.commit("a", 1).await;
        world.store().leave(b).await.unwrap();
        world.clock.advance(HOUR);
        world.store().sweep_queue(&input(), HOUR).await.unwrap();
        assert_eq!(ids(&world, &input()).await, [2, 3], "only b had not committed the first one");
        assert_eq!(world.store().groups(&input()).await.unwrap().len(), 1, "a is connected and stays");
        world.commit("a", 2).await;
        assert_eq!(ids(&world, &input()).await, [3], "a is alone now");
        world.store().leave(a).await.unwrap();
        world.clock.advance(HOUR);
        world.store().sweep_queue(&input(), HOUR).await.unwrap();
        assert!(world.store().groups(&input()).await.unwrap().is_empty());
        assert!(world.store().consumers(&input()).await.unwrap().is_empty());
        assert_eq!(ids(&world, &input()).await, [3], "what nobody did waits for somebody");
    }
}
