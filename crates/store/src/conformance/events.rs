//! Durable events: numbers, order, caps.

use darkroom_core::{
    Payload,
    attempt::Lease,
    event::{EventKind, MAX_EVENT_BYTES_PER_ATTEMPT, MAX_EVENTS_PER_ATTEMPT},
};

use super::{World, done, event, lost, tests};
use crate::jobs::Told;

tests! {
    async fn numbers_have_no_gaps_across_attempts(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        let two = vec![event(EventKind::ExecutionStart, "{\"a\":1}"), event(EventKind::Executing, "{}")];
        assert_eq!(world.store().append_events(held, two).await.unwrap().unwrap(), 4);
        world.finish(held, lost()).await;
        let held = world.claim_lease().await;
        world.store().append_events(held, vec![event(EventKind::Log, "\"x\"")]).await.unwrap().unwrap();
        world.finish(held, done()).await;
        let all = world.store().events(id, 0, 100).await.unwrap();
        assert_eq!(all.iter().map(|e| e.seq).collect::<Vec<_>>(), (1..=8).collect::<Vec<_>>());
        assert_eq!(all.iter().map(|e| e.attempt).collect::<Vec<_>>(), [0, 1, 1, 1, 1, 2, 2, 2]);
        let states: Vec<serde_json::Value> = all.iter().filter(|e| e.kind == EventKind::State)
            .map(|e| serde_json::from_str(&e.data).unwrap()).collect();
        let words: Vec<_> = states.iter().map(|s| s["state"].as_str().unwrap()).collect();
        assert_eq!(words, ["queued", "running", "queued", "running", "succeeded"]);
        assert_eq!(states[2]["lost"], "it died");
        assert_eq!(all[2].data, "{\"a\":1}", "verbatim");
    }

    async fn a_reader_goes_on_where_it_left(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        let logs = (0..10).map(|n| event(EventKind::Log, &n.to_string())).collect();
        world.store().append_events(held, logs).await.unwrap().unwrap();
        let page = world.store().events(id, 4, 3).await.unwrap();
        assert_eq!(page.iter().map(|e| e.seq).collect::<Vec<_>>(), [5, 6, 7]);
        assert!(world.store().events(id, 12, 3).await.unwrap().is_empty());
        assert!(world.store().events(world.new_job().id, 0, 3).await.unwrap().is_empty());
    }

    async fn what_is_told_again_after_a_lost_answer_is_stored_once(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        let (agent, next) = (uuid::Uuid::from_u128(1), uuid::Uuid::from_u128(2));
        let tell = async |teller, first, texts: &[&str]| {
            let events = texts.iter().map(|text| event(EventKind::Log, text)).collect();
            world.store().append_told(held, Told { teller, first, events }).await.unwrap().unwrap()
        };
        assert_eq!(tell(agent, 0, &["1", "1"]).await, 4);
        assert_eq!(tell(agent, 0, &["1", "1"]).await, 4, "all of it again");
        assert_eq!(tell(agent, 1, &["1", "1"]).await, 5, "one again, and one that only looks the same");
        assert_eq!(tell(agent, 3, &[]).await, 5);
        assert_eq!(tell(agent, 3, &["2"]).await, 6);
        // Another process under the same lease counts from the beginning.
        assert_eq!(tell(next, 0, &["2"]).await, 7);
        assert_eq!(tell(next, 0, &["2", "3"]).await, 8);
        let logs = world.store().events(id, 2, 100).await.unwrap();
        assert_eq!(logs.iter().map(|e| e.data.as_str()).collect::<Vec<_>>(), ["1", "1", "1", "2", "2", "3"]);
        world.finish(held, done()).await;
        let late = Told { teller: next, first: 2, events: vec![event(EventKind::Log, "4")] };
        assert!(world.store().append_told(held, late).await.unwrap().is_err(), "it has ended");
    }

    async fn chunks_are_drained_once_and_only_those_of_the_newest_attempt(world: World) {
        let id = world.accept_one().await;
        let store = world.store();
        assert_eq!(store.unstreamed(id, 10).await.unwrap().chunks, []);
        let held = world.claim_lease().await;
        let yielded = vec![event(EventKind::Chunk, "1"), event(EventKind::Log, "\"x\""), event(EventKind::Chunk, "2")];
        store.append_events(held, yielded).await.unwrap().unwrap();
        let first = store.unstreamed(id, 1).await.unwrap();
        assert_eq!(first.chunks.iter().map(|c| c.data.as_str()).collect::<Vec<_>>(), ["1"]);
        let upto = first.chunks[0].seq;
        assert!(store.mark_streamed(id, first.after, upto).await.unwrap());
        assert!(!store.mark_streamed(id, first.after, upto).await.unwrap(), "somebody was faster");
        let rest = store.unstreamed(id, 10).await.unwrap();
        assert_eq!((rest.after, rest.truncated), (upto, false));
        assert_eq!(rest.chunks.iter().map(|c| c.data.as_str()).collect::<Vec<_>>(), ["2"]);
        world.finish(held, lost()).await;
        let held = world.claim_lease().await;
        store.append_events(held, vec![event(EventKind::Chunk, "3")]).await.unwrap().unwrap();
        let again = store.unstreamed(id, 10).await.unwrap();
        assert_eq!(again.chunks.iter().map(|c| c.data.as_str()).collect::<Vec<_>>(), ["3"]);
    }

    async fn beyond_the_cap_one_marker_and_still_every_state(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        for _ in 0..3 {
            append(&world, held, MAX_EVENTS_PER_ATTEMPT / 2, EventKind::Log).await;
        }
        world.finish(held, done()).await;
        let last = world.store().events(id, MAX_EVENTS_PER_ATTEMPT, 100).await.unwrap();
        let kinds: Vec<_> = last.iter().map(|e| e.kind).collect();
        assert_eq!(kinds, [EventKind::Log, EventKind::Truncated, EventKind::State]);
    }

    async fn beyond_the_cap_there_is_room_for_what_came_out_and_how_it_ended(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        append(&world, held, MAX_EVENTS_PER_ATTEMPT + 10, EventKind::Executing).await;
        let after = append(&world, held, 1, EventKind::Executed).await;
        append(&world, held, 5, EventKind::Executing).await;
        append(&world, held, MAX_EVENTS_PER_ATTEMPT * 2, EventKind::Output).await;
        append(&world, held, 1, EventKind::ExecutionSuccess).await;
        world.finish(held, done()).await;
        let kept = world.store().events(id, after - 2, 10_000).await.unwrap();
        let kinds: Vec<_> = kept.iter().map(|e| e.kind).collect();
        assert_eq!(kinds[..2], [EventKind::Truncated, EventKind::Executed]);
        let (outputs, end) = kinds[2..].split_at(kinds.len() - 4);
        assert!(outputs.iter().all(|kind| *kind == EventKind::Output), "and they are bounded as well");
        assert!((outputs.len() as u64) < MAX_EVENTS_PER_ATTEMPT);
        assert_eq!(end, [EventKind::ExecutionSuccess, EventKind::State]);
    }

    async fn the_next_attempt_has_its_own_room(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        append(&world, held, MAX_EVENTS_PER_ATTEMPT + 10, EventKind::Log).await;
        world.finish(held, lost()).await;
        let held = world.claim_lease().await;
        let last = append(&world, held, MAX_EVENTS_PER_ATTEMPT - 10, EventKind::Log).await;
        let told = world.store().events(id, last - 1, 10).await.unwrap();
        assert_eq!((told[0].attempt, told[0].kind), (2, EventKind::Log));
    }

    async fn chunks_are_all_kept_in_their_order(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        let many = MAX_EVENTS_PER_ATTEMPT * 2;
        let chunks = |from: u64, to: u64| (from..to).map(|n| Payload::Inline(n.to_string().into_bytes())).collect();
        world.store().append_chunks(held, chunks(0, 5)).await.unwrap().unwrap();
        let last = world.store().append_chunks(held, chunks(5, many)).await.unwrap().unwrap();
        assert_eq!(last, many + 2);
        append(&world, held, 1, EventKind::ExecutionSuccess).await;
        world.finish(held, done()).await;
        assert!(world.store().append_chunks(held, chunks(0, 1)).await.unwrap().is_err(), "it has ended");
        let all = world.store().events(id, 2, 10_000).await.unwrap();
        let told: Vec<_> = all.iter().filter(|e| e.kind == EventKind::Chunk).map(|e| e.data.clone()).collect();
        assert_eq!(told, (0..many).map(|n| format!("{{\"output\":{n}}}")).collect::<Vec<_>>());
    }

    async fn a_large_chunk_is_a_blob_that_lives_as_long_as_its_job(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        let key = super::world::blob("jobs/a/chunk-1.json");
        world.store().intend(&key).await.unwrap();
        let chunk = Payload::Blob { key: key.clone(), size: 70_000 };
        world.store().append_chunks(held, vec![chunk]).await.unwrap().unwrap();
        world.finish(held, done()).await;
        let told = world.store().events(id, 2, 1).await.unwrap();
        assert_eq!(told[0].data, "{\"blob\":\"jobs/a/chunk-1.json\",\"size\":70000}");
        world.clock.advance(std::time::Duration::from_secs(90_000));
        let trashed = async || world.store().trash_due(std::time::Duration::ZERO, 100).await.unwrap();
        assert!(trashed().await.is_empty());
        let swept = world.store().sweep_finished(&super::endpoint(), std::time::Duration::ZERO).await.unwrap();
        assert!(swept.rows > 0);
        world.clock.advance(std::time::Duration::from_secs(90_000));
        assert_eq!(trashed().await, [key]);
    }

    async fn bytes_are_capped_as_well(world: World) {
        let id = world.accept_one().await;
        let held = world.claim_lease().await;
        let big = "x".repeat(usize::try_from(MAX_EVENT_BYTES_PER_ATTEMPT / 2).unwrap());
        for kind in [EventKind::Log; 3].into_iter().chain([EventKind::Executed; 3]) {
            world.store().append_events(held, vec![event(kind, &big)]).await.unwrap().unwrap();
        }
        let kinds: Vec<_> = world.store().events(id, 2, 100).await.unwrap().iter().map(|e| e.kind).collect();
        assert_eq!(kinds, [
            EventKind::Log, EventKind::Log, EventKind::Truncated, EventKind::Executed, EventKind::Executed,
        ]);
    }
}

/// Appends `count` events of a kind; the number of the last one.
async fn append(world: &World, held: Lease, count: u64, kind: EventKind) -> u64 {
    let events = (0..count).map(|_| event(kind, "{}")).collect();
    world.store().append_events(held, events).await.unwrap().unwrap()
}
