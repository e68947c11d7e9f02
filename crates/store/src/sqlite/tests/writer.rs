//! What only SQLite promises: one writer with bounded lanes, savepoints, a disk reserve, a short log, reopening.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use darkroom_core::{JobState, Payload};
use tokio::sync::Notify;

use super::super::{
    Durability, Options, SqliteStore,
    queue::{Lane, Wait},
    sql,
    tx::Tx,
};
use crate::{
    Catalog, Error, Jobs,
    conformance::{TestClock, World, done},
    jobs::Submitted,
    wake::{Topic, Wakeups},
};

/// Stops a thread of the store until it is opened.
#[derive(Default)]
pub(super) struct Gate {
    shut: Mutex<bool>,
    opened: Condvar,
    reached: Notify,
}

impl Gate {
    pub(super) fn shut(&self) {
        *self.shut.lock().unwrap() = true;
    }

    pub(super) fn open(&self) {
        *self.shut.lock().unwrap() = false;
        self.opened.notify_all();
    }

    pub(super) fn pass(&self) {
        let mut shut = self.shut.lock().unwrap();
        if *shut {
            self.reached.notify_one();
        }
        while *shut {
            shut = self.opened.wait(shut).unwrap();
        }
    }
}

fn gated(options: &mut Options) -> Arc<Gate> {
    let gate = Arc::new(Gate::default());
    let at_gate = gate.clone();
    options.failpoint = Some(Arc::new(move |name| {
        if name == "before_commit" {
            at_gate.pass();
        }
    }));
    gate
}

fn open(change: impl FnOnce(&mut Options)) -> (Arc<SqliteStore>, World, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let clock = TestClock::new();
    let mut options = Options::new(clock.clone());
    change(&mut options);
    let store = Arc::new(SqliteStore::open(&path, options).unwrap());
    let world = World::new(vec![store.clone()], clock, Box::new(dir));
    (store, world, path)
}

