//! Power cuts under load: what was acknowledged is there afterwards, and without syncing it would not be.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use darkroom_core::{JobId, JobState, event::EventKind};
use darkroom_store_powerloss::{Disk, Survivors};
use tokio::sync::Notify;

use super::super::{Durability, FakeDisk, Options, SqliteStore};
use crate::{
    Jobs,
    conformance::{TestClock, TestIds, World, claim_for, done, event, file, job, lease},
    jobs::Finish,
};

fn options(disk: &'static Disk, durability: Durability) -> (Options, Arc<AtomicBool>) {
    let broken = Arc::new(AtomicBool::new(false));
    let seen = broken.clone();
    let mut options = Options::new(TestClock::new());
    options.disk = Some(FakeDisk {
        vfs: disk.vfs().to_owned(),
        sync: Arc::new(move |file| disk.sync(file)),
    });
    options.durability = durability;
    options.fatal = Arc::new(move |_| seen.store(true, Ordering::SeqCst));
    (options, broken)
}

/// When the power goes.
#[derive(Clone, Copy)]
enum When {
    /// After so many accepted jobs, while more are submitted.
    Accepted(usize),
    /// After so many results, while nothing else goes on: no submit's sync covers them.
    Succeeded(usize),
}

/// What callers were told before the power went.
#[derive(Default)]
struct Told {
    accepted: Mutex<Vec<JobId>>,
    succeeded: Mutex<Vec<JobId>>,
    more: Notify,
}

impl Told {
    fn that(&self, list: &Mutex<Vec<JobId>>, id: JobId) {
        list.lock().unwrap().push(id);
        self.more.notify_one();
    }

    fn is_enough(&self, when: When) -> bool {
        match when {
            When::Accepted(n) => self.accepted.lock().unwrap().len() >= n,
            When::Succeeded(n) => self.succeeded.lock().unwrap().len() >= n,
        }
    }
}

