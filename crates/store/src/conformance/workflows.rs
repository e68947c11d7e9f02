//! Published workflows: versions, aliases, drafts.

use std::time::Duration;

use darkroom_core::{
    Clock, Payload,
    workflow::{AliasName, Version},
};

use super::{World, endpoint, tenant, tests, world::blob};
use crate::{
    Error,
    workflows::{Content, Moved, NewVersion, NewWorkflow, Resolved, Target, Wanted, WorkflowKey},
};

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

fn content(holds: &str) -> Content {
    Content {
        endpoint: endpoint(),
        note: format!("holds {holds}"),
        definition: Payload::Inline(holds.as_bytes().to_vec()),
    }
}

fn import(id: &str, versions: &[&str], aliases: &[(&str, usize)]) -> NewWorkflow {
    NewWorkflow {
        workflow: key(id),
        versions: versions.iter().map(|holds| content(holds)).collect(),
        aliases: aliases.iter().map(|(name, at)| (alias(name), *at)).collect(),
        by: "importer".to_owned(),
    }
}

fn new(id: &str, holds: &str, to: Option<&str>) -> NewVersion {
    NewVersion {
        workflow: key(id),
        content: content(holds),
        by: "publisher".to_owned(),
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
        let aliases: Vec<_> = record.aliases.iter().map(|a| (a.name.as_str(), a.version)).collect();
        assert_eq!(aliases, [("beta", v(3)), ("main", v(1))]);
        assert_eq!(record.updated_at, world.clock.now());
        let versions = world.store().versions(&key("海报"), None, 2).await.unwrap();
        assert_eq!(versions.iter().map(|v| (v.version, v.size)).collect::<Vec<_>>(), [(v(3), 5), (v(2), 3)]);
        let rest = world.store().versions(&key("海报"), Some(v(2)), 2).await.unwrap();
        assert_eq!(rest.iter().map(|v| v.version).collect::<Vec<_>>(), [v(1)]);
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
        let moves = store.alias_moves(&a, Some(&main), None, 10).await.unwrap();
        let shown: Vec<_> = moves.iter().map(|m| (m.from, m.to, m.by.as_str(), m.rollback)).collect();
        assert_eq!(shown, [(Some(v(3)), v(1), "op", true), (Some(v(1)), v(3), "op", false), (None, v(1), "publisher", false)]);
        assert_eq!(store.alias_moves(&a, None, None, 10).await.unwrap().len(), 4);
        let page = store.alias_moves(&a, None, None, 3).await.unwrap();
        let rest = store.alias_moves(&a, None, Some(page[2].nr), 3).await.unwrap();
        assert_eq!(rest.iter().map(|m| (m.from, m.to)).collect::<Vec<_>>(), [(None, v(1))]);
    }

    async fn a_second_step_back_goes_further_back(world: World) {
        for holds in ["one", "two", "three", "four"] {
            world.store().publish(new("a", holds, None)).await.unwrap();
        }
        let (a, main) = (key("a"), alias("main"));
        let store = world.store();
        let to = |n| Target::Version(v(n));
        let done = |from, to| Moved::Done { from: Some(v(from)), to: v(to) };
        for n in [2, 3] {
            store.move_alias(&a, &main, to(n), "op").await.unwrap();
        }
        assert_eq!(store.move_alias(&a, &main, Target::Back, "op").await.unwrap(), done(3, 2));
        assert_eq!(store.move_alias(&a, &main, Target::Back, "op").await.unwrap(), done(2, 1), "not to 3 again");
        assert_eq!(store.move_alias(&a, &main, Target::Back, "op").await.unwrap(), Moved::NothingBefore);
        // A move after that is taken back by itself.
        store.move_alias(&a, &main, to(4), "op").await.unwrap();
        assert_eq!(store.move_alias(&a, &main, Target::Back, "op").await.unwrap(), done(4, 1));
        assert_eq!(store.move_alias(&a, &main, Target::Back, "op").await.unwrap(), Moved::NothingBefore);
    }

    async fn versions_and_aliases_are_brought_in_together(world: World) {
        let store = world.store();
        let made = store.import(import("a", &["one", "two"], &[("beta", 0), ("main", 1)])).await.unwrap();
        assert_eq!((made.versions, made.aliases), (vec![v(1), v(2)], vec![alias("beta"), alias("main")]));
        assert_eq!(resolved(&world, "a", Wanted::Alias(alias("main"))).await, Resolved::Found(v(2)));
        assert_eq!(store.alias_moves(&key("a"), None, None, 9).await.unwrap().len(), 2, "main was never at v1");
        // Into one that is there: numbers go on, its own aliases stay.
        let made = store.import(import("a", &["three"], &[("main", 0), ("new", 0)])).await.unwrap();
        assert_eq!((made.versions, made.aliases), (vec![v(3)], vec![alias("new")]));
        assert_eq!(resolved(&world, "a", Wanted::Alias(alias("main"))).await, Resolved::Found(v(2)));
        let (of, holds) = store.version(&key("a"), v(3)).await.unwrap().unwrap();
        assert_eq!((of.published_by.as_str(), holds), ("importer", Payload::Inline(b"three".to_vec())));
        // A new one is never without main.
        let made = store.import(import("b", &["one"], &[])).await.unwrap();
        assert_eq!(made.aliases, [alias("main")]);
    }

    async fn an_import_that_fails_leaves_nothing(world: World) {
        let store = world.store();
        store.publish(new("a", "one", None)).await.unwrap();
        let mut with_blob = import("a", &["two", "three"], &[("beta", 1)]);
        with_blob.versions[1].definition = Payload::Blob { key: blob("large"), size: 70_000 };
        with_blob.aliases.push((alias("nowhere"), 2));
        assert!(matches!(store.import(with_blob).await, Err(Error::Inconsistent { .. })));
        let nowhere = import("b", &["one"], &[("main", 1)]);
        assert!(matches!(store.import(nowhere).await, Err(Error::Inconsistent { .. })));
        let record = store.workflow(&key("a")).await.unwrap().unwrap();
        assert_eq!((record.latest, record.aliases.len()), (Some(v(1)), 1));
        assert!(store.workflow(&key("b")).await.unwrap().is_none());
        assert!(store.refs_to(&blob("large")).await.unwrap().is_empty());
    }

    async fn the_endpoints_of_versions_aliases_and_drafts_are_told(world: World) {
        let store = world.store();
        let mut on_other = new("a", "two", Some("beta"));
        on_other.content.endpoint = "other".parse().unwrap();
        store.publish(new("a", "one", None)).await.unwrap();
        store.publish(on_other).await.unwrap();
        store.publish(new("a", "three", None)).await.unwrap();
        store.put_draft(&key("a"), &"third".parse().unwrap(), Payload::Inline(vec![1])).await.unwrap();
        let record = store.workflow(&key("a")).await.unwrap().unwrap();
        let mut all = vec![endpoint(), "other".parse().unwrap()];
        all.sort();
        assert_eq!((record.endpoints, record.endpoint), (all, Some(endpoint())));
        assert_eq!(record.draft_endpoint.unwrap().as_str(), "third");
        let of: Vec<_> = record.aliases.into_iter().map(|a| (a.name, a.endpoint)).collect();
        assert_eq!(of, [(alias("beta"), "other".parse().unwrap()), (alias("main"), endpoint())]);
        store.remove_draft(&key("a")).await.unwrap();
        assert_eq!(store.workflow(&key("a")).await.unwrap().unwrap().draft_endpoint, None);
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
        store.put_draft(&key("a"), &endpoint(), draft("one")).await.unwrap();
        store.put_draft(&key("a"), &endpoint(), draft("two")).await.unwrap();
        assert_eq!(store.draft(&key("a")).await.unwrap(), Some((world.clock.now(), draft("two"))));
        assert_eq!(resolved(&world, "a", Wanted::Alias(alias("main"))).await, Resolved::NoWorkflow, "a draft is no version");
        assert_eq!(store.workflow(&key("a")).await.unwrap().unwrap().latest, None);
        store.publish(NewVersion { from_draft: true, ..new("a", "two", None) }).await.unwrap();
        assert_eq!(store.draft(&key("a")).await.unwrap(), None);
        store.put_draft(&key("a"), &endpoint(), draft("three")).await.unwrap();
        assert!(store.remove_draft(&key("a")).await.unwrap());
        assert_eq!(store.workflow(&key("a")).await.unwrap().unwrap().latest, Some(v(1)));
        store.put_draft(&key("b"), &endpoint(), draft("only")).await.unwrap();
        assert!(store.remove_draft(&key("b")).await.unwrap());
        assert!(store.workflow(&key("b")).await.unwrap().is_none());
    }

    async fn what_versions_hold_is_referred_to_as_long_as_they_do(world: World) {
        let store = world.store();
        let large = |name: &str| Payload::Blob { key: blob(name), size: 70_000 };
        store.put_draft(&key("a"), &endpoint(), large("draft1")).await.unwrap();
        store.put_draft(&key("a"), &endpoint(), large("draft2")).await.unwrap();
        assert_eq!(store.trash_due(Duration::ZERO, 9).await.unwrap(), [blob("draft1")]);
        store.publish(NewVersion { content: Content { definition: large("v1"), ..content("") }, from_draft: true, ..new("a", "", None) }).await.unwrap();
        assert_eq!(store.refs_to(&blob("v1")).await.unwrap().len(), 1);
        let mut trash = store.trash_due(Duration::ZERO, 9).await.unwrap();
        trash.sort();
        assert_eq!(trash, [blob("draft1"), blob("draft2")]);
        let (_, holds) = store.version(&key("a"), v(1)).await.unwrap().unwrap();
        assert_eq!(holds, large("v1"));
    }
}
