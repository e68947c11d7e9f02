//! Measures the SQLite store against the disk it stands on: `cargo run --release --example bench_store [DIR]`.
//!
//! Every figure is printed next to what bounds it in the same run: the disk's own fsync rate. The data goes to DIR
//! (default: a directory under the current one) and is removed at the end.

use std::{io::Write, os::unix::fs::FileExt, path::Path, sync::Arc, time::Duration};

use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_core::{Clock, InstanceId, JobId, Payload};
use darkroom_store::{
    Jobs, SqliteStore,
    jobs::{Claim, JobMeta, NewJob, Submitted},
    sqlite::Options,
};

const CALLERS: u32 = 32;
const QUEUED: u32 = 100_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let parent = std::env::args().nth(1).unwrap_or_else(|| ".".to_owned());
    let dir = tempfile::tempdir_in(parent)?;
    let clock = Arc::new(SystemClock::new());
    let store = Arc::new(SqliteStore::open(
        &dir.path().join("bench.db"),
        Options::new(clock.clone()),
    )?);

    let raw = raw_fsyncs(dir.path(), &clock)?;
    println!("raw                  {raw:>9.0} fdatasync/s (16 KiB written before each)");
    println!("idle                 {:>9} kB resident", resident_kb());

    let (rate, latencies) = submits(&store, &clock, CALLERS, Duration::from_secs(5)).await?;
    println!(
        "durable submits      {rate:>9.0} /s by {CALLERS} callers, 1 KB body: {:.1} per raw fdatasync; {}",
        rate / raw,
        spread(latencies)
    );
    let raw_after = raw_fsyncs(dir.path(), &clock)?;
    println!("raw again            {raw_after:>9.0} fdatasync/s");

    let few = claims(&store, &clock, 500).await?;
    println!("claim, fewer queued  {}", spread(few));
    let before = resident_kb();
    fill(&store).await?;
    let queued = store.counters().await?.values().map(|c| c.queued).sum::<u64>();
    println!(
        "resident             {before} kB before, {} kB with {queued} queued",
        resident_kb()
    );
    let many = claims(&store, &clock, 500).await?;
    println!("claim, {queued} queued {}", spread(many));
    store.close().await;
    Ok(())
}

/// What the disk does with what a commit of a few jobs writes: 16 KiB over and over in a file of the log's usual size.
fn raw_fsyncs(dir: &Path, clock: &SystemClock) -> std::io::Result<f64> {
    const SIZE: u64 = 4 << 20;
    const WRITE: u64 = 16 << 10;
    let mut file = std::fs::File::create(dir.join("raw"))?;
    file.write_all(&vec![1; 4 << 20])?;
    file.sync_all()?;
    let started = clock.monotonic();
    let mut done = 0u32;
    while clock.monotonic() - started < Duration::from_secs(2) {
        file.write_all_at(&[2; WRITE as usize], u64::from(done) * WRITE % SIZE)?;
        file.sync_data()?;
        done += 1;
    }
    Ok(f64::from(done) / (clock.monotonic() - started).as_secs_f64())
}

fn new_job(tenant: u32) -> NewJob {
    NewJob {
        id: JobId::new(&SystemIds),
        tenant: format!("tenant-{}", tenant % 8).parse().expect("a valid name"),
        endpoint: "default".parse().expect("a valid name"),
        priority: 0,
        input: Payload::Inline(vec![b'x'; 1024]),
        sealed: None,
        input_files: vec![],
        meta: JobMeta::default(),
        external_id: None,
        queue_ttl: None,
        max_attempts: 2,
        max_queued: u64::MAX,
    }
}

async fn submits(
    store: &Arc<SqliteStore>,
    clock: &Arc<SystemClock>,
    callers: u32,
    lasting: Duration,
) -> Result<(f64, Vec<Duration>), Box<dyn std::error::Error>> {
    let started = clock.monotonic();
    let tasks: Vec<_> = (0..callers)
        .map(|caller| {
            let (store, clock) = (store.clone(), clock.clone());
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                while clock.monotonic() - started < lasting {
                    let begun = clock.monotonic();
                    assert_eq!(store.submit(new_job(caller)).await?, Submitted::Accepted);
                    latencies.push(clock.monotonic() - begun);
                }
                Ok::<_, darkroom_store::Error>(latencies)
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await??);
    }
    let seconds = (clock.monotonic() - started).as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a rate to print")]
    Ok((all.len() as f64 / seconds, all))
}

async fn fill(store: &Arc<SqliteStore>) -> Result<(), Box<dyn std::error::Error>> {
    let queued = store.counters().await?.values().map(|c| c.queued).sum::<u64>();
    let missing = u64::from(QUEUED).saturating_sub(queued);
    let tasks: Vec<_> = (0..256u32)
        .map(|caller| {
            let store = store.clone();
            tokio::spawn(async move {
                for _ in 0..missing / 256 {
                    store.submit(new_job(caller)).await?;
                }
                Ok::<_, darkroom_store::Error>(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    Ok(())
}

async fn claims(
    store: &Arc<SqliteStore>,
    clock: &Arc<SystemClock>,
    count: u32,
) -> Result<Vec<Duration>, Box<dyn std::error::Error>> {
    let claim = Claim {
        endpoint: "default".parse()?,
        instance: InstanceId::new(&SystemIds),
        owner: "local".parse()?,
        loaded_models: Vec::new(),
        lease: Duration::from_secs(600),
    };
    let mut latencies = Vec::new();
    for _ in 0..count {
        let begun = clock.monotonic();
        store.claim(claim.clone()).await?.ok_or("nothing is queued")?;
        latencies.push(clock.monotonic() - begun);
    }
    Ok(latencies)
}

fn spread(mut latencies: Vec<Duration>) -> String {
    latencies.sort();
    let at = |share: usize| latencies[(latencies.len() - 1) * share / 100];
    format!("p50 {:?}, p99 {:?}, most {:?}", at(50), at(99), at(100))
}

fn resident_kb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}
