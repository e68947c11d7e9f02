//! Instances, object_info, endpoints, settings, decisions.

use std::time::Duration;

use darkroom_core::{Clock, InstanceId, InstanceState};

use super::{
    World, tests,
    world::{endpoint, node},
};
use crate::catalog::{BoxInfo, InstanceChange, InstanceRecord};

pub(super) fn instance(world: &World) -> InstanceRecord {
    InstanceRecord {
        id: InstanceId::new(&world.ids),
        endpoint: endpoint(),
        home: node("a"),
        state: InstanceState::Starting,
        state_since: world.clock.now(),
        created_at: world.clock.now(),
        gpu: Some("0".to_owned()),
        box_name: "/opt/ComfyUI".to_owned(),
        handle: None,
        start_reason: "1 job waits".to_owned(),
        state_reason: String::new(),
        jobs_done: 0,
        phases: Vec::new(),
    }
}

fn to(state: InstanceState) -> InstanceChange {
    InstanceChange {
        state: Some(state),
        ..InstanceChange::default()
    }
}

tests! {
    async fn an_instance_changes_only_from_the_state_that_was_seen(world: World) {
        let new = instance(&world);
        let id = new.id;
        world.store().add_instance(new.clone()).await.unwrap();
        assert_eq!(world.store().instance(id).await.unwrap(), Some(new));
        world.clock.advance(Duration::from_secs(2));
        let spawned = InstanceChange {
            handle: Some("{\"pid\":1}".to_owned()),
            phase: Some("spawned".to_owned()),
            ..InstanceChange::default()
        };
        assert!(world.store().change_instance(id, InstanceState::Starting, spawned).await.unwrap());
        assert!(world.store().change_instance(id, InstanceState::Starting, to(InstanceState::Ready)).await.unwrap());
        let stale = world.store().change_instance(id, InstanceState::Starting, to(InstanceState::Failed)).await;
        assert!(!stale.unwrap());
        let why = InstanceChange { reason: Some("r".to_owned()), ..InstanceChange::default() };
        assert!(world.store().change_instance(id, InstanceState::Ready, why).await.unwrap());
        let read = world.store().instance(id).await.unwrap().unwrap();
        assert_eq!((read.state, read.jobs_done), (InstanceState::Ready, 0));
        assert_eq!((read.handle.as_deref(), read.state_reason.as_str()), (Some("{\"pid\":1}"), "r"));
        assert_eq!(read.phases, [("spawned".to_owned(), world.clock.now())]);
        assert_eq!(read.state_since, world.clock.now());
        let unknown = InstanceId::new(&world.ids);
        assert!(!world.store().change_instance(unknown, InstanceState::Ready, to(InstanceState::Draining)).await.unwrap());
    }

    async fn an_impossible_change_is_an_error(world: World) {
        let new = instance(&world);
        world.store().add_instance(new.clone()).await.unwrap();
        let back = world.store().change_instance(new.id, InstanceState::Starting, to(InstanceState::Stopped)).await;
        assert!(back.is_err());
        assert_eq!(world.store().instance(new.id).await.unwrap().unwrap().state, InstanceState::Starting);
    }

    async fn gone_instances_are_listed_on_request_until_swept(world: World) {
        let (one, two) = (instance(&world), instance(&world));
        world.store().add_instance(one.clone()).await.unwrap();
        world.store().add_instance(two.clone()).await.unwrap();
        assert!(world.store().change_instance(one.id, InstanceState::Starting, to(InstanceState::Failed)).await.unwrap());
        let live: Vec<_> = world.store().instances(false).await.unwrap().iter().map(|i| i.id).collect();
        assert_eq!(live, [two.id]);
        assert_eq!(world.store().instances(true).await.unwrap().len(), 2);
        assert!(world.store().sweep_instances(world.clock.now()).await.unwrap().is_empty());
        world.clock.advance(Duration::from_secs(1));
        let swept = world.store().sweep_instances(world.clock.now()).await.unwrap();
        assert_eq!(swept.iter().map(|i| i.id).collect::<Vec<_>>(), [one.id]);
        assert_eq!(world.store().instances(true).await.unwrap().len(), 1);
    }

    async fn object_info_is_kept_per_box(world: World) {
        assert!(world.store().object_infos(&endpoint()).await.unwrap().is_empty());
        let big = vec![b'x'; 3_000_000];
        let learned = |name: &str, json: &[u8]| BoxInfo {
            box_name: name.to_owned(),
            json: json.to_vec(),
            learned_at: world.clock.now(),
        };
        world.store().put_object_info(&endpoint(), "b", b"{}".to_vec()).await.unwrap();
        let small = learned("b", b"{}");
        world.clock.advance(Duration::from_secs(5));
        world.store().put_object_info(&endpoint(), "a", b"[]".to_vec()).await.unwrap();
        world.store().put_object_info(&endpoint(), "a", big.clone()).await.unwrap();
        world.clock.advance(Duration::from_secs(5));
        world.store().put_object_info(&endpoint(), "a", big.clone()).await.unwrap();
        let other = "other".parse().unwrap();
        world.store().put_object_info(&other, "a", b"{}".to_vec()).await.unwrap();
        let all = world.store().object_infos(&endpoint()).await.unwrap();
        assert!(all == [learned("a", &big), small.clone()]);
        assert!(world.store().remove_object_info(&endpoint(), "a").await.unwrap());
        assert!(!world.store().remove_object_info(&endpoint(), "a").await.unwrap());
        assert_eq!(world.store().object_infos(&endpoint()).await.unwrap(), [small]);
        assert_eq!(world.store().object_infos(&other).await.unwrap().len(), 1);
    }

    async fn endpoints_and_settings_are_replaced_and_removed(world: World) {
        world.store().put_endpoint(&endpoint(), "{\"a\":1}".to_owned()).await.unwrap();
        world.store().put_endpoint(&endpoint(), "{\"a\":2}".to_owned()).await.unwrap();
        assert_eq!(world.store().endpoints().await.unwrap(), [(endpoint(), "{\"a\":2}".to_owned())]);
        assert!(world.store().remove_endpoint(&endpoint()).await.unwrap());
        assert!(!world.store().remove_endpoint(&endpoint()).await.unwrap());
        assert_eq!(world.store().setting("s").await.unwrap(), None);
        world.store().put_setting("s", "1").await.unwrap();
        world.store().put_setting("s", "2").await.unwrap();
        assert_eq!(world.store().setting("s").await.unwrap().as_deref(), Some("2"));
    }

    async fn settings_are_listed_by_what_their_names_begin_with(world: World) {
        let pairs = |names: &[&str]| -> Vec<(String, String)> {
            names.iter().map(|name| ((*name).to_owned(), format!("\"{name}\""))).collect()
        };
        let all = pairs(&["a/b", "a/图", "a/%", "a", "a0", "A/b", "b/a", "a/b/c"]);
        world.store().put_settings(all).await.unwrap();
        world.store().put_settings(Vec::new()).await.unwrap();
        assert_eq!(world.store().settings_under("a/").await.unwrap(), pairs(&["a/%", "a/b", "a/b/c", "a/图"]));
        assert_eq!(world.store().settings_under("a/b").await.unwrap(), pairs(&["a/b", "a/b/c"]));
        assert_eq!(world.store().settings_under("c").await.unwrap(), []);
    }

    async fn the_newest_decisions_are_kept(world: World) {
        for n in 0..1200 {
            world.store().add_decision(&endpoint(), n.to_string()).await.unwrap();
        }
        let other = "other".parse().unwrap();
        world.store().add_decision(&other, "o".to_owned()).await.unwrap();
        let newest = world.store().decisions(&endpoint(), 2).await.unwrap();
        assert_eq!(newest.iter().map(|(_, d)| d.as_str()).collect::<Vec<_>>(), ["1199", "1198"]);
        let all = world.store().decisions(&endpoint(), 5000).await.unwrap();
        assert_eq!((all.len(), all[999].1.as_str()), (1000, "200"));
        assert_eq!(world.store().decisions(&other, 9).await.unwrap().len(), 1);
    }
}
