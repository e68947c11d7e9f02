//! How long a progress message takes from the instance to its client, with many clients connected: a way between server and
//! instance notes when each passes, and the client when it arrives.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context;
use darkroom_comfy::{client::Incoming, wire::Body};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::{
    engine::{Conversation, Engine},
    report::{Bound, Figure, Report, Verdict},
    scene::Scene,
    spread::Spread,
};
use crate::stopwatch::Stopwatch;

const CLIENTS: usize = 50;
const STEPS: u32 = 1_000;
/// A sampler's pace: a hundred steps a second.
const STEP: Duration = Duration::from_millis(10);

/// When each value passed, since the stopwatch started.
type Passed = Arc<Mutex<BTreeMap<u32, Duration>>>;

/// One prompt tells its progress to its client, while the others are connected too.
pub async fn measure(scene: &Scene) -> anyhow::Result<Report> {
    let engine = Engine::start(scene, &["--test-nodes"]).await?;
    let (watch, passed) = (Stopwatch::start(), Passed::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let way = format!("http://{}", listener.local_addr()?);
    // Ends, and all it carries with it, when this is over.
    let mut ways = JoinSet::new();
    ways.spawn({
        let (target, passed) = (engine.address().to_owned(), passed.clone());
        async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(carry(client, target.clone(), watch, passed.clone()));
            }
        }
    });
    let config = format!("[endpoints.default]\nbackend = \"remote\"\nurls = [\"{way}\"]\n");
    let (server, _) = scene.server(&config).await?;
    let clients = scene.amount(CLIENTS, 3);
    let mut others = Vec::new();
    for _ in 1..clients {
        others.push(Conversation::with(server.url()).await?);
    }
    let mut listening = JoinSet::new();
    for mut other in others {
        listening.spawn(async move { while let Ok(Some(_)) = other.socket.next().await {} });
    }
    let steps = scene.amount(STEPS, 20);
    let seconds = (STEP * steps).as_secs_f64();
    let graph = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 255}},
        "5": {"class_type": "TestSleep", "inputs": {"image": ["1", 0], "seconds": seconds, "steps": steps, "seed": "bench"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "bench"}},
    });
    let mut own = Conversation::with(server.url()).await?;
    let prompt_id = own.post(&graph).await?;
    let mut arrived = BTreeMap::new();
    loop {
        let incoming = own.socket.next().await?.context("the server closed its socket")?;
        let Incoming::Message(message) = incoming else {
            continue;
        };
        match message.body() {
            // Whole numbers of steps.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            Body::Progress { value, .. } => {
                arrived.entry(*value as u32).or_insert_with(|| watch.elapsed());
            }
            Body::Executing {
                node: None,
                prompt_id: Some(id),
                ..
            } if *id == prompt_id => break,
            Body::ExecutionError(error) => anyhow::bail!("the engine failed: {error:?}"),
            _ => {}
        }
    }
    listening.abort_all();
    server.stop().await;
    let passed = passed.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let took: Vec<Duration> = arrived
        .iter()
        .filter_map(|(value, at)| Some(at.saturating_sub(*passed.get(value)?)))
        .collect();
    let seen = took.len() as f64;
    let took = Spread::of(took);
    Ok(Report {
        scenario: "progress",
        how: "a node that tells its progress a hundred times a second; from the message's passing a way before the instance to its \
              arrival at the client, over the server, with that many clients connected",
        verdict: Verdict {
            what: "p99 from instance to client",
            value: took.ms(99),
            unit: "ms",
            target: 5.0,
            bound: Bound::AtMost,
            baseline: took.ms(50),
            baseline_is: "p50 of the same",
        },
        figures: [
            ("clients", clients as f64),
            ("steps", f64::from(steps)),
            ("messages_seen", seen),
            ("p50_ms", took.ms(50)),
            ("p99_ms", took.ms(99)),
            ("max_ms", took.ms(100)),
        ]
        .map(|(key, value)| Figure { key, value })
        .into(),
    })
}

/// Copies both ways; of what the instance says it notes when each progress value was first there.
async fn carry(mut client: TcpStream, target: String, watch: Stopwatch, passed: Passed) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let said = async {
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = match from_server.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(read) => read,
            };
            let at = watch.elapsed();
            for value in values(&buffer[..read]) {
                let mut passed = passed.lock().unwrap_or_else(PoisonError::into_inner);
                passed.entry(value).or_insert(at);
            }
            if to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = said => {}
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
    }
}

/// Values of the progress messages in what was read: a server's frames are not masked.
fn values(bytes: &[u8]) -> Vec<u32> {
    let text = String::from_utf8_lossy(bytes);
    let messages = text.split("\"type\"").skip(1);
    messages
        .filter(|message| {
            let kind = message.trim_start_matches([':', ' ']);
            kind.starts_with("\"progress\"")
        })
        .filter_map(|message| {
            let (_, value) = message.split_once("\"value\"")?;
            let value = value.trim_start_matches([':', ' ']);
            let digits: String = value.chars().take_while(char::is_ascii_digit).collect();
            digits.parse().ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_in_frames_and_in_no_other_message() {
        let said = b"\x81\x7e\x00\x50{\"type\":\"progress\",\"data\":{\"value\":7,\"max\":20}}\x81\x10{\"type\": \"progress_state\", \
                     \"data\": {\"nodes\": {\"5\": {\"value\": 8}}}}\x81\x10{\"type\": \"progress\", \"data\": {\"node\": \"5\", \"value\": 12.0}}";
        assert_eq!(values(said), [7, 12]);
    }
}
