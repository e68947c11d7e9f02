//! Queues on a real store with their keeper, without HTTP.

use std::time::Duration;

use bytes::Bytes;
use darkroom_blobs::Blobs;
use darkroom_core::{AttemptOutcome, BlobKey, InstanceId, Payload, attempt::Lease};
use darkroom_store::jobs::{Claim, Finish};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::service::testing::Bench;

/// For what comes at once on an idle machine.
const SOON: Duration = Duration::from_secs(60);

struct Kept {
    bench: Bench,
    stop: CancellationToken,
    keeper: tokio::task::JoinHandle<()>,
}

impl Kept {
    fn new() -> Kept {
        let bench =
            Bench::configured("[endpoints.q]\nkind = \"queue\"\nqueue = { max_payload = \"100KB\" }\n");
        let stop = CancellationToken::new();
        let keeper = tokio::spawn({
            let (service, stop) = (bench.service.clone(), stop.clone());
            async move { service.keep_queues(stop).await }
        });
        Kept { bench, stop, keeper }
    }

    fn queue(&self) -> OpenQueue {
        let endpoint = self.bench.service.service_named("group.q").unwrap();
        OpenQueue::new(&"t".parse().unwrap(), endpoint, Side::Input)
    }

    async fn put(&self, size: usize) -> Result<u64, Error> {
        let put = PutItem {
            tags: Tags::new(),
            priority: 0,
            body: Bytes::from(vec![7; size]),
        };
        Ok(self.bench.service.put_item(&self.queue(), put).await?.index)
    }

    async fn get(&self, patience: Duration) -> Got {
        let get = Get {
            wanted: Wanted::default(),
            length: 1,
            patience,
            group: "eas".to_owned(),
            delete: true,
        };
        self.bench.service.get_items(&self.queue(), get).await.unwrap()
    }

    async fn watch(&self, consumer: &str) -> Watch {
        let options = WatchOptions {
            group: "eas".to_owned(),
            consumer: consumer.to_owned(),
            start: Start::At(0),
            window: 5,
            index_only: false,
            auto_commit: true,
            tags: Tags::new(),
        };
        self.bench.service.watch(&self.queue(), options).await.unwrap()
    }

    async fn view(&self) -> QueueView {
        self.bench.service.queue_view(&self.queue().id).await.unwrap()
    }

    /// The keeper finishes what it was told.
    async fn end(self) -> Bench {
        self.stop.cancel();
        tokio::time::timeout(SOON, self.keeper).await.unwrap().unwrap();
        self.bench
    }
}

