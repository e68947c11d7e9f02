//! What a server that does nothing keeps in memory.

use std::time::Duration;

use anyhow::Context;

use super::{
    machine::{child_of, memory, threads},
    report::{Bound, Figure, Report, Verdict},
    requests::{RUN, trivial},
    scene::Scene,
    wire::{self, Wire},
};

/// After this long without work the store gives its caches back.
const REST: Duration = Duration::from_secs(4);

/// Fresh, and again after it ran something and its instance is gone.
pub async fn measure(scene: &Scene) -> anyhow::Result<Report> {
    let rest = scene.lasting(REST);
    let (server, address) = scene
        .server("[endpoints.default.scaling]\nidle_timeout = \"100ms\"\n")
        .await?;
    let parent = server.pid().context("the server runs")?;
    let child = child_of(parent).context("the server has no child process")?;
    tokio::time::sleep(rest).await;
    let fresh = (memory(parent), memory(child), threads(child));
    let mut wire = Wire::connect(address).await?;
    let request = wire::post(RUN, "", trivial().to_string().as_bytes());
    for _ in 0..scene.amount(50, 2) {
        wire.expect(200, &request).await?;
    }
    drop(wire);
    tokio::time::sleep(rest).await;
    let used = (memory(parent), memory(child));
    server.stop().await;

    let mb = |kb: u64| kb as f64 / 1024.0;
    Ok(Report {
        scenario: "idle",
        how: "resident size of the two processes of a fresh server, some seconds after its start; shared pages of the \
              binary count in both",
        verdict: Verdict {
            what: "resident, parent and child together",
            value: mb(fresh.0.rss_kb + fresh.1.rss_kb),
            unit: "MB",
            target: 30.0,
            bound: Bound::AtMost,
            baseline: mb(fresh.0.proportional_kb + fresh.1.proportional_kb),
            baseline_is: "with shared pages counted once",
        },
        figures: [
            ("parent_rss_mb", mb(fresh.0.rss_kb)),
            (
                "proportional_mb",
                mb(fresh.0.proportional_kb + fresh.1.proportional_kb),
            ),
            ("parent_anonymous_mb", mb(fresh.0.anonymous_kb)),
            ("child_rss_mb", mb(fresh.1.rss_kb)),
            ("child_anonymous_mb", mb(fresh.1.anonymous_kb)),
            ("child_threads", fresh.2 as f64),
            ("parent_rss_after_work_mb", mb(used.0.rss_kb)),
            ("child_rss_after_work_mb", mb(used.1.rss_kb)),
            ("child_anonymous_after_work_mb", mb(used.1.anonymous_kb)),
        ]
        .map(|(key, value)| Figure { key, value })
        .into(),
    })
}
