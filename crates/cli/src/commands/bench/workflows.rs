//! Published workflows: what a call costs beyond the same graph posted natively, a publish of a large graph, and the check of a
//! signed request.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use darkroom_core::Timestamp;
use darkroom_server::auth::signed::{BodyDigest, Nonces, Signed};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

use super::{
    report::{Bound, Figure, Report, Verdict},
    requests::trivial,
    scene::Scene,
    spread::{Spread, in_ms},
    submits::PARKED,
    wire::{self, Wire},
};
use crate::stopwatch::Stopwatch;

const CALLS: usize = 2_000;
const PUBLISHES: usize = 40;
const NODES: usize = 300;
const CHECKS: u32 = 20_000;

/// Native prompts and calls in turns, so that whatever else the machine does meets both.
pub async fn measure(scene: &Scene) -> anyhow::Result<Report> {
    let (server, address) = scene.server(PARKED).await?;
    let small = publication("small", &trivial());
    let publish = |body: &Value| wire::post("/darkroom/v1/workflows", JSON, body.to_string().as_bytes());
    let mut wire = Wire::connect(address).await?;
    wire.expect(201, &publish(&small)).await?;
    let large = publication("large", &chain(NODES));
    let published = repeated(address, scene.amount(PUBLISHES, 2), 201, &publish(&large)).await?;
    let call = json!({"inputs": {"colour": 7}}).to_string();
    let call = wire::post(
        "/darkroom/v1/workflows/small/run?mode=async",
        JSON,
        call.as_bytes(),
    );
    let native = json!({"prompt": trivial()}).to_string();
    let native = wire::post("/prompt", JSON, native.as_bytes());
    let (mut calls, mut natives) = (Vec::new(), Vec::new());
    let watch = Stopwatch::start();
    for _ in 0..scene.amount(CALLS, 20) {
        for (request, status, took) in [(&native, 200, &mut natives), (&call, 202, &mut calls)] {
            let begun = watch.elapsed();
            wire.expect(status, request).await?;
            took.push(watch.elapsed() - begun);
        }
    }
    server.stop().await;
    let check = signature_check(scene.amount(CHECKS, 100))?;
    let (calls, natives) = (Spread::of(calls), Spread::of(natives));
    Ok(Report {
        scenario: "workflows",
        how: "one caller, nothing runs: a typed call answered 202 and the same graph posted to /prompt, in turns; publishes of a \
              graph of 300 nodes; signature checks in this process",
        verdict: Verdict {
            what: "a call beyond /prompt, p50",
            value: calls.ms(50) - natives.ms(50),
            unit: "ms",
            target: 0.5,
            bound: Bound::AtMost,
            baseline: natives.ms(50),
            baseline_is: "/prompt p50",
        },
        figures: [
            ("call_p50_ms", calls.ms(50)),
            ("call_p99_ms", calls.ms(99)),
            ("prompt_p50_ms", natives.ms(50)),
            ("prompt_p99_ms", natives.ms(99)),
            ("publish_300_nodes_p50_ms", published.ms(50)),
            ("publish_300_nodes_max_ms", published.ms(100)),
            ("signature_check_us", in_ms(check) * 1000.0),
        ]
        .map(|(key, value)| Figure { key, value })
        .into(),
    })
}

const JSON: &str = "Content-Type: application/json\r\n";

fn publication(id: &str, graph: &Value) -> Value {
    json!({
        "workflow_id": id, "graph": graph,
        "inputs": [{"name": "colour", "node": "1", "field": "color"}],
        "outputs": [{"name": "images", "node": "2"}],
    })
}

/// A picture that is inverted over and over, then saved.
fn chain(nodes: usize) -> Value {
    let mut graph = trivial();
    let mut last = "1".to_owned();
    for n in 0..nodes - 2 {
        let id = format!("n{n}");
        graph[&id] = json!({"class_type": "ImageInvert", "inputs": {"image": [last, 0]}, "_meta": {"title": "Invert Image"}});
        last = id;
    }
    graph["2"]["inputs"]["images"] = json!([last, 0]);
    graph
}

async fn repeated(address: SocketAddr, times: usize, status: u16, request: &[u8]) -> anyhow::Result<Spread> {
    let mut wire = Wire::connect(address).await?;
    let watch = Stopwatch::start();
    let mut took = Vec::new();
    for _ in 0..times {
        let begun = watch.elapsed();
        wire.expect(status, request).await?;
        took.push(watch.elapsed() - begun);
    }
    Ok(Spread::of(took))
}

/// The mean of checking one request, whose signature is one of the reference's golden ones.
fn signature_check(times: u32) -> anyhow::Result<Duration> {
    let headers: HeaderMap = [
        ("accept", "application/json; charset=utf-8"),
        ("content-type", "application/json; charset=utf-8"),
        ("content-md5", "9129tvZRndBXL+i9MtJ2SQ=="),
        ("date", "Fri, 20 Nov 2026 17:15:54 GMT+00:00"),
        ("x-ca-key", "ak1"),
        ("x-ca-nonce", "7c47544a-3caa-42c0-8a69-9edfc2d6b99a"),
        ("x-ca-timestamp", "1795194954841"),
        ("x-ca-signature-method", "HmacSHA256"),
        (
            "x-ca-signature-headers",
            "x-ca-timestamp,x-ca-key,x-ca-nonce,x-ca-signature-method",
        ),
        ("x-ca-signature", "dUgrOwNBnGgkLQNF3Rl3pzhW0SKfHdJTtwgH6o3sM0s="),
    ]
    .into_iter()
    .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
    .collect();
    let now = Timestamp::from_millis(1_795_194_954_841);
    let watch = Stopwatch::start();
    for _ in 0..times {
        let signed = Signed {
            method: "POST",
            path: "/scc/comfy_get_progress",
            query: None,
            headers: &headers,
        };
        let nonces = Nonces::default();
        let verified = signed.verify("s3cr3t", &nonces, now, "");
        let verified = verified.context("the golden request verifies")?;
        verified.check_body(br#"{"taskId":"t_1"}"#, BodyDigest::Tolerant)?;
        nonces.take(&verified.nonce, now)?;
    }
    Ok(watch.elapsed() / times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_request_verifies_and_the_large_graph_is_large() {
        assert!(signature_check(1).is_ok());
        assert_eq!(chain(300).as_object().map(serde_json::Map::len), Some(300));
    }
}