fn indexes(step: Step) -> Vec<u64> {
    match step {
        Step::Items(read) => read.items.into_iter().map(|item| item.index).collect(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_a_reader_was_not_sent_comes_back_and_what_it_was_goes() {
    let kept = Kept::new();
    let large = 50_000;
    assert_eq!(kept.put(large).await.unwrap(), 1);
    let unsent = kept.get(Duration::ZERO).await;
    assert_eq!(
        (unsent.read.items[0].data.len(), kept.view().await.length),
        (large, 0)
    );
    assert!(
        kept.get(Duration::ZERO).await.read.items.is_empty(),
        "nobody else sees it"
    );
    drop(unsent);
    let again = kept.get(SOON).await;
    assert_eq!(again.read.items[0].index, 1);
    again.taken.unwrap().written();
    let queue = kept.queue();
    let bench = kept.end().await;
    let trash = bench.service.store.trash_due(Duration::ZERO, 9).await.unwrap();
    assert_eq!(trash.len(), 1, "its bytes go with it");
    assert!(
        bench
            .service
            .store
            .items(&queue.id, Wanted::default(), 9)
            .await
            .unwrap()
            .is_empty()
    );
}

#[tokio::test]
async fn a_refused_item_leaves_no_bytes() {
    let kept = Kept::new();
    assert!(matches!(kept.put(100_001).await, Err(Error::TooLarge { .. })));
    kept.bench
        .service
        .end_queue(&kept.queue().id, true)
        .await
        .unwrap();
    assert!(matches!(kept.put(50_000).await, Err(Error::Invalid(_))));
    let blobs = kept.bench.path().join("blobs/queues");
    let files = std::fs::read_dir(blobs).map_or(0, |tenants| {
        tenants
            .flat_map(|tenant| std::fs::read_dir(tenant.unwrap().path()).unwrap())
            .flat_map(|endpoint| std::fs::read_dir(endpoint.unwrap().path()).unwrap())
            .count()
    });
    assert_eq!(files, 0);
}

#[tokio::test]
async fn a_watch_gets_what_comes_commits_what_was_sent_and_leaves_when_dropped() {
    let kept = Kept::new();
    let mut watch = kept.watch("a").await;
    let (step, _) = tokio::join!(watch.next(), kept.put(1));
    assert_eq!(indexes(step.unwrap()), [1]);
    assert_eq!(kept.view().await.length, 1, "not before it was sent");
    watch.sent(vec![1]);
    watch.settle().await.unwrap();
    assert_eq!(kept.view().await.length, 0);
    let mut newer = kept.watch("a").await;
    assert!(matches!(watch.next().await.unwrap(), Step::TakenOver));
    kept.put(1).await.unwrap();
    assert_eq!(indexes(newer.next().await.unwrap()), [2]);
    drop((watch, newer));
    let queue = kept.queue();
    let bench = kept.end().await;
    let consumers = bench.service.queue_consumers(&queue.id).await.unwrap();
    assert!(consumers[0].left_at.is_some());
    assert_eq!(
        bench.service.queue_view(&queue.id).await.unwrap().length,
        1,
        "it was never sent"
    );
}

#[tokio::test]
async fn what_was_sent_is_committed_soon_though_nothing_comes_and_when_its_connection_ends() {
    let kept = Kept::new();
    let mut watch = kept.watch("a").await;
    kept.put(1).await.unwrap();
    assert_eq!(indexes(watch.next().await.unwrap()), [1]);
    watch.sent(vec![1]);
    let committed = async {
        while kept.view().await.length > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        step = watch.next() => panic!("nothing came: {step:?}"),
        in_time = tokio::time::timeout(SOON, committed) => in_time.unwrap(),
    }
    kept.put(1).await.unwrap();
    assert_eq!(indexes(watch.next().await.unwrap()), [2]);
    watch.sent(vec![2]);
    drop(watch);
    let queue = kept.queue();
    let bench = kept.end().await;
    assert_eq!(bench.service.queue_view(&queue.id).await.unwrap().length, 0);
}

#[tokio::test]
async fn what_is_sent_is_held_against_the_memory_for_answers() {
    let bench = Bench::configured("[endpoints.q]\nkind = \"queue\"\n");
    let service = &bench.service;
    let endpoint = service.service_named("q").unwrap();
    let queue = OpenQueue::new(&"t".parse().unwrap(), endpoint, Side::Input);
    let put = PutItem {
        tags: Tags::new(),
        priority: 0,
        body: Bytes::from(vec![7; 1 << 20]),
    };
    service.put_item(&queue, put).await.unwrap();
    let all = service.memory.left_for_answers();
    let get = Get {
        wanted: Wanted::default(),
        length: 1,
        patience: Duration::ZERO,
        group: "eas".to_owned(),
        delete: false,
    };
    let got = service.get_items(&queue, get).await.unwrap();
    assert!(all - service.memory.left_for_answers() >= 1 << 20);
    drop(got);
    assert_eq!(service.memory.left_for_answers(), all);
}

#[tokio::test]
async fn what_could_not_be_read_was_not_delivered() {
    let kept = Kept::new();
    kept.put(50_000).await.unwrap();
    let queue = kept.queue();
    let stored = kept.bench.service.store.items(&queue.id, Wanted::default(), 1);
    let stored = stored.await.unwrap().remove(0).payload.unwrap();
    let key = stored.blob().unwrap().clone();
    let bytes = kept.bench.service.read_payload(&stored).await.unwrap().unwrap();
    // Somebody else's hand: the blob is longer than its row says.
    let longer = Bytes::from(vec![8; 60_000]);
    kept.bench.blobs.put_bytes(&key, longer).await.unwrap();
    for _ in 0..5 {
        let mut watch = kept.watch("a").await;
        assert!(watch.next().await.is_err());
    }
    kept.bench.blobs.put_bytes(&key, bytes).await.unwrap();
    let mut watch = kept.watch("a").await;
    assert_eq!(indexes(watch.next().await.unwrap()), [1], "not in the rear");
}

#[tokio::test]
async fn a_reader_that_waits_takes_what_comes_back_and_what_comes() {
    let kept = Kept::new();
    let tagged = |value: &str| PutItem {
        tags: [("k".to_owned(), value.to_owned())].into(),
        priority: 0,
        body: Bytes::from_static(b"x"),
    };
    let service = kept.bench.service.clone();
    let queue = kept.queue();
    for value in ["other", "mine", "other"] {
        service.put_item(&queue, tagged(value)).await.unwrap();
    }
    let get = || {
        let get = Get {
            wanted: Wanted {
                tags: [("k".to_owned(), "mine".to_owned())].into(),
                ..Wanted::default()
            },
            length: 1,
            patience: SOON,
            group: "eas".to_owned(),
            delete: true,
        };
        service.get_items(&queue, get)
    };
    let first = get().await.unwrap();
    assert_eq!(first.read.items[0].index, 2);
    let mut second = Box::pin(get());
    let mut third = Box::pin(get());
    assert!(futures::poll!(&mut second).is_pending() && futures::poll!(&mut third).is_pending());
    let given_back = async {
        // Others' items do not serve.
        service.put_item(&queue, tagged("other")).await.unwrap();
        drop(first);
        service.put_item(&queue, tagged("mine")).await.unwrap();
    };
    let (second, third, ()) = tokio::join!(second, third, given_back);
    let mut got = [second, third].map(|got| got.unwrap().read.items[0].index);
    got.sort_unstable();
    assert_eq!(got, [2, 5]);
}

#[tokio::test]
async fn a_keeper_that_ends_finishes_the_chores_it_began() {
    // Which the keeper sees first, the chore or the end, is chance: each round tries again.
    for _ in 0..8 {
        let kept = Kept::new();
        drop((kept.watch("a").await, kept.watch("b").await));
        let queue = kept.queue();
        let bench = kept.end().await;
        let consumers = bench.service.queue_consumers(&queue.id).await.unwrap();
        assert_eq!(consumers.len(), 2);
        assert!(consumers.iter().all(|consumer| consumer.left_at.is_some()));
    }
}

#[tokio::test]
async fn the_input_of_instances_is_not_for_consumers() {
    let bench = Bench::new();
    let endpoint = bench.service.service_named("default").unwrap();
    let queue = OpenQueue::new(&"t".parse().unwrap(), endpoint, Side::Input);
    let put = PutItem {
        tags: Tags::new(),
        priority: 0,
        body: Bytes::new(),
    };
    let refused = bench.service.put_item(&queue, put.clone()).await;
    assert!(matches!(refused, Err(Error::Invalid(text)) if text.contains("api_prompt")));
    let refused = bench.service.commit_items(&queue, "eas", vec![1]).await;
    assert!(matches!(refused, Err(Error::Invalid(_))));
    let sink = OpenQueue::new(&"t".parse().unwrap(), queue.endpoint, Side::Sink);
    assert_eq!(bench.service.put_item(&sink, put).await.unwrap().index, 1);
    assert!(matches!(
        bench.service.service_named("a.b.c"),
        Err(Error::NotFound { .. })
    ));
}

#[tokio::test]
async fn a_result_that_can_never_be_put_is_told_after_some_tries() {
    let bench = Bench::configured("[endpoints.w]\nkind = \"worker\"\ncommand = [\"serve\", \"{port}\"]\n");
    let (service, store) = (&bench.service, &bench.service.store);
    let endpoint = service.service_named("w").unwrap();
    let queue = OpenQueue::new(&"t".parse().unwrap(), endpoint, Side::Input);
    let item = RequestItem {
        tags: [("task_id".to_owned(), "7".to_owned())].into(),
        priority: 0,
        path: "/infer".to_owned(),
        query: String::new(),
        headers: vec![],
        body: Bytes::new(),
        base_url: String::new(),
        request_id: "r".to_owned(),
    };
    service.put_request(&queue, item).await.unwrap();
    let claim = Claim {
        endpoint: queue.id.endpoint.clone(),
        instance: InstanceId::new(&*service.ids),
        owner: service.node.clone(),
        loaded_models: vec![],
        offers: None,
        lease: SOON,
        except: vec![],
        max_running_per_tenant: 0,
    };
    let claimed = store.claim(claim).await.unwrap().unwrap();
    // Somebody else's hand: the blob is not what its row says.
    let key: BlobKey = "jobs/x/answer".parse().unwrap();
    bench
        .blobs
        .put_bytes(&key, Bytes::from_static(b"{\"status\":200}\nlonger"))
        .await
        .unwrap();
    let lease = Lease {
        job: claimed.job.id,
        fence: claimed.fence,
    };
    let finish = Finish {
        result: Some(Payload::Blob { key, size: 1 }),
        ..Finish::empty(AttemptOutcome::Done)
    };
    store.finish(lease, finish).await.unwrap().unwrap();
    let sink = QueueId {
        side: Side::Sink,
        ..queue.id
    };
    let mut tries = 0;
    let told = loop {
        let due = store.outbox_due(results::OUTBOX_KIND, 9).await.unwrap();
        if due.is_empty() {
            break store.items(&sink, Wanted::default(), 9).await.unwrap();
        }
        assert!(store.items(&sink, Wanted::default(), 9).await.unwrap().is_empty());
        for row in due {
            service.send_result(row).await;
        }
        tries += 1;
        bench.clock.advance(Duration::from_secs(3600));
    };
    assert_eq!((tries, told.len()), (5, 1));
    let tags = &told[0].tags;
    assert_eq!(
        (tags["lastCode"].as_str(), tags["task_id"].as_str()),
        ("500", "7")
    );
    let metrics = service.metrics.render();
    assert!(
        metrics.contains("darkroom_queue_results_not_put_total 5"),
        "{metrics}"
    );
}
