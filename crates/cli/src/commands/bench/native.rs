//! ComfyUI's own API: a prompt whose graph is cached whole, from its post to its history, beside the instance alone; and what the
//! page asks for again and again, with a long history behind it.

use std::{path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_core::{AttemptOutcome, InstanceId, JobId, attempt::Lease};
use darkroom_store::{
    Jobs, SqliteStore,
    jobs::{Claim, Finish, JobFilter, JobRecord, NewJob, Page},
    sqlite::Options,
};

use super::{
    commits::Commits,
    disk::Disk,
    engine::{Conversation, Engine},
    report::{Bound, Figure, Report, Verdict},
    requests::trivial,
    scene::{Scene, metrics},
    spread::Spread,
};
use crate::stopwatch::Stopwatch;

const PROMPTS: usize = 500;
/// Until caches, connections and the instance are warm.
const WARM_UP: u32 = 20;
const ENDED: usize = 100_000;
const READS: usize = 300;
/// Jobs that are claimed and ended at once while the history is filled.
const FILLING: usize = 256;

/// Prompts through the server, prompts to an engine, and waits for the disk take turns, so that a busy moment of the machine hits
/// all three.
pub async fn prompts(scene: &Scene) -> anyhow::Result<Report> {
    let (server, address) = scene.server("").await?;
    let engine = Engine::start(scene, &[]).await?;
    let mut direct = engine.open().await?;
    let mut through = Conversation::with(server.url()).await?;
    let mut disk = Disk::create(&scene.dir)?;
    let graph = trivial();
    for _ in 0..scene.amount(WARM_UP, 2) {
        through.run(&graph).await?;
        direct.run(&graph).await?;
    }
    let (mut all, mut alone, mut waits) = (vec![], vec![], vec![]);
    let before = Commits::read(&metrics(address).await?);
    for _ in 0..scene.amount(PROMPTS, 5) {
        all.push(through.run(&graph).await?);
        alone.push(direct.run(&graph).await?);
        waits.push(tokio::task::block_in_place(|| {
            Ok::<_, std::io::Error>(disk.commit()? + disk.commit()?)
        })?);
    }
    let commits = Commits::read(&metrics(address).await?).since(before);
    server.stop().await;
    let count = all.len() as f64;
    let (all, alone, waits) = (Spread::of(all), Spread::of(alone), Spread::of(waits));
    let waited = commits.total_ms / count;
    // Of the two accounts of the disk's part, the one that leaves more to us.
    let disks_part = waited.min(waits.ms(50));
    Ok(Report {
        scenario: "prompts",
        how: "one client, warm instance, graph cached whole: POST /prompt, the socket's last message, GET /history; added = p50 of it \
              - p50 of the same with the engine alone - two waits for the disk (the server's own mean or the raw median, whichever \
              is less); added_p99 likewise with the 99th percentiles",
        verdict: Verdict {
            what: "p50 added to engine and disk",
            value: all.ms(50) - alone.ms(50) - disks_part,
            unit: "ms",
            target: 3.0,
            bound: Bound::AtMost,
            baseline: alone.ms(50) + disks_part,
            baseline_is: "engine and disk",
        },
        figures: [
            ("prompts", count),
            ("prompt_p50_ms", all.ms(50)),
            ("prompt_p99_ms", all.ms(99)),
            ("engine_p50_ms", alone.ms(50)),
            ("engine_p99_ms", alone.ms(99)),
            ("disk_two_writes_p50_ms", waits.ms(50)),
            ("disk_two_writes_p99_ms", waits.ms(99)),
            ("durable_commits_mean_ms_per_prompt", waited),
            ("added_p99_ms", all.ms(99) - alone.ms(99) - waits.ms(99)),
        ]
        .map(|(key, value)| Figure { key, value })
        .into(),
    })
}

/// A real job is run, and its record written many times more, before the server that is asked starts.
pub async fn history(scene: &Scene) -> anyhow::Result<Report> {
    let (server, _) = scene.server("").await?;
    let data = server.data();
    Conversation::with(server.url()).await?.run(&trivial()).await?;
    server.stop().await;
    let ended = scene.amount(ENDED, 300);
    let watch = Stopwatch::start();
    fill(&data.path().join("data"), ended).await?;
    let filled_in = watch.elapsed();
    let (server, _) = scene.server_on(data, "").await?;
    let client = reqwest::Client::builder().no_proxy().build()?;
    let reads = scene.amount(READS, 5);
    let read = async |path: &str| {
        let url = format!("{}{path}", server.url());
        let mut took = Vec::new();
        let mut size = 0;
        for _ in 0..reads {
            let watch = Stopwatch::start();
            // As a browser asks for it.
            let request = client.get(&url).header("accept-encoding", "gzip");
            let answer = request.send().await?.error_for_status()?;
            size = answer.bytes().await?.len();
            took.push(watch.elapsed());
        }
        anyhow::Ok((Spread::of(took), size as f64))
    };
    let (newest, newest_bytes) = read("/history?max_items=20").await?;
    let (jobs, jobs_bytes) = read("/api/jobs?status=completed,failed,cancelled&limit=200&offset=0").await?;
    let (few, _) = read("/api/jobs?limit=20").await?;
    let (info, info_bytes) = read("/object_info").await?;
    server.stop().await;
    Ok(Report {
        scenario: "history",
        how: "one client at a time with that many ended jobs: GET /history?max_items=20, /api/jobs as the page asks for it (200) and \
              with 20, and /object_info, which is compressed",
        verdict: Verdict {
            what: "p50 of /history?max_items=20",
            value: newest.ms(50),
            unit: "ms",
            target: 5.0,
            bound: Bound::AtMost,
            baseline: few.ms(50),
            baseline_is: "/api/jobs?limit=20",
        },
        figures: [
            ("ended_jobs", ended as f64),
            ("filled_in_s", filled_in.as_secs_f64()),
            ("history_20_p50_ms", newest.ms(50)),
            ("history_20_p99_ms", newest.ms(99)),
            ("history_20_bytes", newest_bytes),
            ("jobs_200_p50_ms", jobs.ms(50)),
            ("jobs_200_p99_ms", jobs.ms(99)),
            ("jobs_200_bytes", jobs_bytes),
            ("jobs_20_p50_ms", few.ms(50)),
            ("jobs_20_p99_ms", few.ms(99)),
            ("object_info_p50_ms", info.ms(50)),
            ("object_info_p99_ms", info.ms(99)),
            ("object_info_bytes", info_bytes),
        ]
        .map(|(key, value)| Figure { key, value })
        .into(),
    })
}

async fn fill(data_dir: &Path, count: usize) -> anyhow::Result<()> {
    let file = data_dir.join("darkroom.db");
    let store = Arc::new(SqliteStore::open(
        &file,
        Options::new(Arc::new(SystemClock::new())),
    )?);
    let page = Page {
        limit: 1,
        after: None,
    };
    let like = store.jobs(JobFilter::default(), page).await?.pop();
    let like = Arc::new(like.context("the real job is not there")?);
    let mut fillers = tokio::task::JoinSet::new();
    for filler in 0..FILLING {
        let (store, like) = (store.clone(), like.clone());
        let share = count / FILLING + usize::from(filler < count % FILLING);
        fillers.spawn(async move {
            for _ in 0..share {
                store.submit(job(&like)).await?;
            }
            for _ in 0..share {
                let claimed = store.claim(claim(&like)).await?.context("nothing is queued")?;
                let lease = Lease {
                    job: claimed.job.id,
                    fence: claimed.fence,
                };
                let finish = Finish {
                    outputs: like.outputs.clone(),
                    result: like.result.clone(),
                    ..Finish::empty(AttemptOutcome::Done)
                };
                store
                    .finish(lease, finish)
                    .await?
                    .map_err(|stale| anyhow::anyhow!("{stale:?}"))?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(filler) = fillers.join_next().await {
        filler??;
    }
    store.close().await;
    Ok(())
}

fn claim(like: &JobRecord) -> Claim {
    Claim {
        endpoint: like.endpoint.clone(),
        instance: InstanceId::new(&SystemIds),
        owner: "local".parse().expect("a valid name"),
        loaded_models: Vec::new(),
        max_running_per_tenant: 0,
        offers: None,
        lease: Duration::from_secs(600),
        except: vec![],
    }
}

fn job(like: &JobRecord) -> NewJob {
    NewJob {
        id: JobId::new(&SystemIds),
        tenant: like.tenant.clone(),
        endpoint: like.endpoint.clone(),
        priority: 0,
        input: like.input.clone(),
        sealed: None,
        input_files: vec![],
        meta: like.meta.clone(),
        external_id: None,
        queue_ttl: None,
        max_attempts: 2,
        max_queued: u64::MAX,
        entry: Default::default(),
        keep: Default::default(),
    }
}
