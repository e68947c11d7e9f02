//! References, intents and the trash.

use std::time::Duration;

use darkroom_core::Clock;

use super::{
    World, tests,
    world::{blob, tenant},
};
use crate::files::FileRef;

fn reference(world: &World, owner: &str, name: &str, key: &str) -> FileRef {
    FileRef {
        owner: owner.to_owned(),
        name: name.to_owned(),
        tenant: tenant("t"),
        blob: blob(key),
        size: 3,
        content_type: "image/png".to_owned(),
        created_at: world.clock.now(),
    }
}

const HOUR: Duration = Duration::from_secs(3600);

tests! {
    async fn a_reference_reads_back_and_replaces(world: World) {
        let first = reference(&world, "upload:t", "图.png", "a");
        world.store().put_ref(first.clone()).await.unwrap();
        assert_eq!(world.store().file_ref("upload:t", "图.png").await.unwrap(), Some(first.clone()));
        let second = reference(&world, "upload:t", "图.png", "b");
        world.store().put_ref(second.clone()).await.unwrap();
        assert_eq!(world.store().refs_of("upload:t").await.unwrap(), [second]);
        assert!(world.store().refs_to(&blob("a")).await.unwrap().is_empty());
        assert_eq!(world.store().trash_due(Duration::ZERO, 9).await.unwrap(), [blob("a")], "replaced is dropped");
    }

    async fn only_the_last_reference_puts_a_blob_into_the_trash(world: World) {
        world.store().put_ref(reference(&world, "x", "1", "a")).await.unwrap();
        world.store().put_ref(reference(&world, "y", "1", "a")).await.unwrap();
        assert!(world.store().drop_ref("x", "1").await.unwrap());
        assert!(!world.store().drop_ref("x", "1").await.unwrap());
        assert!(world.store().trash_due(Duration::ZERO, 9).await.unwrap().is_empty());
        assert!(world.store().drop_ref("y", "1").await.unwrap());
        assert!(world.store().trash_due(HOUR, 9).await.unwrap().is_empty(), "not before the delay");
        world.clock.advance(HOUR);
        assert_eq!(world.store().trash_due(HOUR, 9).await.unwrap(), [blob("a")]);
        assert!(world.store().empty_trash(&blob("a")).await.unwrap());
        assert!(world.store().trash_due(Duration::ZERO, 9).await.unwrap().is_empty());
        assert!(!world.store().empty_trash(&blob("a")).await.unwrap());
    }

    async fn references_made_before_an_instant_are_dropped_a_few_at_a_time(world: World) {
        for name in ["1", "2", "3"] {
            world.store().put_ref(reference(&world, "x", name, name)).await.unwrap();
        }
        world.store().put_ref(reference(&world, "y", "1", "1")).await.unwrap();
        world.clock.advance(HOUR);
        world.store().put_ref(reference(&world, "x", "0", "new")).await.unwrap();
        let now = world.clock.now();
        assert_eq!(world.store().drop_refs_before("x", now, 2).await.unwrap(), 2);
        assert_eq!(world.store().drop_refs_before("x", now, 2).await.unwrap(), 1);
        assert_eq!(world.store().drop_refs_before("x", now, 2).await.unwrap(), 0);
        assert_eq!(world.store().refs_of("x").await.unwrap().len(), 1, "the new one stays");
        let trash = world.store().trash_due(Duration::ZERO, 9).await.unwrap();
        assert_eq!(trash.len(), 2, "another owner refers to the third: {trash:?}");
    }

    async fn usage_counts_every_blob_once_by_tenant_endpoint_and_age(world: World) {
        let job = world.accept_one().await;
        let of_job = format!("job:{job}");
        world.store().put_ref(reference(&world, &of_job, "output/0", "a")).await.unwrap();
        world.store().put_ref(reference(&world, &of_job, "output/1", "a")).await.unwrap();
        world.store().put_ref(reference(&world, "objects:w", "k|b", "b")).await.unwrap();
        world.clock.advance(2 * 24 * HOUR);
        world.store().put_ref(reference(&world, "input:t:sdxl", "a.png", "c")).await.unwrap();
        world.store().put_ref(reference(&world, "signed", "x", "d")).await.unwrap();
        let usage = world.store().usage(world.clock.now()).await.unwrap();
        let found: Vec<_> = usage
            .iter()
            .map(|u| (u.endpoint.as_deref(), u.age, u.blobs, u.bytes))
            .collect();
        let endpoint = super::world::endpoint();
        let mut wanted = vec![
            (None, 0, 1, 3),
            (Some(endpoint.as_str()), 1, 1, 3),
            (Some("sdxl"), 0, 1, 3),
            (Some("w"), 1, 1, 3),
        ];
        wanted.sort();
        assert_eq!(found, wanted);
        assert!(usage.iter().all(|u| u.tenant == tenant("t")));
    }

    async fn a_new_reference_saves_a_blob_from_the_trash(world: World) {
        world.store().put_ref(reference(&world, "x", "1", "a")).await.unwrap();
        world.store().drop_ref("x", "1").await.unwrap();
        assert_eq!(world.store().trash_due(Duration::ZERO, 9).await.unwrap(), [blob("a")]);
        world.store().put_ref(reference(&world, "y", "1", "a")).await.unwrap();
        assert!(!world.store().empty_trash(&blob("a")).await.unwrap(), "it must stay");
        assert_eq!(world.store().refs_to(&blob("a")).await.unwrap().len(), 1);
    }

    async fn a_job_keeps_the_files_its_request_names_also_through_a_retry(world: World) {
        let mut job = world.new_job();
        let (id, key) = (job.id, blob("in.png"));
        job.input_files =
            vec![crate::jobs::InputBlob { key: key.clone(), size: 3, content_type: "image/png".to_owned() }];
        world.store().intend(&key).await.unwrap();
        world.accept(job).await;
        world.clock.advance(HOUR * 48);
        assert!(world.store().trash_due(Duration::ZERO, 9).await.unwrap().is_empty());
        let claimed = world.claim().await.unwrap();
        world.finish(super::world::lease(&claimed), super::done()).await;
        assert_eq!(world.store().retry(None, id).await.unwrap(), Some(true));
        let refs = world.store().refs_to(&key).await.unwrap();
        assert_eq!(refs.iter().map(|r| r.name.as_str()).collect::<Vec<_>>(), ["input/0"]);
    }

    async fn an_intent_without_a_reference_is_found_after_a_day(world: World) {
        world.store().intend(&blob("left")).await.unwrap();
        world.store().intend(&blob("named")).await.unwrap();
        world.store().put_ref(reference(&world, "x", "1", "named")).await.unwrap();
        world.store().intend(&blob("named")).await.unwrap();
        world.clock.advance(HOUR);
        assert!(world.store().trash_due(Duration::ZERO, 9).await.unwrap().is_empty(), "it may be under way");
        world.clock.advance(HOUR * 23);
        assert_eq!(world.store().trash_due(HOUR, 9).await.unwrap(), [blob("left")]);
        assert!(world.store().empty_trash(&blob("left")).await.unwrap());
    }

    async fn an_intent_saves_a_blob_from_the_trash_for_a_day(world: World) {
        world.store().put_ref(reference(&world, "x", "1", "a")).await.unwrap();
        world.store().drop_ref("x", "1").await.unwrap();
        world.clock.advance(HOUR);
        assert_eq!(world.store().trash_due(HOUR, 9).await.unwrap(), [blob("a")]);
        world.store().intend(&blob("a")).await.unwrap();
        assert!(!world.store().empty_trash(&blob("a")).await.unwrap(), "somebody is about to refer to it");
        world.clock.advance(HOUR * 24);
        assert_eq!(world.store().trash_due(HOUR, 9).await.unwrap(), [blob("a")]);
        assert!(world.store().empty_trash(&blob("a")).await.unwrap(), "nobody did");
    }

    async fn the_trash_is_told_in_portions(world: World) {
        for n in 0..5 {
            world.store().put_ref(reference(&world, "x", &n.to_string(), &format!("b{n}"))).await.unwrap();
            world.store().drop_ref("x", &n.to_string()).await.unwrap();
        }
        assert_eq!(world.store().trash_due(Duration::ZERO, 3).await.unwrap().len(), 3);
    }

    async fn references_are_told_page_by_page(world: World) {
        for name in ["b", "a", "图", "c"] {
            world.store().put_ref(reference(&world, "x", name, &format!("key-{name}"))).await.unwrap();
        }
        world.store().put_ref(reference(&world, "y", "d", "other")).await.unwrap();
        let names = async |after: Option<&str>, limit| -> Vec<String> {
            let page = world.store().refs_page("x", after, limit).await.unwrap();
            page.into_iter().map(|r| r.name).collect()
        };
        assert_eq!(names(None, 2).await, ["a", "b"]);
        assert_eq!(names(Some("b"), 2).await, ["c", "图"]);
        assert!(names(Some("图"), 2).await.is_empty());
    }

    async fn a_blob_that_no_row_knows_goes_into_the_trash(world: World) {
        world.store().put_ref(reference(&world, "x", "1", "kept")).await.unwrap();
        world.store().intend(&blob("under-way")).await.unwrap();
        world.store().put_ref(reference(&world, "x", "2", "dropped")).await.unwrap();
        world.store().drop_ref("x", "2").await.unwrap();
        world.clock.advance(HOUR);
        let found = ["kept", "under-way", "dropped", "stray"].map(blob).to_vec();
        assert_eq!(world.store().trash_unknown(found.clone()).await.unwrap(), 1);
        assert_eq!(world.store().trash_unknown(found).await.unwrap(), 0, "it is known now");
        assert_eq!(world.store().trash_due(HOUR, 9).await.unwrap(), [blob("dropped")], "its delay goes on");
        world.clock.advance(HOUR);
        let due = world.store().trash_due(HOUR, 9).await.unwrap();
        assert!(due.contains(&blob("stray")) && !due.contains(&blob("under-way")), "{due:?}");
    }

    async fn a_taken_name_is_not_taken_again(world: World) {
        assert!(world.store().add_ref(reference(&world, "x", "a.png", "first")).await.unwrap());
        assert!(!world.store().add_ref(reference(&world, "x", "a.png", "second")).await.unwrap());
        assert!(world.store().add_ref(reference(&world, "y", "a.png", "second")).await.unwrap());
        let kept = world.store().file_ref("x", "a.png").await.unwrap().unwrap();
        assert_eq!(kept.blob, blob("first"));
        assert!(world.store().drop_ref("x", "a.png").await.unwrap());
        assert!(world.store().add_ref(reference(&world, "x", "a.png", "second")).await.unwrap());
        world.clock.advance(HOUR);
        assert_eq!(world.store().trash_due(HOUR, 9).await.unwrap(), [blob("first")]);
    }

    async fn an_intent_that_came_to_nothing_is_taken_back_unless_something_refers_to_it(world: World) {
        world.store().intend(&blob("refused")).await.unwrap();
        world.store().intend(&blob("named")).await.unwrap();
        world.store().put_ref(reference(&world, "x", "1", "named")).await.unwrap();
        world.store().put_ref(reference(&world, "x", "2", "dropped")).await.unwrap();
        world.store().drop_ref("x", "2").await.unwrap();
        assert!(world.store().withdraw(&blob("refused")).await.unwrap());
        for not in ["refused", "named", "dropped", "unknown"] {
            assert!(!world.store().withdraw(&blob(not)).await.unwrap(), "{not}");
        }
        world.clock.advance(HOUR * 48);
        assert_eq!(world.store().trash_due(HOUR, 9).await.unwrap(), [blob("dropped")]);
    }
}
