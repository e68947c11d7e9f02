//! Small submits while somebody else posts bodies of 32 MB: how much later do they come back?

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{
    echo::Echo,
    report::{Bound, Figure, Report, Verdict},
    requests::{RUN, small_async},
    scene::Scene,
    spread::{Spread, median},
    wire::{self, Wire},
};
use crate::stopwatch::Stopwatch;

const ROUNDS: usize = 5;
const LASTING: Duration = Duration::from_secs(2);
/// Between two small submits.
const PACE: Duration = Duration::from_millis(2);
const BODY_BYTES: usize = 32 << 20;

/// `parked` takes the small jobs and runs none; `default` runs the large ones.
const CONFIG: &str = "[endpoints.default.limits]\nmax_queued = 100000000\n\
                      [endpoints.parked.scaling]\nmax_instances = 0\n\
                      [endpoints.parked.limits]\nmax_queued = 100000000\n";

/// The same bytes as one PNG of one pixel begin.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// Alone, beside large bodies to an echo server (what the traffic itself costs), beside large bodies to us; in turns.
pub async fn measure(scene: &Scene) -> anyhow::Result<Report> {
    let lasting = scene.lasting(LASTING);
    let (server, address) = scene.server(CONFIG).await?;
    let echo = Echo::start()?;
    let size = scene.amount(BODY_BYTES, 1 << 20);
    let small = small_async(&format!("/e/parked{RUN}"));
    let posted = Arc::new(AtomicU64::new(0));
    // Starts the instance and warms everything up.
    LargeBody::new(size, RUN).post(address, None, &posted).await?;
    small_submits(address, &small, lasting / 4).await?;

    let (mut alone, mut beside_echo, mut beside_us) = (vec![], vec![], vec![]);
    for _ in 0..scene.amount(ROUNDS, 1) {
        alone.push(small_submits(address, &small, lasting).await?);
        for (peer, path, rounds, count) in [
            (
                echo.address,
                "/swallow",
                &mut beside_echo,
                &AtomicU64::new(0).into(),
            ),
            (address, RUN, &mut beside_us, &posted),
        ] {
            let stop = Arc::new(AtomicBool::new(false));
            let (body, count, stopped) = (LargeBody::new(size, path), Arc::clone(count), stop.clone());
            let posting = tokio::spawn(async move { body.post(peer, Some(stopped), &count).await });
            rounds.push(small_submits(address, &small, lasting).await?);
            stop.store(true, Ordering::Release);
            posting.await??;
        }
    }
    server.stop().await;
    drop(echo);

    let maxima = |rounds: &[Vec<Duration>]| {
        median(
            rounds
                .iter()
                .map(|round| Spread::of(round.clone()).ms(100))
                .collect(),
        )
    };
    let (most_alone, most_echo, most_us) = (maxima(&alone), maxima(&beside_echo), maxima(&beside_us));
    let [alone, beside_echo, beside_us] =
        [alone, beside_echo, beside_us].map(|rounds| Spread::of(rounds.concat()));
    Ok(Report {
        scenario: "large",
        how: "one caller of small async submits every 2 ms; at the same time another posts 32 MB bodies (an image in \
              base64, each another one) one after the other, in turns with nobody and with an echo server that takes \
              the same bodies",
        verdict: Verdict {
            what: "p99 of small submits later than alone",
            value: beside_us.ms(99) - alone.ms(99),
            unit: "ms",
            target: 5.0,
            bound: Bound::AtMost,
            baseline: beside_echo.ms(99) - alone.ms(99),
            baseline_is: "the same beside the echo server",
        },
        figures: [
            ("large_bodies", posted.load(Ordering::Acquire) as f64),
            ("body_mb", size as f64 / f64::from(1 << 20)),
            ("alone_p50_ms", alone.ms(50)),
            ("alone_p99_ms", alone.ms(99)),
            ("alone_median_of_maxima_ms", most_alone),
            ("beside_echo_p50_ms", beside_echo.ms(50)),
            ("beside_echo_p99_ms", beside_echo.ms(99)),
            ("beside_echo_median_of_maxima_ms", most_echo),
            ("beside_large_p50_ms", beside_us.ms(50)),
            ("beside_large_p99_ms", beside_us.ms(99)),
            ("beside_large_median_of_maxima_ms", most_us),
        ]
        .map(|(key, value)| Figure { key, value })
        .into(),
    })
}

async fn small_submits(
    address: SocketAddr,
    request: &[u8],
    lasting: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let mut wire = Wire::connect(address).await?;
    let watch = Stopwatch::start();
    let mut took = Vec::new();
    while watch.elapsed() < lasting {
        let begun = watch.elapsed();
        wire.expect(202, request).await?;
        took.push(watch.elapsed() - begun);
        tokio::time::sleep(PACE).await;
    }
    Ok(took)
}

/// A request whose body is a graph with a large picture in it. Behind the picture's end stand bytes that no decoder
/// reads, so that the size costs the server and not the engine; some of them change, so that no two are the same file.
struct LargeBody {
    request: Vec<u8>,
    changing: usize,
}

impl LargeBody {
    fn new(size: usize, path: &str) -> Self {
        let graph = json!({
            "1": {"class_type": "LoadImage", "inputs": {"image": "@"}},
            "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        })
        .to_string();
        let mut picture = STANDARD.decode(PIXEL).expect("the constant is base64");
        picture.resize(picture.len().next_multiple_of(3), 0);
        let mut encoded = STANDARD.encode(picture);
        let filler = size.saturating_sub(graph.len() + encoded.len()) / 4 * 4;
        encoded.extend(std::iter::repeat_n('A', filler));
        let body = graph.replace('@', &encoded);
        let request = wire::post(path, "", body.as_bytes());
        let changing = request.len() - body.len() + graph.find('@').unwrap_or(0) + encoded.len() - 16;
        LargeBody { request, changing }
    }

    /// Posts it again and again until told to stop; without anybody to tell, once.
    async fn post(
        mut self,
        address: SocketAddr,
        stop: Option<Arc<AtomicBool>>,
        posted: &AtomicU64,
    ) -> anyhow::Result<()> {
        let mut wire = Wire::connect(address).await?;
        loop {
            let number = format!("{:016}", posted.fetch_add(1, Ordering::AcqRel));
            self.request[self.changing..self.changing + 16].copy_from_slice(number.as_bytes());
            wire.expect(200, &self.request).await?;
            if stop.as_ref().is_none_or(|stop| stop.load(Ordering::Acquire)) {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_body_is_a_graph_whose_picture_changes_and_stays_base64() {
        let mut body = LargeBody::new(10_000, "/x");
        let text = |body: &LargeBody| String::from_utf8(body.request.clone()).unwrap();
        let before = text(&body);
        body.request[body.changing..body.changing + 16].copy_from_slice(b"0000000000000042");
        for request in [before, text(&body)] {
            let (_, json) = request.split_once("\r\n\r\n").unwrap();
            assert!((9_900..=10_000).contains(&json.len()), "{}", json.len());
            let graph: serde_json::Value = serde_json::from_str(json).unwrap();
            let picture = graph["1"]["inputs"]["image"].as_str().unwrap();
            assert!(STANDARD.decode(picture).unwrap().starts_with(b"\x89PNG"));
        }
    }
}