/// Submits and finishes until the power goes; counts what is missing afterwards.
async fn lost_after_a_cut(
    disk: &'static Disk,
    file_path: &Path,
    durability: Durability,
    when: When,
    survivors: Survivors,
    ids: &Arc<TestIds>,
) -> usize {
    let (opts, broken) = options(disk, durability);
    let store = Arc::new(SqliteStore::open(file_path, opts).unwrap());
    let told = Arc::new(Told::default());
    let mut tasks = Vec::new();
    let submits_per_caller = match when {
        When::Accepted(_) => usize::MAX,
        When::Succeeded(n) => n,
    };
    for _ in 0..6 {
        let (store, told, ids) = (store.clone(), told.clone(), ids.clone());
        tasks.push(tokio::spawn(async move {
            for _ in 0..submits_per_caller {
                let mut job = job(&*ids);
                job.max_queued = u64::MAX;
                let id = job.id;
                match store.submit(job).await {
                    Ok(_) => told.that(&told.accepted, id),
                    Err(_) => return,
                }
            }
        }));
    }
    if let When::Succeeded(_) = when {
        for task in tasks.drain(..) {
            task.await.unwrap();
        }
    }
    for n in 0..3 {
        let (store, told) = (store.clone(), told.clone());
        tasks.push(tokio::spawn(async move {
            loop {
                let claimed = match store.claim(claim_for(n)).await {
                    Ok(Some(claimed)) => claimed,
                    Ok(None) => {
                        tokio::task::yield_now().await;
                        continue;
                    }
                    Err(_) => return,
                };
                let finish = Finish {
                    outputs: vec![file("outputs/a/b/x.png")],
                    ..done()
                };
                match store.finish(lease(&claimed), finish).await {
                    Ok(_) => told.that(&told.succeeded, claimed.job.id),
                    Err(_) => return,
                }
            }
        }));
    }
    while !told.is_enough(when) {
        told.more.notified().await;
    }
    disk.cut(survivors).unwrap();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(20), task)
            .await
            .expect("without power every caller gets an error")
            .unwrap();
    }
    assert!(broken.load(Ordering::SeqCst), "a failed commit is fatal");
    drop(store);
    disk.power_on();

    let (opts, _) = options(disk, Durability::Promised);
    let store = SqliteStore::open(file_path, opts).unwrap();
    let accepted = told.accepted.lock().unwrap().clone();
    let succeeded = told.succeeded.lock().unwrap().clone();
    let mut lost = 0;
    for id in accepted {
        lost += usize::from(store.job(None, id).await.unwrap().is_none());
    }
    for id in succeeded {
        match store.job(None, id).await.unwrap() {
            Some(job) if job.state == JobState::Succeeded => assert_eq!(job.outputs.len(), 1),
            _ => lost += 1,
        }
    }
    store.close().await;
    lost
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_power_goes() {
    let disk = Disk::register("store-power");
    let dir = tempfile::tempdir().unwrap();
    let ids = Arc::new(TestIds::default());
    for round in 1..=12u64 {
        let survivors = if round % 2 == 0 {
            Survivors::Some(round)
        } else {
            Survivors::None
        };
        // The same database goes through all of it, so that old logs are cut in two as well.
        let count = usize::try_from(round * 37 % 150 + 1).unwrap();
        let when = if round % 3 == 0 {
            When::Succeeded(count)
        } else {
            When::Accepted(count)
        };
        let lost = lost_after_a_cut(
            disk,
            &dir.path().join("db"),
            Durability::Promised,
            when,
            survivors,
            &ids,
        )
        .await;
        assert_eq!(lost, 0, "round {round}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_syncing_the_same_test_loses_jobs() {
    let disk = Disk::register("store-power-off");
    let dir = tempfile::tempdir().unwrap();
    let ids = Arc::new(TestIds::default());
    let path = dir.path().join("db");
    // The schema at least is synced.
    SqliteStore::open(&path, options(disk, Durability::Promised).0)
        .unwrap()
        .close()
        .await;
    let lost = lost_after_a_cut(
        disk,
        &path,
        Durability::Never,
        When::Accepted(100),
        Survivors::None,
        &ids,
    )
    .await;
    assert!(lost > 0, "the test above proves nothing");
}

#[tokio::test]
async fn only_what_promises_to_waits_for_the_disk() {
    let disk = Disk::register("store-syncs");
    let dir = tempfile::tempdir().unwrap();
    let store =
        Arc::new(SqliteStore::open(&dir.path().join("db"), options(disk, Durability::Promised).0).unwrap());
    let world = World::new(vec![store.clone()], TestClock::new(), Box::new(dir));
    world.accept_one().await;
    world.accept_one().await;
    // A pause of seconds lets the writer fold its log, which syncs: one undisturbed try of three is enough.
    let mut undisturbed = false;
    for _ in 0..3 {
        let before = disk.syncs();
        world.accept_one().await;
        let submitted = disk.syncs();
        assert!(submitted > before, "a submit is synced");
        let held = world.claim_lease().await;
        let log = vec![event(EventKind::Log, "{}")];
        store.append_events(held, log).await.unwrap().unwrap();
        store.renew(held, Duration::from_secs(9)).await.unwrap().unwrap();
        let rode = disk.syncs();
        world.finish(held, done()).await;
        assert!(disk.syncs() > rode, "a result is synced");
        undisturbed |= rode == submitted;
    }
    assert!(undisturbed, "claims, events and renewals ride along");
}

#[tokio::test]
async fn a_failed_sync_is_fatal_and_nothing_is_acknowledged() {
    let disk = Disk::register("store-fatal");
    let dir = tempfile::tempdir().unwrap();
    let (options, broken) = options(disk, Durability::Promised);
    let store = Arc::new(SqliteStore::open(&dir.path().join("db"), options).unwrap());
    let world = World::new(vec![store.clone()], TestClock::new(), Box::new(dir));
    world.accept_one().await;
    disk.fail_syncs(true);
    assert!(store.submit(world.new_job()).await.is_err());
    disk.fail_syncs(false);
    assert!(broken.load(Ordering::SeqCst));
    assert!(store.submit(world.new_job()).await.is_err(), "it takes no more");
    assert!(store.claim(world.claim_for(1)).await.is_err());
}

#[tokio::test]
async fn a_fence_that_a_power_cut_took_back_is_not_given_again() {
    let disk = Disk::register("store-fences");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let ids = TestIds::default();
    let open = || SqliteStore::open(&path, options(disk, Durability::Promised).0).unwrap();
    let store = open();
    store.submit(job(&ids)).await.unwrap();
    let held = store.claim(claim_for(1)).await.unwrap().unwrap();
    disk.cut(Survivors::None).unwrap();
    drop(store);
    disk.power_on();
    let store = open();
    let again = store.claim(claim_for(2)).await.unwrap().unwrap();
    assert_eq!(
        (again.job.id, again.attempt),
        (held.job.id, 1),
        "the claim was taken back"
    );
    assert!(again.fence > held.fence);
    store.close().await;
}
