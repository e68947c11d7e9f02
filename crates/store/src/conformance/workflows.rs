//! Published workflows: versions, aliases, drafts.

use std::time::Duration;

use darkroom_core::{
    Clock, Payload,
    workflow::{AliasName, Version},
};

use super::{World, endpoint, tenant, tests, world::blob};
use crate::workflows::{Moved, NewVersion, Resolved, Target, Wanted, WorkflowKey};

fn key(id: &str) -> WorkflowKey {
    WorkflowKey {
        tenant: tenant("t"),
        id: id.parse().unwrap(),
    }
}

fn v(number: u32) -> Version {
    Version::new(number).unwrap()
}

fn alias(name: &str) -> AliasName {
    name.parse().unwrap()
}

fn new(id: &str, holds: &str, to: Option<&str>) -> NewVersion {
    NewVersion {
        workflow: key(id),
        endpoint: endpoint(),
        note: format!("holds {holds}"),
        by: "publisher".to_owned(),
        definition: Payload::Inline(holds.as_bytes().to_vec()),
        alias: to.map(alias),
        from_draft: false,
    }
}

async fn resolved(world: &World, id: &str, wanted: Wanted) -> Resolved {
    world.store().resolve(&key(id), &wanted).await.unwrap()
}

tests! {
    async fn versions_count_up_and_the_first_becomes_main(world: World) {
        let first = world.store().publish(new("海报", "one", None)).await.unwrap();
        assert_eq!((first.version, first.aliases), (v(1), vec![alias("main")]));
        world.clock.advance(Duration::from_secs(1));
        let second = world.store().publish(new("海报", "two", None)).await.unwrap();
        assert_eq!((second.version, second.aliases.len()), (v(2), 0));
        let third = world.store().publish(new("海报", "three", Some("beta"))).await.unwrap();
        assert_eq!((third.version, third.aliases), (v(3), vec![alias("beta")]));
        let record = world.store().workflow(&key("海报")).await.unwrap().unwrap();
        assert_eq!((record.latest, record.endpoint), (Some(v(3)), Some(endpoint())));
        assert_eq!(record.aliases, [(alias("beta"), v(3)), (alias("main"), v(1))]);
        assert_eq!(record.updated_at, world.clock.now());
        let versions = world.store().versions(&key("海报"), 2).await.unwrap();
        assert_eq!(versions.iter().map(|v| v.version).collect::<Vec<_>>(), [v(3), v(2)]);
        let (of, holds) = world.store().version(&key("海报"), v(2)).await.unwrap().unwrap();
        assert_eq!((of.note.as_str(), of.published_by.as_str()), ("holds two", "publisher"));
        assert_eq!(holds, Payload::Inline(b"two".to_vec()));
        assert!(world.store().version(&key("海报"), v(4)).await.unwrap().is_none());
    }

    async fn a_version_wins_over_nothing_and_names_lead_where_they_point(world: World) {
        world.store().publish(new("a", "one", Some("v2.1"))).await.unwrap();
        world.store().publish(new("a", "two", None)).await.unwrap();
        assert_eq!(resolved(&world, "a", Wanted::Alias(alias("v2.1"))).await, Resolved::Found(v(1)));
        assert_eq!(resolved(&world, "a", Wanted::Version(v(2))).await, Resolved::Found(v(2)));
        assert_eq!(resolved(&world, "a", Wanted::Version(v(3))).await, Resolved::NoVersion);
        assert_eq!(resolved(&world, "a", Wanted::Alias(alias("none"))).await, Resolved::NoAlias);
        assert_eq!(resolved(&world, "b", Wanted::Alias(alias("main"))).await, Resolved::NoWorkflow);
    }

    async fn an_alias_moves_with_its_history_and_back(world: World) {
        for holds in ["one", "two", "three"] {
            world.store().publish(new("a", holds, None)).await.unwrap();
        }
        let (a, main) = (key("a"), alias("main"));
        let store = world.store();
        assert_eq!(store.move_alias(&a, &main, Target::Back, "op").await.unwrap(), Moved::NothingBefore);
        assert_eq!(store.move_alias(&a, &alias("x"), Target::Back, "op").await.unwrap(), Moved::NoAlias);
        let to = |n| Target::Version(v(n));
        assert_eq!(store.move_alias(&a, &main, to(4), "op").await.unwrap(), Moved::NoVersion);
        assert_eq!(store.move_alias(&key("b"), &main, to(1), "op").await.unwrap(), Moved::NoWorkflow);
        assert_eq!(store.move_alias(&a, &main, to(3), "op").await.unwrap(), Moved::Done { from: Some(v(1)), to: v(3) });
        // Where it points already, nothing is moved and nothing is noted.
        assert_eq!(store.move_alias(&a, &main, to(3), "op").await.unwrap(), Moved::Done { from: Some(v(3)), to: v(3) });
        assert_eq!(store.move_alias(&a, &main, Target::Back, "op").await.unwrap(), Moved::Done { from: Some(v(3)), to: v(1) });
        assert_eq!(store.move_alias(&a, &alias("new"), to(2), "op").await.unwrap(), Moved::Done { from: None, to: v(2) });
        let moves = store.alias_moves(&a, Some(&main), 10).await.unwrap();
        let shown: Vec<_> = moves.iter().map(|m| (m.from, m.to, m.by.as_str(), m.rollback)).collect();
        assert_eq!(shown, [(Some(v(3)), v(1), "op", true), (Some(v(1)), v(3), "op", false), (None, v(1), "publisher", false)]);
        assert_eq!(store.alias_moves(&a, None, 10).await.unwrap().len(), 4);
    }

    async fn tenants_do_not_see_each_others(world: World) {
        world.store().publish(new("a", "one", None)).await.unwrap();
        world.store().publish(new("b", "one", None)).await.unwrap();
        let foreign = WorkflowKey { tenant: tenant("u"), ..key("a") };
        assert!(world.store().workflow(&foreign).await.unwrap().is_none());
        let first = world.store().publish(NewVersion { workflow: foreign, ..new("a", "theirs", None) }).await.unwrap();
        assert_eq!(first.version, v(1));
        let page = world.store().workflows(&tenant("t"), None, 1).await.unwrap();
        assert_eq!(page.iter().map(|w| w.key.id.as_str()).collect::<Vec<_>>(), ["a"]);
        let page = world.store().workflows(&tenant("t"), Some(&page[0].key.id), 9).await.unwrap();
        assert_eq!(page.iter().map(|w| w.key.id.as_str()).collect::<Vec<_>>(), ["b"]);
    }

    async fn a_draft_is_replaced_published_or_thrown_away(world: World) {
        let store = world.store();
        let draft = |text: &str| Payload::Inline(text.as_bytes().to_vec());
        assert!(!store.remove_draft(&key("a")).await.unwrap());
        store.put_draft(&key("a"), draft("one")).await.unwrap();
        store.put_draft(&key("a"), draft("two")).await.unwrap();
        assert_eq!(store.draft(&key("a")).await.unwrap(), Some((world.clock.now(), draft("two"))));
        assert_eq!(resolved(&world, "a", Wanted::Alias(alias("main"))).await, Resolved::NoWorkflow, "a draft is no version");
        assert_eq!(store.workflow(&key("a")).await.unwrap().unwrap().latest, None);
        store.publish(NewVersion { from_draft: true, ..new("a", "two", None) }).await.unwrap();
        assert_eq!(store.draft(&key("a")).await.unwrap(), None);
        store.put_draft(&key("a"), draft("three")).await.unwrap();
        assert!(store.remove_draft(&key("a")).await.unwrap());
        assert_eq!(store.workflow(&key("a")).await.unwrap().unwrap().latest, Some(v(1)));
        store.put_draft(&key("b"), draft("only")).await.unwrap();
        assert!(store.remove_draft(&key("b")).await.unwrap());
        assert!(store.workflow(&key("b")).await.unwrap().is_none());
    }

    async fn what_versions_hold_is_referred_to_as_long_as_they_do(world: World) {
        let store = world.store();
        let large = |name: &str| Payload::Blob { key: blob(name), size: 70_000 };
        store.put_draft(&key("a"), large("draft1")).await.unwrap();
        store.put_draft(&key("a"), large("draft2")).await.unwrap();
        assert_eq!(store.trash_due(Duration::ZERO, 9).await.unwrap(), [blob("draft1")]);
        store.publish(NewVersion { definition: large("v1"), from_draft: true, ..new("a", "", None) }).await.unwrap();
        assert_eq!(store.refs_to(&blob("v1")).await.unwrap().len(), 1);
        let mut trash = store.trash_due(Duration::ZERO, 9).await.unwrap();
        trash.sort();
        assert_eq!(trash, [blob("draft1"), blob("draft2")]);
        let (_, holds) = store.version(&key("a"), v(1)).await.unwrap().unwrap();
        assert_eq!(holds, large("v1"));
    }
}
