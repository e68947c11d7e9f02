//! What waits for the disk, and what never makes anything else wait.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex},
    task::Poll,
};

use darkroom_core::{JobState, attempt::RunningOn, event::EventKind};

use super::{
    super::{Ended, FakeDisk, Options, SqliteStore},
    writer::Gate,
};
use crate::{
    Jobs,
    conformance::{TestClock, claim_for, done, event, job, lease, lost},
    jobs::Submitted,
    wake::{Topic, Wakeups},
};

/// A store, and the list of its commits: durable or not, in order.
fn open() -> (Arc<SqliteStore>, Arc<Mutex<Vec<bool>>>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let commits = Arc::new(Mutex::new(Vec::new()));
    let seen = commits.clone();
    let options = Options {
        on_commit: Some(Arc::new(move |commit| seen.lock().unwrap().push(commit.durable))),
        ..Options::new(TestClock::new())
    };
    let store = SqliteStore::open(&dir.path().join("db"), options).unwrap();
    (Arc::new(store), commits, dir)
}

#[tokio::test]
async fn of_a_whole_run_only_the_submit_and_the_final_record_wait_for_the_disk() {
    let (store, commits, _dir) = open();
    let ids = crate::conformance::TestIds::default();
    let durable = || commits.lock().unwrap().iter().filter(|durable| **durable).count();

    store.submit(job(&ids)).await.unwrap();
    assert_eq!(durable(), 1);
    // The planner asks what has run out of time whenever anything changed: here, beside every step.
    let (claimed, swept) = tokio::join!(store.claim(claim_for(1)), store.expire());
    assert_eq!(swept.unwrap().rows, 0);
    let claimed = claimed.unwrap().unwrap();
    let lease = lease(&claimed);
    let on = RunningOn {
        instance: claim_for(1).instance,
        client_id: "c".to_owned(),
        prompt_id: "p".to_owned(),
    };
    let (started, swept) = tokio::join!(store.start(lease, on), store.expire());
    assert!(started.unwrap().is_ok() && swept.unwrap().rows == 0);
    let ran = vec![event(EventKind::ExecutionStart, "{}")];
    let (told, swept) = tokio::join!(store.append_events(lease, ran), store.expire());
    assert!(told.unwrap().is_ok() && swept.unwrap().rows == 0);
    assert_eq!(durable(), 1, "claim, start, and events ride along");
    assert!(store.finish(lease, done()).await.unwrap().is_ok());
    store.expire().await.unwrap();
    assert_eq!(durable(), 2);
}

#[tokio::test]
async fn what_has_run_out_of_time_is_still_found() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let store = SqliteStore::open(&dir.path().join("db"), Options::new(clock.clone())).unwrap();
    let ids = crate::conformance::TestIds::default();
    let mut waits = job(&ids);
    waits.queue_ttl = Some(std::time::Duration::from_secs(5));
    store.submit(job(&ids)).await.unwrap();
    store.claim(claim_for(1)).await.unwrap().unwrap();
    store.submit(waits).await.unwrap();
    assert_eq!(store.expire().await.unwrap().rows, 0);
    clock.advance(std::time::Duration::from_secs(5));
    assert_eq!(store.expire().await.unwrap().rows, 1, "the job that waited");
    clock.advance(std::time::Duration::from_secs(25));
    assert_eq!(store.expire().await.unwrap().rows, 1, "the lease");
}

#[tokio::test]
async fn every_end_is_told_once_whoever_brought_it_about() {
    let dir = tempfile::tempdir().unwrap();
    let clock = TestClock::new();
    let told = Arc::new(Mutex::new(Vec::new()));
    let seen = told.clone();
    let options = Options {
        on_commit: Some(Arc::new(move |commit| seen.lock().unwrap().extend(commit.ended))),
        ..Options::new(clock.clone())
    };
    let store = SqliteStore::open(&dir.path().join("db"), options).unwrap();
    let ids = crate::conformance::TestIds::default();
    let ends = |told: &Mutex<Vec<Ended>>| std::mem::take(&mut *told.lock().unwrap());
    let name = job(&ids).endpoint;
    let finished = |state| Ended::Job(name.clone(), state);
    let lost_one = || Ended::LostAttempt(name.clone());

    let waits = job(&ids);
    store.submit(waits.clone()).await.unwrap();
    store.cancel(None, waits.id).await.unwrap();
    store.cancel(None, waits.id).await.unwrap();
    assert_eq!(
        ends(&told),
        [finished(JobState::Cancelled)],
        "cancelled while it waited"
    );

    let mut impatient = job(&ids);
    impatient.queue_ttl = Some(std::time::Duration::from_secs(5));
    store.submit(impatient).await.unwrap();
    clock.advance(std::time::Duration::from_secs(5));
    store.expire().await.unwrap();
    assert_eq!(ends(&told), [finished(JobState::Expired)]);

    let mut fragile = job(&ids);
    fragile.max_attempts = 2;
    store.submit(fragile).await.unwrap();
    store.claim(claim_for(1)).await.unwrap().unwrap();
    clock.advance(std::time::Duration::from_secs(3600));
    store.expire().await.unwrap();
    assert_eq!(ends(&told), [lost_one()], "a lease that ran out");
    let held = lease(&store.claim(claim_for(2)).await.unwrap().unwrap());
    store.finish(held, lost()).await.unwrap().unwrap();
    assert_eq!(ends(&told), [lost_one(), finished(JobState::Failed)]);
    assert!(store.finish(held, done()).await.unwrap().is_err());
    assert_eq!(ends(&told), [], "a stale end is none");
}

/// Opened at the latest when its test ends, however it ends: the store waits for its disk.
struct Disk(Arc<Gate>);

impl Drop for Disk {
    fn drop(&mut self) {
        self.0.open();
    }
}

/// A store on a disk that syncs nothing while the gate is shut.
fn open_on_slow_disk() -> (Arc<SqliteStore>, Disk, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Gate::default());
    let gate = disk.clone();
    let options = Options {
        disk: Some(FakeDisk {
            vfs: "unix".to_owned(),
            sync: Arc::new(move |_| {
                gate.pass();
                Ok(())
            }),
        }),
        ..Options::new(TestClock::new())
    };
    let store = SqliteStore::open(&dir.path().join("db"), options).unwrap();
    (Arc::new(store), Disk(disk), dir)
}

async fn is_ready(future: impl Future) -> bool {
    let mut future = pin!(future);
    std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
}

#[tokio::test]
async fn a_slot_takes_a_job_while_the_disk_is_at_work_and_nobody_else_hears_of_it() {
    let (store, disk, _dir) = open_on_slow_disk();
    let ids = crate::conformance::TestIds::default();
    let first = job(&ids);
    let (id, topic) = (first.id, Topic::Queue(first.endpoint.clone()));
    let mut woken = store.subscribe(topic);
    let mut told = store.subscribe(Topic::Capacity);
    disk.0.shut();
    let mut submit = pin!(store.submit(first));
    assert!(!is_ready(submit.as_mut()).await);
    woken.woken().await;
    assert!(!told.0.has_changed().unwrap(), "nobody else is woken to look");
    let claimed = store.claim(claim_for(1)).await.unwrap().unwrap();
    assert_eq!(claimed.job.id, id);
    assert!(!is_ready(submit.as_mut()).await, "nothing is acknowledged");
    disk.0.open();
    assert!(matches!(submit.await.unwrap(), Submitted::Accepted { .. }));
    let job = store.job(None, id).await.unwrap().unwrap();
    assert_eq!(job.state, JobState::Running);
    told.woken().await;
}
