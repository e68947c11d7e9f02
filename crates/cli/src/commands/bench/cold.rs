//! From a request with nothing running to the first node that executes.

use std::{net::SocketAddr, time::Duration};

use anyhow::bail;
use serde_json::Value;

use super::{
    engine::Engine,
    report::{Bound, Figure, Report, Verdict},
    requests::{RUN, trivial},
    scene::Scene,
    spread::Spread,
    wire::{self, Wire},
};
use crate::stopwatch::Stopwatch;

const STARTS: u32 = 25;
const POLL: Duration = Duration::from_millis(10);
/// How long an instance may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// Starts through the server and starts of an engine alone take turns.
pub async fn measure(scene: &Scene) -> anyhow::Result<Report> {
    let (server, address) = scene
        .server("[endpoints.default.scaling]\nidle_timeout = \"50ms\"\n")
        .await?;
    let request = wire::post(
        &format!("{RUN}?stream=true"),
        "",
        trivial().to_string().as_bytes(),
    );
    let (mut starts, mut alone) = (vec![], vec![]);
    for _ in 0..scene.amount(STARTS, 2) {
        let mut wire = Wire::connect(address).await?;
        let watch = Stopwatch::start();
        wire.until(&request, b"\"executing\"").await?;
        starts.push(watch.elapsed());
        wire.until(b"", b"\"serverless_api\"").await?;
        nothing_runs(address).await?;
        alone.push(Engine::start(scene, &[]).await?.started_in);
    }
    server.stop().await;

    let (starts, alone) = (Spread::of(starts), Spread::of(alone));
    Ok(Report {
        scenario: "cold",
        how: "no instance runs; POST with stream=true until the first `executing` arrives; beside it an engine started \
              by hand until its first answer",
        verdict: Verdict {
            what: "p50 from request to first node",
            value: starts.ms(50),
            unit: "ms",
            target: 150.0,
            bound: Bound::AtMost,
            baseline: alone.ms(50),
            baseline_is: "the engine's own start",
        },
        figures: [
            ("starts", starts.len() as f64),
            ("p50_ms", starts.ms(50)),
            ("p90_ms", starts.ms(90)),
            ("max_ms", starts.ms(100)),
            ("engine_alone_p50_ms", alone.ms(50)),
            ("engine_alone_max_ms", alone.ms(100)),
        ]
        .map(|(key, value)| Figure { key, value })
        .into(),
    })
}

async fn nothing_runs(address: SocketAddr) -> anyhow::Result<()> {
    let mut wire = Wire::connect(address).await?;
    let watch = Stopwatch::start();
    while watch.elapsed() < GONE_WITHIN {
        wire.expect(200, &wire::get("/darkroom/v1/instances")).await?;
        let answer: Value = serde_json::from_str(&wire.body())?;
        if answer["instances"].as_array().is_some_and(Vec::is_empty) {
            return Ok(());
        }
        tokio::time::sleep(POLL).await;
    }
    bail!("an instance is still there: {}", wire.body())
}
