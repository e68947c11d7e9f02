//! Queues of EAS's protocol: puts one after the other beside a watcher, a long queue, and how fast a watcher is served.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use futures::StreamExt;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::{
    disk::Disk,
    echo::{self, Echo},
    report::{Bound, Figure, Report, Verdict},
    scene::Scene,
    spread::{Spread, in_ms},
    wire::{self, Wire},
};
use crate::stopwatch::Stopwatch;

const PUTS: usize = 2000;
const LONG: usize = 100_000;
const READS: usize = 500;
const CALLERS: usize = 64;
/// Small, as what a queue of work holds: a reference to files elsewhere.
const ITEM: [u8; 256] = [b'x'; 256];
const PATH: &str = "/api/predict/work";
const AUTHORIZATION: &str = "Authorization: sk_bench\r\n";
const CONFIG: &str = "[[keys]]\nname = \"bench\"\nsecret = \"sk_bench\"\nscopes = [\"client\"]\n\
                      [endpoints.work]\nkind = \"queue\"\nqueue = { max_length = 1000000 }\n";

/// A queue in memory and the disk's own commits first, then Darkroom; then a queue of [`LONG`] items.
pub async fn measure(scene: &Scene) -> anyhow::Result<Report> {
    let puts = scene.amount(PUTS, 20);
    let memory = Echo::start()?;
    let in_memory = puts_beside_a_watcher(memory.address, echo::QUEUE, puts).await?;
    drop(memory);
    // The disk's mood changes: half of its commits are measured before, half after.
    let before = commits(scene, puts / 2).await?;
    let (server, address) = scene.server(CONFIG).await?;
    let ours = puts_beside_a_watcher(address, PATH, puts).await?;
    let after = commits(scene, puts - puts / 2).await?;

    let long = scene.amount(LONG, 200);
    let first = fill(address, long).await?;
    let gets = reads(address, scene, |nth| {
        let index = first + (nth * 7919 % long) as u64;
        format!("{PATH}?_index_={index}&_raw_=true&_auto_delete_=false")
    })
    .await?;
    let attributes = reads(address, scene, |_| format!("{PATH}?_attrs_=true")).await?;
    let watch = Stopwatch::start();
    watcher(address, PATH, 10_000).await?.take(long).await?;
    let watched = long as f64 / watch.elapsed().as_secs_f64();
    server.stop().await;

    let per_put = |spent: Duration| in_ms(spent) / puts as f64;
    let baseline = per_put(in_memory + before + after);
    Ok(Report {
        scenario: "queues",
        how: "puts of 256 B one after the other on one connection while a WebSocket watch with auto commit gets them; \
              beside it the same against a queue in memory, and as many raw writes with fdatasync",
        verdict: Verdict {
            what: "durable put beside a watcher",
            value: per_put(ours),
            unit: "ms",
            target: 1.3 * baseline,
            bound: Bound::AtMost,
            baseline,
            baseline_is: "in memory, and a raw commit",
        },
        figures: [
            ("put_ms", per_put(ours)),
            ("put_in_memory_ms", per_put(in_memory)),
            ("raw_commit_ms", per_put(before + after)),
            ("items", long as f64),
            ("get_by_index_p50_ms", gets.ms(50)),
            ("get_by_index_p99_ms", gets.ms(99)),
            ("attributes_p50_ms", attributes.ms(50)),
            ("attributes_p99_ms", attributes.ms(99)),
            ("watched_per_second", watched),
        ]
        .map(|(key, value)| Figure { key, value })
        .into(),
    })
}

/// How long all puts take together, of which a watcher gets each.
async fn puts_beside_a_watcher(address: SocketAddr, path: &str, puts: usize) -> anyhow::Result<Duration> {
    let watcher = tokio::spawn(watcher(address, path, 100).await?.take(puts));
    let mut wire = Wire::connect(address).await?;
    let put = wire::post(path, AUTHORIZATION, &ITEM);
    let watch = Stopwatch::start();
    for _ in 0..puts {
        wire.expect(200, &put).await?;
    }
    let spent = watch.elapsed();
    watcher.await??;
    Ok(spent)
}

/// The time of this many commits one after the other.
async fn commits(scene: &Scene, count: usize) -> anyhow::Result<Duration> {
    let dir = scene.dir.clone();
    let spent = tokio::task::spawn_blocking(move || {
        let mut disk = Disk::create(&dir)?;
        (0..count)
            .map(|_| disk.commit())
            .sum::<std::io::Result<Duration>>()
    });
    Ok(spent.await??)
}

/// Puts this many, by many callers at once; the least index.
async fn fill(address: SocketAddr, count: usize) -> anyhow::Result<u64> {
    let put: Arc<[u8]> = wire::post(PATH, AUTHORIZATION, &ITEM).into();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let put = put.clone();
        let share = count / CALLERS + usize::from(caller < count % CALLERS);
        callers.spawn(async move {
            let mut wire = Wire::connect(address).await?;
            let mut least = u64::MAX;
            for _ in 0..share {
                wire.expect(200, &put).await?;
                least = least.min(wire.body().parse().context("an index")?);
            }
            anyhow::Ok(least)
        });
    }
    let mut least = u64::MAX;
    while let Some(caller) = callers.join_next().await {
        least = least.min(caller??);
    }
    Ok(least)
}

/// One GET after the other, each of its own path.
async fn reads(address: SocketAddr, scene: &Scene, path: impl Fn(usize) -> String) -> anyhow::Result<Spread> {
    let mut wire = Wire::connect(address).await?;
    let mut took = Vec::new();
    for nth in 0..scene.amount(READS, 10) {
        let request = wire::get_with(&path(nth), AUTHORIZATION);
        let watch = Stopwatch::start();
        wire.expect(200, &request).await?;
        took.push(watch.elapsed());
    }
    Ok(Spread::of(took))
}

/// A watch that is open, over a WebSocket as the SDKs' are.
struct Watcher(tokio_tungstenite::WebSocketStream<tokio_tungstenite::MaybeTlsStream<tokio::net::TcpStream>>);

async fn watcher(address: SocketAddr, path: &str, window: u32) -> anyhow::Result<Watcher> {
    let url = format!("ws://{address}{path}?_watch_=true&_index_=0&_window_={window}&_auto_commit_=true");
    let mut request = url.into_client_request()?;
    for (name, value) in [
        ("authorization", "sk_bench"),
        ("x-eas-queueservice-redis-uid", "bench"),
        ("x-eas-queueservice-redis-gid", "eas"),
    ] {
        request
            .headers_mut()
            .insert(name, value.parse().context("a header")?);
    }
    Ok(Watcher(connect_async(request).await?.0))
}

impl Watcher {
    /// Ends when this many items came.
    async fn take(mut self, count: usize) -> anyhow::Result<()> {
        let mut came = 0;
        while came < count {
            let message = self.0.next().await.context("the watch was closed")??;
            ensure!(!matches!(message, Message::Close(_)), "the watch was closed");
            came += usize::from(message.is_binary());
        }
        Ok(())
    }
}
