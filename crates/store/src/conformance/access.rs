//! Keys and the outbox.

use std::time::Duration;

use darkroom_core::Clock;

use super::{World, done, tests, world::tenant};
use crate::access::{KeyRecord, Scope};

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
}