type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Polls a future so far that it stands in the line.
async fn begun<'a, T>(future: impl Future<Output = T> + 'a) -> Pending<'a, T> {
    let mut future: Pending<'a, T> = Box::pin(future);
    std::future::poll_fn(|cx| {
        assert!(future.as_mut().poll(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    future
}

#[tokio::test]
async fn a_flood_of_submits_is_refused_while_everything_else_waits() {
    let mut gate = None;
    let (store, world, _) = open(|options| {
        options.max_waiting_submits = 2;
        gate = Some(gated(options));
    });
    let gate = gate.unwrap();
    gate.shut();
    let under_way = begun(store.submit(world.new_job())).await;
    gate.reached.notified().await;
    let waiting = [
        begun(store.submit(world.new_job())).await,
        begun(store.submit(world.new_job())).await,
    ];
    assert!(matches!(store.submit(world.new_job()).await, Err(Error::Busy)));
    let other = begun(store.put_setting("a", "1")).await;
    gate.open();
    assert!(matches!(under_way.await.unwrap(), Submitted::Accepted { .. }));
    for submit in waiting {
        assert!(matches!(submit.await.unwrap(), Submitted::Accepted { .. }));
    }
    other.await.unwrap();
}

#[tokio::test]
async fn a_full_line_of_submits_lets_a_sweep_into_every_batch() {
    let commits = Arc::new(AtomicU64::new(0));
    let mut gate = None;
    let counted = commits.clone();
    let (store, world, _) = open(|options| {
        options.max_waiting_submits = 1000;
        let shut = gated(options);
        gate = Some(shut.clone());
        options.failpoint = Some(Arc::new(move |name| {
            if name == "before_commit" {
                counted.fetch_add(1, Ordering::SeqCst);
                shut.pass();
            }
        }));
    });
    let gate = gate.unwrap();
    gate.shut();
    let under_way = begun(store.submit(world.new_job())).await;
    gate.reached.notified().await;
    let mut waiting = Vec::new();
    // More than two batches' worth, and all of it came before the sweeps.
    for _ in 0..600 {
        waiting.push(begun(store.submit(world.new_job())).await);
    }
    let mut sweeps = Vec::new();
    for _ in 0..2 {
        let commits = commits.clone();
        let seen = move |_: &Tx<'_>| Ok(commits.load(Ordering::SeqCst));
        sweeps.push(begun(store.write(Lane::Sweep, Wait::ForDisk, 0, seen)).await);
    }
    gate.open();
    under_way.await.unwrap();
    let mut ran = Vec::new();
    for sweep in sweeps {
        ran.push(sweep.await.unwrap());
    }
    assert_eq!(ran, [1, 2], "in the next batch and in the one after it");
    for submit in waiting {
        submit.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expiry_gets_its_turn_while_submits_keep_coming() {
    let (store, world, _) = open(|options| options.durability = Durability::Never);
    world.accept_one().await;
    world.claim_lease().await;
    world.clock.advance(Duration::from_secs(3600));
    let world = Arc::new(world);
    let flood: Vec<_> = (0..300)
        .map(|_| {
            let (store, world) = (store.clone(), world.clone());
            tokio::spawn(async move {
                loop {
                    let mut job = world.new_job();
                    job.max_queued = u64::MAX;
                    store.submit(job).await.unwrap();
                }
            })
        })
        .collect();
    let expired = tokio::time::timeout(Duration::from_secs(30), store.expire()).await;
    for submitter in flood {
        submitter.abort();
    }
    assert_eq!(expired.expect("it returns").unwrap().rows, 1);
}

#[tokio::test]
async fn an_operation_that_fails_undoes_only_itself() {
    let mut gate = None;
    let (store, world, _) = open(|options| gate = Some(gated(options)));
    let gate = gate.unwrap();
    let woken = store.subscribe(Topic::Outbox);
    gate.shut();
    let under_way = begun(store.put_setting("x", "1")).await;
    gate.reached.notified().await;
    // All three are in the next batch.
    let before = begun(store.put_setting("a", "1")).await;
    let failing = begun(store.durably(0, |tx| -> Result<(), Error> {
        sql::execute(tx.conn, "UPDATE settings SET value = 'wrong'", [])?;
        tx.wake(Topic::Outbox);
        Err(Error::Busy)
    }))
    .await;
    let after = begun(store.submit(world.new_job())).await;
    gate.open();
    under_way.await.unwrap();
    before.await.unwrap();
    assert!(failing.await.is_err());
    assert!(matches!(after.await.unwrap(), Submitted::Accepted { .. }));
    assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("1"));
    assert!(!woken.0.has_changed().unwrap(), "what was undone wakes nobody");
}

#[tokio::test]
async fn what_is_refused_before_it_wrote_anything_makes_nothing_run_again() {
    let mut gate = None;
    let (store, _world, _) = open(|options| gate = Some(gated(options)));
    let gate = gate.unwrap();
    gate.shut();
    let under_way = begun(store.put_setting("x", "1")).await;
    gate.reached.notified().await;
    // Both are in the next batch.
    let runs = Arc::new(AtomicU64::new(0));
    let counted = runs.clone();
    let works = begun(store.durably(0, move |tx| {
        counted.fetch_add(1, Ordering::SeqCst);
        sql::execute(
            tx.conn,
            "INSERT INTO settings (name, value) VALUES ('a', '1')",
            [],
        )
    }))
    .await;
    let refused = begun(store.durably(0, |tx| -> Result<(), Error> {
        tx.wake(Topic::Outbox);
        Err(Error::Busy)
    }))
    .await;
    let woken = store.subscribe(Topic::Outbox);
    gate.open();
    under_way.await.unwrap();
    works.await.unwrap();
    assert!(matches!(refused.await, Err(Error::Busy)));
    assert_eq!(runs.load(Ordering::SeqCst), 1);
    assert_eq!(store.setting("a").await.unwrap().as_deref(), Some("1"));
    assert!(!woken.0.has_changed().unwrap());
}

#[tokio::test]
async fn a_full_disk_is_told_and_outlived() {
    let (store, world, _) = open(|_| {});
    let held = {
        world.accept_one().await;
        world.claim_lease().await
    };
    let limit = |pages: i64| {
        store.durably(0, move |tx| {
            tx.conn.pragma_update(None, "max_page_count", pages)?;
            Ok(())
        })
    };
    limit(1).await.unwrap();
    let mut big = world.new_job();
    big.input = Payload::Inline(vec![0; 300_000]);
    let id = big.id;
    assert!(matches!(store.submit(big).await, Err(Error::DiskFull { .. })));
    limit(1_000_000).await.unwrap();
    assert!(store.job(None, id).await.unwrap().is_none());
    assert_eq!(world.finish(held, done()).await, JobState::Succeeded);
    world.accept_one().await;
}

#[tokio::test]
async fn below_the_reserve_submits_are_refused_and_results_are_taken() {
    let free = Arc::new(AtomicU64::new(u64::MAX));
    let seen = free.clone();
    let (store, world, _) = open(|options| {
        options.free_space = Arc::new(move |_| Ok(seen.load(Ordering::SeqCst)));
        options.disk_reserve_bytes = 1000;
    });
    let first = world.new_job();
    world.accept(first.clone()).await;
    let held = world.claim_lease().await;
    free.store(999, Ordering::SeqCst);
    let refused = world.new_job();
    let outcome = store.submit(refused.clone()).await;
    assert!(matches!(outcome, Err(Error::DiskFull { available_bytes: 999 })));
    assert!(store.job(None, refused.id).await.unwrap().is_none());
    assert_eq!(world.finish(held, done()).await, JobState::Succeeded);
    free.store(1000, Ordering::SeqCst);
    world.accept(refused).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_does_not_undo_its_operation() {
    let mut gate = None;
    let (store, world, _) = open(|options| gate = Some(gated(options)));
    let gate = gate.unwrap();
    gate.shut();
    let job = world.new_job();
    let id = job.id;
    let submit = begun(store.submit(job)).await;
    gate.reached.notified().await;
    drop(submit);
    gate.open();
    world.accept_one().await;
    assert!(store.job(None, id).await.unwrap().is_some());
}

#[tokio::test]
async fn closing_finishes_what_waits_and_takes_no_more() {
    let mut gate = None;
    let (store, world, path) = open(|options| gate = Some(gated(options)));
    let gate = gate.unwrap();
    gate.shut();
    let first = begun(store.put_setting("a", "1")).await;
    gate.reached.notified().await;
    let second = begun(store.put_setting("b", "2")).await;
    let closing = begun(store.close()).await;
    assert!(matches!(store.submit(world.new_job()).await, Err(Error::Closed)));
    gate.open();
    closing.await;
    first.await.unwrap();
    second.await.unwrap();
    assert!(matches!(store.setting("a").await, Err(Error::Closed)));
    let again = SqliteStore::open(&path, Options::new(TestClock::new())).unwrap();
    assert_eq!(again.setting("b").await.unwrap().as_deref(), Some("2"));
}

#[tokio::test]
async fn fences_and_places_go_on_after_reopening() {
    let (store, world, path) = open(|_| {});
    let first = world.accept_one().await;
    let held = world.claim_lease().await;
    let second = world.accept_one().await;
    store.close().await;
    let again = SqliteStore::open(&path, Options::new(world.clock.clone())).unwrap();
    let third = world.new_job();
    let third_id = third.id;
    again.submit(third).await.unwrap();
    for expected in [second, third_id] {
        let claimed = again.claim(world.claim_for(1)).await.unwrap().unwrap();
        assert_eq!(claimed.job.id, expected);
        assert!(claimed.fence > held.fence);
    }
    assert_eq!(
        again.finish(held, done()).await.unwrap().unwrap(),
        JobState::Succeeded
    );
    assert_eq!(
        again.job(None, first).await.unwrap().unwrap().state,
        JobState::Succeeded
    );
}

#[tokio::test]
async fn the_database_of_a_newer_program_is_refused() {
    let (store, _world, path) = open(|_| {});
    store.close().await;
    let conn = rusqlite::Connection::open(&path).unwrap();
    conn.pragma_update(None, "user_version", 99).unwrap();
    drop(conn);
    let refused = SqliteStore::open(&path, Options::new(TestClock::new()));
    assert!(matches!(refused, Err(Error::NewerSchema { found: 99, .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_short_under_load() {
    let (store, world, path) = open(|options| options.durability = Durability::Never);
    let log = path.with_file_name("db-wal");
    let mut longest = 0;
    for _ in 0..120 {
        let big: Vec<_> = (0..32)
            .map(|_| {
                let mut job = world.new_job();
                job.max_queued = u64::MAX;
                job.input = Payload::Inline(vec![b'x'; 32 * 1024]);
                let store = store.clone();
                tokio::spawn(async move { store.submit(job).await.unwrap() })
            })
            .collect();
        for submit in big {
            assert!(matches!(submit.await.unwrap(), Submitted::Accepted { .. }));
        }
        longest = longest.max(std::fs::metadata(&log).map_or(0, |m| m.len()));
    }
    // More than 120 MB were written, in batches of at most 4 MB (and their indexes). Nobody reads, so the log begins anew
    // when the writer has finished the copy, however slow the machine is.
    assert!(longest < 32 << 20, "{longest}");
    assert!(longest > 0);
}

#[tokio::test]
async fn long_reads_are_cut_off() {
    let (store, _world, _) = open(|_| {});
    let endless = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT MAX(x) FROM n";
    let read = store
        .readers
        .run(move |conn| sql::value::<i64>(conn, endless, []));
    let result = tokio::time::timeout(Duration::from_secs(20), read).await;
    assert!(result.expect("it is interrupted after a second").is_err());
    // More than there are readers, each given up by its caller: none may stay busy.
    for _ in 0..10 {
        let read = store
            .readers
            .run(move |conn| sql::value::<i64>(conn, endless, []));
        drop(tokio::time::timeout(Duration::from_millis(1), read).await);
    }
    // Also those that begin only after their caller left.
    for _ in 0..10 {
        let (leave, left) = std::sync::mpsc::channel::<()>();
        let read = store.readers.run(move |conn| {
            let _ = left.recv();
            sql::value::<i64>(conn, endless, [])
        });
        drop(tokio::time::timeout(Duration::from_millis(1), read).await);
        drop(leave);
    }
    assert_eq!(
        store.setting("a").await.unwrap(),
        None,
        "the connection is good for the next"
    );
}
