//! Wake-ups: whoever subscribed before a change hears of it.

use std::{future::Future, time::Duration};

use darkroom_core::{JobState, event::EventKind};

use super::{World, done, event, tests, world::endpoint};
use crate::wake::{Subscription, Topic};

async fn hears(mut subscription: Subscription, change: impl Future) {
    change.await;
    tokio::time::timeout(Duration::from_secs(5), subscription.woken())
        .await
        .expect("a wake-up follows the change");
}

tests! {
    async fn each_change_wakes_those_it_concerns(world: World) {
        let store = world.store().clone();
        hears(store.subscribe(Topic::Queue(endpoint())), world.accept_one()).await;
        hears(store.subscribe(Topic::Capacity), world.accept_one()).await;
        let held = world.claim_lease().await;
        let topic = || Topic::Job(held.job);
        let log = || vec![event(EventKind::Log, "{}")];
        hears(store.subscribe(topic()), store.append_events(held, log())).await;
        hears(store.subscribe(topic()), store.cancel(None, held.job)).await;
        let mut end = store.subscribe_end(held.job);
        hears(store.subscribe(topic()), store.append_events(held, log())).await;
        assert!(end.0.try_recv().is_err(), "it goes on");
        hears(store.subscribe(topic()), world.finish(held, done())).await;
        let ended = tokio::time::timeout(Duration::from_secs(60), end.ended())
            .await
            .expect("its end is told");
        assert!(ended.is_none_or(|job| job.id == held.job && job.state == JobState::Succeeded));
        hears(store.subscribe(Topic::Capacity), world.claim_lease()).await;
    }

    async fn the_state_is_there_when_the_wake_up_comes(world: World) {
        let store = world.store().clone();
        let id = world.accept_one().await;
        let mut subscription = store.subscribe(Topic::Job(id));
        let watcher = {
            let store = store.clone();
            tokio::spawn(async move {
                loop {
                    let job = store.job(None, id).await.unwrap().unwrap();
                    if job.state.is_final() {
                        return job.state;
                    }
                    subscription.woken().await;
                }
            })
        };
        let held = world.claim_lease().await;
        world.finish(held, done()).await;
        let seen = tokio::time::timeout(Duration::from_secs(5), watcher).await.unwrap().unwrap();
        assert_eq!(seen, JobState::Succeeded);
    }

    async fn a_finished_webhook_job_wakes_the_outbox(world: World) {
        let mut job = world.new_job();
        job.meta.webhook = Some("https://example.com".to_owned());
        world.accept(job).await;
        let held = world.claim_lease().await;
        hears(world.store().subscribe(Topic::Outbox), world.finish(held, done())).await;
    }
}
