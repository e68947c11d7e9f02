//! Many queued jobs: what each costs in memory, and whether the next one is found as fast as with none.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_core::{InstanceId, JobId, Payload};
use darkroom_store::{
    Jobs, SqliteStore,
    jobs::{Claim, JobMeta, NewJob},
    sqlite::Options,
};

use super::{
    machine::{child_of, memory},
    report::{Bound, Figure, Report, Verdict},
    requests::{RUN, small_async},
    scene::Scene,
    spread::Spread,
    submits::PARKED,
    wire::Wire,
};
use crate::stopwatch::Stopwatch;

const QUEUED: usize = 100_000;
const CALLERS: usize = 64;
const CLAIMS: usize = 300;
/// After this long without work the store gives its caches back.
const REST: Duration = Duration::from_secs(4);

/// Memory is the server's; claims are asked of a store of the same kind, since no request of a client shows them alone.
pub async fn measure(scene: &Scene) -> anyhow::Result<Report> {
    let queued = scene.amount(QUEUED, 300);
    let rest = scene.lasting(REST);
    let (server, address) = scene.server(PARKED).await?;
    let child = server.pid().and_then(child_of).context("the server's child")?;
    tokio::time::sleep(rest).await;
    let empty = memory(child);
    submit(address, queued).await?;
    let busy = memory(child);
    tokio::time::sleep(rest).await;
    let full = memory(child);
    server.stop().await;

    let claims = claims(scene, [0, queued / 10, queued]).await?;
    let per_job = |kb: u64| kb.saturating_sub(empty.rss_kb) as f64 * 1024.0 / queued as f64;
    let [none, some, many] = claims;
    Ok(Report {
        scenario: "backlog",
        how: "async calls until the queue is full; resident size of the working process before and some seconds after; \
              claims on a store of the same kind with that many jobs queued",
        verdict: Verdict {
            what: "resident per queued job",
            value: per_job(full.rss_kb),
            unit: "B",
            target: 300.0,
            bound: Bound::AtMost,
            baseline: 1024.0,
            baseline_is: "the body of each",
        },
        figures: [
            ("queued", queued as f64),
            ("rss_empty_mb", empty.rss_kb as f64 / 1024.0),
            ("rss_while_submitting_mb", busy.rss_kb as f64 / 1024.0),
            ("rss_full_mb", full.rss_kb as f64 / 1024.0),
            ("bytes_per_job", per_job(full.rss_kb)),
            ("bytes_per_job_while_submitting", per_job(busy.rss_kb)),
            ("claim_p50_ms_few_queued", none.ms(50)),
            ("claim_p99_ms_few_queued", none.ms(99)),
            ("claim_p50_ms_tenth_queued", some.ms(50)),
            ("claim_p99_ms_tenth_queued", some.ms(99)),
            ("claim_p50_ms_all_queued", many.ms(50)),
            ("claim_p99_ms_all_queued", many.ms(99)),
            ("claim_p50_ratio_all_to_few", many.ms(50) / none.ms(50)),
        ]
        .map(|(key, value)| Figure { key, value })
        .into(),
    })
}

async fn submit(address: SocketAddr, count: usize) -> anyhow::Result<()> {
    let request: Arc<[u8]> = small_async(RUN).into();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let request = request.clone();
        let share = count / CALLERS + usize::from(caller < count % CALLERS);
        callers.spawn(async move {
            let mut wire = Wire::connect(address).await?;
            for _ in 0..share {
                wire.expect(202, &request).await?;
            }
            Ok::<_, std::io::Error>(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(())
}

/// How long claims take at each of these numbers of queued jobs (and [`CLAIMS`] more, which are claimed).
async fn claims(scene: &Scene, queued: [usize; 3]) -> anyhow::Result<[Spread; 3]> {
    let count = scene.amount(CLAIMS, 10);
    let file = scene.dir.join("claims.db");
    let store = Arc::new(SqliteStore::open(
        &file,
        Options::new(Arc::new(SystemClock::new())),
    )?);
    let claim = Claim {
        endpoint: "default".parse()?,
        instance: InstanceId::new(&SystemIds),
        owner: "local".parse()?,
        loaded_models: Vec::new(),
        max_running_per_tenant: 0,
        offers: None,
        lease: Duration::from_secs(600),
        except: vec![],
    };
    let mut spreads: [Spread; 3] = Default::default();
    let mut there = 0;
    for (level, spread) in queued.into_iter().zip(&mut spreads) {
        fill(&store, level + count - there).await?;
        let mut took = Vec::new();
        for _ in 0..count {
            let watch = Stopwatch::start();
            store.claim(claim.clone()).await?.context("nothing is queued")?;
            took.push(watch.elapsed());
        }
        there = level;
        *spread = Spread::of(took);
    }
    store.close().await;
    Ok(spreads)
}

async fn fill(store: &Arc<SqliteStore>, count: usize) -> anyhow::Result<()> {
    const CALLERS: usize = 256;
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let store = store.clone();
        let share = count / CALLERS + usize::from(caller < count % CALLERS);
        callers.spawn(async move {
            for _ in 0..share {
                store.submit(job(caller)).await?;
            }
            Ok::<_, darkroom_store::Error>(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller??;
    }
    Ok(())
}

fn job(caller: usize) -> NewJob {
    NewJob {
        id: JobId::new(&SystemIds),
        tenant: format!("tenant-{}", caller % 8).parse().expect("a valid name"),
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
        entry: Default::default(),
        keep: Default::default(),
    }
}
