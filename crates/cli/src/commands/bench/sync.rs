//! A synchronous call whose graph is cached whole: what is left of it once the engine's own time and the two waits for
//! the disk (the accepted job, the final record) are taken off.

use anyhow::Context;

use super::{
    commits::Commits,
    disk::Disk,
    engine::Engine,
    machine::{child_of, cpu_us},
    report::{Bound, Figure, Report, Verdict},
    requests::{RUN, trivial},
    scene::{Scene, metrics},
    spread::{Spread, in_ms},
    wire::{self, Wire},
};
use crate::stopwatch::Stopwatch;

const CALLS: u32 = 300;
/// Until caches, connections and the instance are warm.
const WARM_UP: u32 = 20;

/// Calls through the server, calls to an engine, and waits for the disk take turns, so that a busy moment of the machine
/// hits all three.
pub async fn measure(scene: &Scene) -> anyhow::Result<Report> {
    let (server, address) = scene.server("").await?;
    let engine = Engine::start(scene, &[]).await?;
    let mut direct = engine.open().await?;
    let mut wire = Wire::connect(address).await?;
    let mut disk = Disk::create(&scene.dir)?;
    let graph = trivial();
    let request = wire::post(RUN, "", graph.to_string().as_bytes());
    for _ in 0..scene.amount(WARM_UP, 2) {
        wire.expect(200, &request).await?;
        direct.run(&graph).await?;
    }
    let (mut calls, mut engine_alone, mut waits) = (vec![], vec![], vec![]);
    let child = server.pid().and_then(child_of).context("the server's child")?;
    let before = Commits::read(&metrics(address).await?);
    let cpu_before = cpu_us(child);
    for _ in 0..scene.amount(CALLS, 5) {
        let watch = Stopwatch::start();
        wire.expect(200, &request).await?;
        calls.push(watch.elapsed());
        engine_alone.push(direct.run(&graph).await?);
        waits.push(tokio::task::block_in_place(|| {
            Ok::<_, std::io::Error>(disk.commit()? + disk.commit()?)
        })?);
    }
    let cpu = cpu_us(child) - cpu_before;
    let commits = Commits::read(&metrics(address).await?).since(before);
    server.stop().await;

    let all = calls.iter().zip(&engine_alone).zip(&waits);
    let mut beyond: Vec<f64> = all
        .map(|((call, engine), waits)| in_ms(*call) - in_ms(*engine) - in_ms(*waits))
        .collect();
    beyond.sort_unstable_by(f64::total_cmp);
    let count = calls.len() as f64;
    let (calls, engine_alone, waits) = (Spread::of(calls), Spread::of(engine_alone), Spread::of(waits));
    let waited = commits.total_ms / count;
    // Of the two accounts of the disk's part, the one that leaves more to us.
    let disks_part = waited.min(waits.ms(50));
    Ok(Report {
        scenario: "sync",
        how: "one caller, warm instance, graph cached whole; beyond = p50 of the call - p50 of the engine alone \
              (POST, WebSocket, history) - two waits for the disk (the server's own mean or the raw median, whichever is \
              less)",
        verdict: Verdict {
            what: "p50 beyond engine and disk",
            value: calls.ms(50) - engine_alone.ms(50) - disks_part,
            unit: "ms",
            target: 3.0,
            bound: Bound::AtMost,
            baseline: engine_alone.ms(50) + disks_part,
            baseline_is: "engine and disk",
        },
        figures: [
            ("calls", count),
            ("call_p50_ms", calls.ms(50)),
            ("call_p99_ms", calls.ms(99)),
            ("engine_p50_ms", engine_alone.ms(50)),
            ("engine_p99_ms", engine_alone.ms(99)),
            ("disk_two_writes_p50_ms", waits.ms(50)),
            ("disk_two_writes_p99_ms", waits.ms(99)),
            ("server_cpu_us_per_call", cpu / count),
            ("durable_commits_per_call", commits.count / count),
            ("durable_commits_mean_ms_per_call", waited),
            (
                "beyond_paired_p50_ms",
                beyond.get(beyond.len() / 2).copied().unwrap_or(f64::NAN),
            ),
        ]
        .map(|(key, value)| Figure { key, value })
        .into(),
    })
}
