//! Figures of queues with many items: `cargo run --release -p darkroom-store --example bench_queues -- DIR [ITEMS]`.
//!
//! Puts items from 256 tasks at once (group commit), then reads and delivers with all of them in the queue. Everything goes
//! through the trait, as the server does it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use darkroom_ambient::SystemClock;
use darkroom_core::{Clock, Payload};
use darkroom_store::{
    Queues,
    queues::{Deliver, Join, NewItem, Policy, QueueId, Scan, Side, Start, Tags, Wanted},
    sqlite::{Options, SqliteStore},
};

const PUTTERS: u64 = 256;
const READS: u32 = 1_000;

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().expect("a directory for the database"));
    let items: u64 = args
        .next()
        .map_or(100_000, |n| n.parse().expect("how many items"));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let store = SqliteStore::open(&dir.join("bench.db"), Options::new(clock.clone())).expect("a store");
    let store = Arc::new(store);
    let queue = QueueId {
        tenant: "default".parse().expect("a name"),
        endpoint: "bench".parse().expect("a name"),
        side: Side::Input,
    };

    let begun = clock.monotonic();
    let putters: Vec<_> = (0..PUTTERS)
        .map(|_| {
            let (store, queue) = (store.clone(), queue.clone());
            tokio::spawn(async move {
                for _ in 0..items.div_ceil(PUTTERS) {
                    store.put(&queue, item()).await.expect("a put");
                }
            })
        })
        .collect();
    for putter in putters {
        putter.await.expect("a putter");
    }
    let all = items.div_ceil(PUTTERS) * PUTTERS;
    report("put", all, clock.monotonic() - begun);

    let begun = clock.monotonic();
    for n in 0..READS {
        let from = 1 + u64::from(n) * (all / u64::from(READS));
        let wanted = Wanted {
            from,
            ..Wanted::default()
        };
        assert_eq!(
            store.items(&queue, wanted, 1).await.expect("a read")[0].index,
            from
        );
    }
    report("get by index", READS.into(), clock.monotonic() - begun);

    let begun = clock.monotonic();
    for _ in 0..READS {
        store.queue(&queue).await.expect("a read").expect("a queue");
    }
    report("attributes", READS.into(), clock.monotonic() - begun);

    let join = Join {
        group: "eas".to_owned(),
        consumer: "bench".to_owned(),
        start: Start::At(0),
        window: 1,
        auto_commit: true,
        tags: Tags::new(),
        node: "bench".parse().expect("a name"),
    };
    let session = store.join(&queue, join).await.expect("a session");
    let begun = clock.monotonic();
    let mut delivered = 0;
    let mut scan = Scan::default();
    let mut sent = Vec::new();
    while delivered < all {
        let deliver = Deliver {
            session,
            sent,
            at_most: 256,
            max_bytes: 4_000_000,
            bodies: true,
            scan,
            policy: Policy {
                max_idle: Some(Duration::from_secs(3600)),
                leave_grace: Duration::from_secs(5),
                max_delivery: 5,
                to_rear: true,
            },
        };
        let got = store
            .deliver(deliver)
            .await
            .expect("a delivery")
            .expect("the newest");
        scan = got.scan;
        delivered += got.items.len() as u64;
        sent = got.items.iter().map(|item| item.index).collect();
    }
    store.commit_sent(session, sent).await.expect("a commit");
    report("deliver and commit", delivered, clock.monotonic() - begun);
    store.close().await;
}

fn item() -> NewItem {
    NewItem {
        payload: Payload::Inline(vec![b'x'; 200]),
        tags: [("requestId".to_owned(), "0".repeat(36))].into(),
        priority: 0,
        request_id: "0".repeat(36),
        named: false,
        max_length: u64::MAX,
    }
}

fn report(what: &str, count: u64, took: Duration) {
    let each = took.as_secs_f64() / count as f64;
    println!(
        "{what}: {count} in {took:.2?}, {:.1} us each, {:.0}/s",
        each * 1e6,
        1.0 / each
    );
}
