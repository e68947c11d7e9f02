//! Keys and the outbox.

use std::time::Duration;

use darkroom_core::{Clock, JobId, Timestamp};

use super::{World, done, endpoint, tenant, tests};
use crate::access::{AppCredential, Delivery, Due, KeyRecord, Lanes, Redelivery, Scope};

fn key(world: &World, name: &str) -> KeyRecord {
    KeyRecord {
        name: name.to_owned(),
        secret_sha256: [9; 32],
        prefix: "dr_ab".to_owned(),
        scopes: vec![Scope::Client, Scope::Publish],
        endpoints: vec!["*".to_owned()],
        tenant: tenant("t"),
        created_at: world.clock.now(),
        revoked_at: None,
        app: None,
    }
}

tests! {
    async fn a_live_name_is_taken_and_a_revoked_one_is_free(world: World) {
        let first = key(&world, "app");
        assert!(world.store().add_key(first.clone()).await.unwrap());
        assert!(!world.store().add_key(first.clone()).await.unwrap());
        assert_eq!(world.store().keys().await.unwrap(), std::slice::from_ref(&first));
        assert!(world.store().revoke_key("app").await.unwrap());
        assert!(!world.store().revoke_key("app").await.unwrap());
        assert!(world.store().add_key(first.clone()).await.unwrap());
        let all = world.store().keys().await.unwrap();
        assert_eq!(all.iter().map(|k| k.revoked_at.is_some()).collect::<Vec<_>>(), [true, false]);
    }

    async fn an_app_key_reads_back_and_is_never_given_twice(world: World) {
        let app = AppCredential { app_key: "ak_1".to_owned(), sealed_secret: vec![0, 159, 146, 150] };
        let first = KeyRecord { app: Some(app), ..key(&world, "app") };
        assert!(world.store().add_key(first.clone()).await.unwrap());
        assert_eq!(world.store().keys().await.unwrap(), std::slice::from_ref(&first));
        assert!(world.store().revoke_key("app").await.unwrap());
        assert!(!world.store().add_key(KeyRecord { name: "other".to_owned(), ..first }).await.unwrap());
    }

    async fn a_nonce_counts_once_until_it_is_too_old_anyway(world: World) {
        let minutes = |n: u64| world.clock.now().plus(Duration::from_secs(n * 60));
        assert!(world.store().use_nonce([1; 16], minutes(15)).await.unwrap());
        assert!(world.store().use_nonce([2; 16], minutes(30)).await.unwrap());
        assert!(!world.store().use_nonce([1; 16], minutes(15)).await.unwrap());
        world.clock.advance(Duration::from_secs(40 * 60));
        assert!(!world.store().use_nonce([1; 16], minutes(15)).await.unwrap(), "the clock may have been set");
        world.clock.advance(Duration::from_secs(10 * 60));
        assert!(world.store().use_nonce([1; 16], minutes(15)).await.unwrap());
        assert!(!world.store().use_nonce([2; 16], minutes(15)).await.unwrap());
    }

    async fn a_delivery_is_tried_until_it_is_acknowledged(world: World) {
        let mut job = world.new_job();
        job.meta.webhook = Some("https://example.com".to_owned());
        world.accept(job).await;
        let held = world.claim_lease().await;
        world.finish(held, done()).await;
        let row = world.store().outbox_due("webhook", 1).await.unwrap().remove(0);
        let later = world.clock.now().plus(Duration::from_secs(10));
        world.store().outbox_retry(row.id, later).await.unwrap();
        assert!(world.store().outbox_due("webhook", 1).await.unwrap().is_empty());
        world.clock.advance(Duration::from_secs(10));
        let again = world.store().outbox_due("webhook", 1).await.unwrap().remove(0);
        assert_eq!((again.id, again.tries, again.due_at), (row.id, 1, later));
        world.store().outbox_done(row.id).await.unwrap();
        assert!(world.store().outbox_due("webhook", 1).await.unwrap().is_empty());
    }

    async fn every_lane_has_its_turn(world: World) {
        for (tenant_name, url) in [("t", "https://slow"), ("t", "https://slow/b"), ("t", "https://SLOW/c?d"),
            ("t", "https://quick"), ("u", "https://slow")] {
            ended(&world, tenant_name, Some(url)).await;
        }
        let ask = async |per_lane, limit, taken: &[i64], after: &str| {
            let lanes = Lanes { per_lane, limit, taken: taken.iter().copied().collect(), after: after.to_owned() };
            world.store().outbox_lanes("webhook", lanes).await.unwrap()
        };
        let of = |due: &Due| due.rows.iter().map(|row| (row.lane.clone(), row.id)).collect::<Vec<_>>();
        let all = ask(2, 9, &[], "").await;
        let lanes: Vec<String> = of(&all).into_iter().map(|(lane, _)| lane).collect();
        assert_eq!(lanes, ["t quick", "t slow", "t slow", "u slow"]);
        assert_eq!(all.next_at, None);
        let slow: Vec<i64> = all.rows[1..3].iter().map(|row| row.id).collect();
        let rest = of(&ask(2, 9, &slow, "").await);
        assert_eq!(rest.iter().map(|(lane, _)| lane.as_str()).collect::<Vec<_>>(), ["t quick", "u slow"]);
        let third = of(&ask(2, 9, &slow[..1], "").await);
        assert_eq!(third[1].1, slow[1], "one is in somebody's hands, one is free");
        assert_eq!(of(&ask(1, 1, &[], "t quick").await)[0].0, "t slow");
        assert_eq!(of(&ask(1, 1, &[], "u slow").await)[0].0, "t quick", "around");
        assert_eq!(of(&ask(1, 9, &[], "t slow").await).len(), 3, "each lane once");
        let later = world.clock.now().plus(Duration::from_secs(10));
        world.store().outbox_retry(slow[0], later).await.unwrap();
        let due = ask(9, 9, &[], "").await;
        assert_eq!((due.rows.len(), due.next_at), (4, Some(later)));
    }

    async fn deliveries_are_kept_with_the_job_and_end_its_waiting(world: World) {
        let job = ended(&world, "t", Some("https://example.com")).await;
        let row = world.store().webhook(job).await.unwrap().waiting.unwrap();
        let message = serde_json::from_str::<serde_json::Value>(&row.body).unwrap()["message"].as_str().unwrap().to_owned();
        let later = world.clock.now().plus(Duration::from_secs(10));
        let failed = tried(&world, job, &message, Some(later));
        world.store().outbox_tried(row.id, failed.clone()).await.unwrap();
        let waiting = world.store().webhook(job).await.unwrap().waiting.unwrap();
        assert_eq!((waiting.id, waiting.tries, waiting.due_at), (row.id, 1, later));
        // What still waits keeps its job.
        world.clock.advance(Duration::from_secs(3600));
        let swept = async || {
            let sweep = world.store().sweep_finished(&endpoint(), Duration::ZERO).await;
            sweep.unwrap().rows
        };
        assert_eq!(swept().await, 0);
        let done = tried(&world, job, &message, None);
        world.store().outbox_tried(row.id, done.clone()).await.unwrap();
        assert_eq!(world.store().webhook(job).await.unwrap().waiting, None);
        assert_eq!(world.store().webhook(job).await.unwrap().tries, [failed, done.clone()]);
        for _ in 0..150 {
            world.store().outbox_tried(row.id, done.clone()).await.unwrap();
        }
        assert_eq!(world.store().webhook(job).await.unwrap().tries.len(), 100);
        assert_eq!(swept().await, 1);
        assert!(world.store().webhook(job).await.unwrap().tries.is_empty());
        world.store().outbox_tried(row.id, done).await.unwrap();
        assert!(world.store().webhook(job).await.unwrap().tries.is_empty(), "none of a job that is gone");
    }

    async fn a_redelivery_is_the_same_message_again(world: World) {
        let job = ended(&world, "t", Some("https://example.com")).await;
        let redeliver = async |name: &str| {
            let tenant = tenant(name);
            world.store().redeliver(Some(&tenant), job).await.unwrap()
        };
        let first = world.store().webhook(job).await.unwrap().waiting.unwrap();
        assert_eq!(redeliver("somebody").await, None);
        let later = world.clock.now().plus(Duration::from_secs(1000));
        world.store().outbox_retry(first.id, later).await.unwrap();
        assert_eq!(redeliver("t").await, Some(Redelivery::Queued));
        let hurried = world.store().webhook(job).await.unwrap().waiting.unwrap();
        assert_eq!((hurried.id, hurried.due_at), (first.id, world.clock.now()), "it waited already");
        world.store().outbox_done(first.id).await.unwrap();
        assert_eq!(redeliver("t").await, Some(Redelivery::Queued));
        let again = world.store().webhook(job).await.unwrap().waiting.unwrap();
        assert_eq!((again.body, again.lane), (first.body, first.lane));
        // Another end of the job is another message, and the old one is not told any more.
        assert_eq!(world.store().retry(None, job).await.unwrap(), Some(true));
        assert_eq!(world.store().webhook(job).await.unwrap().waiting, None);
        assert_eq!(redeliver("t").await, Some(Redelivery::NotEnded));
        let held = world.claim_lease().await;
        world.finish(held, done()).await;
        let second = world.store().webhook(job).await.unwrap().waiting.unwrap();
        assert_ne!(second.body, hurried.body);
        let plain = ended(&world, "t", None).await;
        assert_eq!(world.store().redeliver(None, plain).await.unwrap(), Some(Redelivery::NoWebhook));
    }
}

/// A job that was submitted with this webhook, and ended.
async fn ended(world: &World, tenant_name: &str, url: Option<&str>) -> JobId {
    let mut job = world.new_job();
    job.tenant = tenant(tenant_name);
    job.meta.webhook = url.map(str::to_owned);
    let id = world.accept(job).await;
    let held = world.claim_lease().await;
    world.finish(held, done()).await;
    id
}

fn tried(world: &World, job: JobId, message: &str, next_at: Option<Timestamp>) -> Delivery {
    Delivery {
        job,
        message: message.to_owned(),
        at: world.clock.now(),
        took: Duration::from_millis(12),
        status: next_at.map(|_| 503),
        problem: next_at.map(|_| "answered 503".to_owned()),
        next_at,
    }
}
