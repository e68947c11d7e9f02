//! Durable submits: how many asynchronous calls per second are accepted and on the disk, with nothing to run them.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;

use super::{
    commits::Commits,
    disk,
    echo::Echo,
    machine::{child_of, cpu_us},
    report::{Bound, Figure, Report, Verdict},
    requests::{RUN, small_async},
    scene::{Scene, metrics},
    spread::Spread,
    wire::{self, Wire},
};
use crate::stopwatch::Stopwatch;

const CLIENTS: usize = 32;
const LASTING: Duration = Duration::from_secs(6);

/// An endpoint that takes jobs and runs none.
pub const PARKED: &str = "[endpoints.default.scaling]\nmax_instances = 0\n\
                          [endpoints.default.limits]\nmax_queued = 100000000\n";

/// The echo server first, then Darkroom, then the disk.
pub async fn measure(scene: &Scene) -> anyhow::Result<Report> {
    let lasting = scene.lasting(LASTING);
    let echo = Echo::start()?;
    let body = small_async(RUN);
    let body_at = body.len() - 1024;
    let (ceiling, echoed) = flood(
        echo.address,
        wire::post("/", "", &body[body_at..]).into(),
        200,
        lasting / 2,
    )
    .await?;
    drop(echo);

    let (server, address) = scene.server(PARKED).await?;
    let raw_before = disk::rate(scene, lasting / 6).await?;
    flood(address, body.clone().into(), 202, lasting / 6).await?;
    let child = server.pid().and_then(child_of).context("the server's child")?;
    let before = Commits::read(&metrics(address).await?);
    let cpu_before = cpu_us(child);
    let (rate, accepted) = flood(address, body.into(), 202, lasting).await?;
    let cpu = cpu_us(child) - cpu_before;
    let commits = Commits::read(&metrics(address).await?).since(before);
    let raw_after = disk::rate(scene, lasting / 6).await?;
    server.stop().await;

    let count = accepted.len() as f64;
    Ok(Report {
        scenario: "submits",
        how: "32 callers, 1 KB bodies, POST answered 202 after the fsync, graphs checked; beside it an axum server that \
              sends 1 KB back, and raw fdatasync",
        verdict: Verdict {
            what: "durable submits",
            value: rate,
            unit: "/s",
            target: 5000.0,
            bound: Bound::AtLeast,
            baseline: ceiling,
            baseline_is: "echo server",
        },
        figures: [
            ("submits_per_second", rate),
            ("p50_ms", accepted.ms(50)),
            ("p99_ms", accepted.ms(99)),
            ("max_ms", accepted.ms(100)),
            ("echo_per_second", ceiling),
            ("echo_p50_ms", echoed.ms(50)),
            ("echo_p99_ms", echoed.ms(99)),
            ("disk_writes_per_second_before", raw_before),
            ("disk_writes_per_second_after", raw_after),
            ("server_cpu_us_per_submit", cpu / count),
            ("submits_per_durable_commit", count / commits.count),
            ("durable_commit_mean_ms", commits.total_ms / commits.count),
        ]
        .map(|(key, value)| Figure { key, value })
        .into(),
    })
}

/// All clients send the same request over and over; answers per second, and how long each took.
pub async fn flood(
    address: SocketAddr,
    request: Arc<[u8]>,
    status: u16,
    lasting: Duration,
) -> anyhow::Result<(f64, Spread)> {
    let watch = Stopwatch::start();
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let request = request.clone();
        clients.spawn(async move {
            let mut wire = Wire::connect(address).await?;
            let mut took = Vec::new();
            loop {
                let begun = watch.elapsed();
                if begun >= lasting {
                    return Ok::<_, std::io::Error>(took);
                }
                wire.expect(status, &request).await?;
                took.push(watch.elapsed() - begun);
            }
        });
    }
    let mut all = Vec::new();
    while let Some(client) = clients.join_next().await {
        all.extend(client??);
    }
    let rate = all.len() as f64 / watch.elapsed().as_secs_f64();
    Ok((rate, Spread::of(all)))
}
