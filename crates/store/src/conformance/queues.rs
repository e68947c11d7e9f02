//! Queues: putting, delivering within windows, groups, committing, taking.

use std::time::Duration;

use darkroom_core::Payload;

use super::{
    World, tests,
    world::{endpoint, node, tenant},
};
use crate::queues::{
    Committed, Deliver, Delivered, Join, NewItem, Place, Policy, Put, QueueId, Scan, Session, Side, Start,
    Tags, Take, TakenOver, There, Wanted,
};

pub(super) const GRACE: Duration = Duration::from_secs(5);
pub(super) const MAX_IDLE: Duration = Duration::from_secs(60);

pub(super) fn queue(side: Side) -> QueueId {
    QueueId {
        tenant: tenant("t"),
        endpoint: endpoint(),
        side,
    }
}

pub(super) fn input() -> QueueId {
    queue(Side::Input)
}

pub(super) fn item(body: &str) -> NewItem {
    NewItem {
        payload: Payload::Inline(body.as_bytes().to_vec()),
        tags: Tags::new(),
        priority: 0,
        request_id: format!("r-{body}"),
        named: false,
        max_length: 1000,
    }
}

pub(super) fn tags(pairs: &[(&str, &str)]) -> Tags {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

pub(super) fn join(group: &str, consumer: &str, window: u32) -> Join {
    Join {
        group: group.to_owned(),
        consumer: consumer.to_owned(),
        start: Start::At(0),
        window,
        auto_commit: false,
        tags: Tags::new(),
        node: node("a"),
    }
}

pub(super) fn policy() -> Policy {
    Policy {
        max_idle: Some(MAX_IDLE),
        leave_grace: GRACE,
        max_delivery: 3,
        to_rear: true,
    }
}

pub(super) fn deliver(session: Session) -> Deliver {
    Deliver {
        session,
        sent: Vec::new(),
        at_most: 100,
        max_bytes: 1 << 20,
        bodies: true,
        scan: Scan::default(),
        policy: policy(),
    }
}

pub(super) fn indexes(delivered: &Delivered) -> Vec<u64> {
    delivered.items.iter().map(|item| item.index).collect()
}

impl World {
    pub(super) async fn put(&self, item: NewItem) -> u64 {
        match self.store().put(&input(), item).await.unwrap() {
            Put::At(index) => index,
            other => panic!("{other:?}"),
        }
    }

    pub(super) async fn put_many(&self, n: u32) {
        for i in 0..n {
            self.put(item(&i.to_string())).await;
        }
    }

    pub(super) async fn join(&self, join: Join) -> Session {
        self.store().join(&input(), join).await.unwrap()
    }

    pub(super) async fn get(&self, session: Session) -> Vec<u64> {
        indexes(&self.store().deliver(deliver(session)).await.unwrap().unwrap())
    }

    pub(super) async fn commit(&self, group: &str, index: u64) {
        let committed = self.store().commit(&input(), group, vec![index]).await.unwrap();
        assert_eq!(committed, Committed::default());
    }

    pub(super) async fn length(&self) -> u64 {
        self.store().queue(&input()).await.unwrap().unwrap().length
    }
}

pub(super) fn take(at_least: u32, at_most: u32) -> Take {
    Take {
        wanted: Wanted::default(),
        past: 0,
        group: "eas".to_owned(),
        at_least,
        at_most,
        hold: Duration::from_secs(30),
        node: node("a"),
    }
}

tests! {
    async fn indexes_grow_and_are_never_used_again(world: World) {
        assert!(world.store().queue(&input()).await.unwrap().is_none());
        world.put_many(3).await;
        let swept = world.store().truncate(&input(), 4).await.unwrap();
        assert_eq!((swept.rows, swept.more), (3, false));
        let view = world.store().queue(&input()).await.unwrap().unwrap();
        assert_eq!((view.length, view.first, view.last), (0, None, 3));
        assert_eq!(world.put(item("x")).await, 4);
        assert_eq!(world.store().put(&queue(Side::Sink), item("y")).await.unwrap(), Put::At(1), "each side counts alone");
        let other = QueueId { tenant: tenant("other"), ..input() };
        assert_eq!(world.store().put(&other, item("z")).await.unwrap(), Put::At(1), "and each tenant");
        assert_eq!(world.store().queues(None).await.unwrap().len(), 3);
        assert_eq!(world.store().queues(Some(&tenant("other"))).await.unwrap().len(), 1);
    }

    async fn a_name_gives_the_first_index_again_also_when_the_item_is_gone(world: World) {
        let named = || NewItem { named: true, ..item("x") };
        assert_eq!(world.put(named()).await, 1);
        assert_eq!(world.store().put(&input(), named()).await.unwrap(), Put::Existing(1));
        assert_eq!(world.store().delete(&input(), vec![1]).await.unwrap(), 1);
        assert_eq!(world.store().put(&input(), named()).await.unwrap(), Put::Existing(1));
        assert_eq!(world.put(item("x")).await, 2, "a name that nobody chose is none");
        world.clock.advance(Duration::from_secs(25 * 3600));
        world.store().sweep_queue(&input(), Duration::from_secs(3600)).await.unwrap();
        assert_eq!(world.put(named()).await, 3, "after a day it is forgotten");
    }

    async fn a_full_or_ended_queue_takes_nothing(world: World) {
        let bounded = || NewItem { max_length: 2, ..item("x") };
        world.put(bounded()).await;
        world.put(bounded()).await;
        assert_eq!(world.store().put(&input(), bounded()).await.unwrap(), Put::Full { length: 2 });
        world.store().end(&input(), true).await.unwrap();
        assert_eq!(world.store().put(&input(), item("x")).await.unwrap(), Put::Ended);
        let session = world.join(join("eas", "a", 5)).await;
        let last = world.store().deliver(deliver(session)).await.unwrap().unwrap();
        assert_eq!((indexes(&last), last.ended), (vec![1, 2], false), "what is there is still delivered");
        world.commit("eas", 1).await;
        world.commit("eas", 2).await;
        assert!(world.store().deliver(deliver(session)).await.unwrap().unwrap().ended);
        world.store().end(&input(), false).await.unwrap();
        assert_eq!(world.put(item("x")).await, 3);
    }

    async fn a_window_bounds_what_is_not_committed(world: World) {
        world.put_many(5).await;
        let session = world.join(join("eas", "a", 2)).await;
        assert_eq!(world.get(session).await, [1, 2]);
        assert_eq!(world.get(session).await, [0u64; 0]);
        world.commit("eas", 1).await;
        assert_eq!(world.length().await, 4, "gone at once");
        assert_eq!(world.get(session).await, [3]);
        assert_eq!(world.store().delete(&input(), vec![2, 3]).await.unwrap(), 2);
        assert_eq!(world.get(session).await, [4, 5], "deleting frees the window, too");
    }

    async fn high_priority_goes_first_and_in_order_within_it(world: World) {
        for (body, priority) in [("a", 0), ("b", 1), ("c", 0), ("d", 1)] {
            world.put(NewItem { priority, ..item(body) }).await;
        }
        let session = world.join(join("eas", "a", 3)).await;
        assert_eq!(world.get(session).await, [2, 4, 1]);
        let wanted = Wanted { priority: Some(1), ..Wanted::default() };
        assert_eq!(world.store().count(&input(), wanted).await.unwrap(), 2);
    }

    async fn every_group_gets_every_item_and_in_a_group_one_consumer_does(world: World) {
        world.put_many(4).await;
        let a1 = world.join(join("a", "1", 2)).await;
        let a2 = world.join(join("a", "2", 9)).await;
        let b = world.join(join("b", "1", 9)).await;
        assert_eq!(world.get(a1).await, [1, 2]);
        assert_eq!(world.get(a2).await, [3, 4]);
        assert_eq!(world.get(b).await, [1, 2, 3, 4]);
        world.commit("a", 1).await;
        assert_eq!(world.length().await, 4, "b has not committed it");
        assert_eq!(world.store().groups(&input()).await.unwrap(), [("a".to_owned(), 3), ("b".to_owned(), 4)]);
        world.commit("b", 1).await;
        assert_eq!(world.length().await, 3);
        assert_eq!(world.store().delete(&input(), vec![2]).await.unwrap(), 1);
        assert_eq!(world.length().await, 2, "a delete is for all groups");
    }

    async fn commits_of_what_is_gone_are_right_and_of_what_never_was_are_told(world: World) {
        world.put_many(3).await;
        let session = world.join(join("eas", "a", 1)).await;
        assert_eq!(world.get(session).await, [1]);
        let commit = async |list: &[u64]| world.store().commit(&input(), "eas", list.to_vec()).await.unwrap();
        assert_eq!(commit(&[1]).await, Committed::default());
        assert_eq!(commit(&[1]).await, Committed::default(), "a repeated commit");
        assert_eq!(commit(&[2, 9, 0]).await, Committed { never: vec![9, 0], not_delivered: vec![2] });
        assert_eq!(world.length().await, 2);
        let nobody = world.store().commit(&queue(Side::Sink), "eas", vec![1]).await.unwrap();
        assert_eq!(nobody.never, [1]);
    }

    async fn a_newer_connection_takes_over_with_what_it_held(world: World) {
        world.put_many(4).await;
        let old = world.join(join("eas", "a", 2)).await;
        assert_eq!(world.get(old).await, [1, 2]);
        let new = world.join(join("eas", "a", 3)).await;
        assert_eq!(world.store().deliver(deliver(old)).await.unwrap().unwrap_err(), TakenOver);
        assert_eq!(world.get(new).await, [1, 2, 3]);
        world.store().leave(old).await.unwrap();
        assert_eq!(world.get(new).await, [0u64; 0], "the old one's end is not the new one's");
        assert!(world.store().consumers(&input()).await.unwrap()[0].left_at.is_none());
    }

    async fn what_a_consumer_leaves_is_its_own_for_a_while_and_then_the_others(world: World) {
        world.put_many(3).await;
        let first = world.join(join("eas", "a", 2)).await;
        let second = world.join(join("eas", "b", 9)).await;
        assert_eq!(world.get(first).await, [1, 2]);
        assert_eq!(world.get(second).await, [3]);
        world.store().leave(first).await.unwrap();
        let waits = world.store().deliver(deliver(second)).await.unwrap().unwrap();
        assert_eq!(indexes(&waits), [0u64; 0]);
        let due = waits.next_due.expect("something may come back");
        let again = world.join(join("eas", "a", 2)).await;
        assert_eq!(world.get(again).await, [1, 2]);
        world.store().leave(again).await.unwrap();
        world.clock.advance(GRACE);
        assert!(due <= darkroom_core::Clock::now(&*world.clock));
        assert_eq!(world.get(second).await, [1, 2]);
        let seen = world.store().consumers(&input()).await.unwrap();
        assert_eq!(seen.iter().map(|c| (c.pending, c.last_index)).collect::<Vec<_>>(), [(0, 2), (3, 2)]);
    }

    async fn who_wants_only_new_items_gets_no_old_ones(world: World) {
        world.put_many(2).await;
        let before = world.join(join("eas", "a", 1)).await;
        assert_eq!(world.get(before).await, [1]);
        let new = world.join(Join { start: Start::New, ..join("eas", "a", 9) }).await;
        assert_eq!(world.get(new).await, [0u64; 0]);
        assert_eq!(world.put(item("x")).await, 3);
        assert_eq!(world.get(new).await, [3]);
        let other = world.join(join("eas", "b", 9)).await;
        assert_eq!(world.get(other).await, [1, 2], "what it let go is anybody's");
        let middle = world.join(Join { start: Start::At(2), ..join("g", "c", 9) }).await;
        assert_eq!(world.get(middle).await, [2, 3]);
    }

    async fn tags_choose_items_and_a_long_look_is_cut_into_pieces(world: World) {
        for _ in 0..1500 {
            world.put(NewItem { max_length: 9999, ..item("x") }).await;
        }
        let tagged = tags(&[("k", "v"), ("more", "1")]);
        world.put(NewItem { tags: tagged, max_length: 9999, ..item("y") }).await;
        let session = world.join(Join { tags: tags(&[("k", "v")]), ..join("eas", "a", 9) }).await;
        let first = world.store().deliver(deliver(session)).await.unwrap().unwrap();
        assert_eq!((indexes(&first), first.more), (vec![], true));
        let rest = Deliver { scan: first.scan, ..deliver(session) };
        let second = world.store().deliver(rest).await.unwrap().unwrap();
        assert_eq!((indexes(&second), second.more), (vec![1501], false));
        let wanted = Wanted { tags: tags(&[("k", "v")]), ..Wanted::default() };
        assert_eq!(world.store().items(&input(), wanted.clone(), 9).await.unwrap().len(), 1);
        assert_eq!(world.store().count(&input(), wanted).await.unwrap(), 1);
        let wanted = Wanted { request_id: Some("r-y".to_owned()), ..Wanted::default() };
        assert_eq!(world.store().items(&input(), wanted, 9).await.unwrap()[0].index, 1501);
    }

    async fn large_bodies_come_in_several_steps_and_one_always_comes(world: World) {
        world.put_many(3).await;
        let session = world.join(join("eas", "a", 9)).await;
        let tight = || Deliver { max_bytes: 0, ..deliver(session) };
        let first = world.store().deliver(tight()).await.unwrap().unwrap();
        assert_eq!((indexes(&first), first.more), (vec![1], true));
        let rest = Deliver { scan: first.scan, ..deliver(session) };
        let second = world.store().deliver(rest).await.unwrap().unwrap();
        assert_eq!((indexes(&second), second.more), (vec![2, 3], false));
        world.put(item("x")).await;
        let names = Deliver { bodies: false, ..tight() };
        assert_eq!(world.store().deliver(names).await.unwrap().unwrap().items[0].payload, None);
    }

    async fn what_is_taken_nobody_sees_until_it_comes_back(world: World) {
        world.put_many(3).await;
        let taken = world.store().take(&input(), take(1, 2)).await.unwrap();
        assert_eq!(taken.iter().map(|i| i.index).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(world.length().await, 1);
        assert!(world.store().take(&input(), take(2, 9)).await.unwrap().is_empty(), "not as many as wanted");
        let session = world.join(join("eas", "a", 9)).await;
        let seen = world.store().deliver(deliver(session)).await.unwrap().unwrap();
        assert_eq!(indexes(&seen), [3]);
        assert_eq!(world.store().delete(&input(), vec![1]).await.unwrap(), 1);
        assert_eq!(world.length().await, 1);
        world.store().give_back(&input(), vec![1, 2, 3]).await.unwrap();
        assert_eq!(world.length().await, 2);
        let rest = Deliver { scan: seen.scan, ..deliver(session) };
        assert_eq!(indexes(&world.store().deliver(rest).await.unwrap().unwrap()), [2], "also by who had looked before");
        assert!(world.store().take(&input(), take(1, 9)).await.unwrap().is_empty(), "the consumer holds both");
        let exact = Take { wanted: Wanted { from: 2, ..Wanted::default() }, ..take(1, 1) };
        assert_eq!(world.store().take(&input(), exact).await.unwrap().len(), 1, "unless asked for by name");
        world.clock.advance(Duration::from_secs(30));
        assert_eq!(world.store().take(&input(), take(9, 9)).await.unwrap().len(), 0);
        assert_eq!(world.length().await, 2, "a hold ends");
    }

    async fn a_reader_that_looks_learns_where_to_look_next(world: World) {
        let mine = || Wanted { tags: tags(&[("k", "v")]), ..Wanted::default() };
        let there = async |past, enough, first| {
            let look = Take { wanted: mine(), past, ..take(1, 1) };
            let expected = There { enough, first, free_from: if enough { first } else { 0 } };
            assert_eq!(world.store().there(&input(), look).await.unwrap(), expected);
        };
        there(0, false, 0).await;
        world.put_many(3).await;
        there(0, false, 4).await;
        world.put(NewItem { tags: tags(&[("k", "v")]), ..item("mine") }).await;
        there(4, true, 4).await;
        let wanted = Take { wanted: mine(), past: 4, ..take(1, 1) };
        assert_eq!(world.store().take(&input(), wanted).await.unwrap().len(), 1);
        there(4, false, 4).await;
        world.clock.advance(Duration::from_secs(30));
        there(4, true, 4).await;
        world.store().delete(&input(), vec![4]).await.unwrap();
        there(4, false, 5).await;
    }

    async fn a_session_looks_past_what_others_took_and_gets_it_when_it_is_given_back(world: World) {
        let long = |body: &str| NewItem { max_length: 2_000, ..item(body) };
        let wanted = || NewItem { tags: tags(&[("k", "v")]), ..long("wanted") };
        let first = world.put(wanted()).await;
        assert_eq!(world.store().take(&input(), take(1, 1)).await.unwrap().len(), 1);
        // More than are looked at in one go.
        for n in 0..1_100 {
            world.put(long(&n.to_string())).await;
        }
        let last = world.put(wanted()).await;
        let session = world.join(Join { tags: tags(&[("k", "v")]), ..join("g", "c", 9) }).await;
        let mut scan = Scan::default();
        let mut got = Vec::new();
        for _ in 0..3 {
            let ask = Deliver { scan, ..deliver(session) };
            let delivered = world.store().deliver(ask).await.unwrap().unwrap();
            got.extend(indexes(&delivered));
            scan = delivered.scan;
        }
        assert_eq!(got, [last], "behind a taken one and a thousand others");
        world.clock.advance(Duration::from_secs(30));
        let again = world.store().deliver(Deliver { scan, ..deliver(session) }).await.unwrap().unwrap();
        assert_eq!(indexes(&again), [first], "the hold has ended");
    }

    async fn the_newest_are_found_from_the_end(world: World) {
        world.put_many(3).await;
        let wanted = Wanted { newest: true, ..Wanted::default() };
        let found = world.store().items(&input(), wanted, 2).await.unwrap();
        assert_eq!(found.iter().map(|i| i.index).collect::<Vec<_>>(), [2, 3]);
    }

    async fn an_item_says_where_it_stands(world: World) {
        world.put_many(3).await;
        world.put(NewItem { priority: 1, ..item("x") }).await;
        let place = async |index| world.store().place(&input(), index).await.unwrap();
        assert_eq!(place(3).await, Some(Place::Waits(3)));
        assert_eq!(place(4).await, Some(Place::Waits(0)));
        assert_eq!(place(5).await, None);
        let session = world.join(join("eas", "a", 2)).await;
        assert_eq!(world.get(session).await, [4, 1]);
        assert_eq!(place(1).await, Some(Place::Held { consumer: "a".to_owned() }));
        assert_eq!(place(3).await, Some(Place::Waits(1)), "what is being done does not stand before it");
    }

    async fn a_put_and_a_commit_wake_who_waits(world: World) {
        use crate::wake::Topic;
        for change in 0..3 {
            let mut woken = world.store().subscribe(Topic::Items(input()));
            match change {
                0 => drop(world.put(item("x")).await),
                1 => drop(world.join(join("eas", "a", 1)).await),
                _ => drop(world.store().commit(&input(), "eas", vec![1]).await.unwrap()),
            }
            tokio::time::timeout(Duration::from_secs(5), woken.woken()).await.expect("a wake-up follows");
        }
    }
}
