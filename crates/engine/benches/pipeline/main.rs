//! The picture pipeline, phase by phase, on the engine and (where `COMFYUI_DIR` names a checkout) on the real ComfyUI in
//! turn: load 1024 x 1024, scale to 2048 x 2048 by Lanczos, blur, blend, save as PNG. Every run has an input of its own, so
//! no cache helps. Both are asked over HTTP and watched over the WebSocket, so both pay for the same things.
//!
//! `cargo bench -p darkroom-engine --bench pipeline`; `COMFYUI_PYTHON` names the interpreter (else `python3`), `ROUNDS` how
//! many runs each gets (else 7), `BLUR_RADIUS` the blur (else 5).

mod client;
mod input;
mod report;
mod server;

use std::{env, path::PathBuf};

use serde_json::{Value, json};

use client::Client;
use report::{PHASES, Sample};
use server::Server;

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    if let Some(at) = arguments.iter().position(|argument| argument == "--serve") {
        runtime.block_on(server::serve_engine(&arguments[at + 1..]));
    } else {
        runtime.block_on(measure());
    }
}

async fn measure() {
    let rounds = number("ROUNDS", 7);
    let radius = number("BLUR_RADIUS", 5);
    let mut servers = vec![Server::engine()];
    match env::var_os("COMFYUI_DIR").filter(|directory| !directory.is_empty()) {
        Some(directory) => servers.push(Server::comfyui(&PathBuf::from(directory))),
        None => eprintln!("SKIPPED the comparison: COMFYUI_DIR names no ComfyUI checkout"),
    }
    let mut clients = Vec::new();
    for server in &servers {
        clients.push(Client::connect(server).await);
    }
    let idle: Vec<u64> = servers
        .iter()
        .map(|server| server.resident_bytes().unwrap_or(0))
        .collect();
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); servers.len()];
    // Round 0 warms what is not of this picture: allocators, thread pools, lazy imports.
    for round in 0..=rounds {
        let mut pictures = Vec::new();
        for (at, server) in servers.iter().enumerate() {
            input::write(&server.input_file("input.png"), round);
            server.reset_peak();
            let run = clients[at].run(&graph(radius)).await;
            let peak = server.peak_bytes().map(|peak| peak.saturating_sub(idle[at]));
            pictures.push(std::fs::read(server.output_file(&run.file)).expect("the saved file"));
            if round > 0 {
                samples[at].push(Sample {
                    phases: run.phases,
                    png_bytes: pictures[at].len(),
                    peak_bytes: peak,
                });
            }
        }
        report::same_pixels(round, &pictures);
    }
    let names: Vec<&str> = servers.iter().map(Server::name).collect();
    report::print(radius, &names, &samples);
}

/// The nodes are named by their phases.
fn graph(radius: usize) -> Value {
    let [load, scale, blur, blend, save] = PHASES;
    json!({
        load: {"class_type": "LoadImage", "inputs": {"image": "input.png"}},
        scale: {"class_type": "ImageScale", "inputs": {
            "image": [load, 0], "upscale_method": "lanczos", "width": 2048, "height": 2048, "crop": "disabled"}},
        blur: {"class_type": "ImageBlur", "inputs": {"image": [scale, 0], "blur_radius": radius, "sigma": 1.0}},
        blend: {"class_type": "ImageBlend", "inputs": {
            "image1": [scale, 0], "image2": [blur, 0], "blend_factor": 0.5, "blend_mode": "soft_light"}},
        save: {"class_type": "SaveImage", "inputs": {"images": [blend, 0], "filename_prefix": "bench"}},
    })
}

fn number(name: &str, default: usize) -> usize {
    env::var(name).map_or(default, |text| {
        text.parse()
            .unwrap_or_else(|_| panic!("{name}={text}: not a number"))
    })
}
