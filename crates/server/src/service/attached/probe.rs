//! Asking a box what it is before it is attached: that it is a ComfyUI, what it has, and that a tiny graph runs there.

use std::time::Duration;

use darkroom_comfy::{
    client::{Client, ClientConfig, Error, facts::Facts},
    object_info::ObjectInfo,
};
use darkroom_core::Ids;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::service::models;

/// For one answer.
const ANSWER: Duration = Duration::from_secs(20);
/// For the tiny graph: other people's prompts may run before it.
const RUN: Duration = Duration::from_secs(120);

/// What was found.
pub(super) struct Probed {
    /// `/object_info` as it was told.
    pub object_info: Vec<u8>,
    /// What it told of itself beside that.
    pub facts: Facts,
    /// For the operator: versions, devices, numbers of nodes and models, how long the graph took.
    pub told: Value,
}

/// Probes the server at a URL, until it is done or the caller has `left`.
///
/// # Errors
/// What is wrong with it, in words.
pub(super) async fn server(url: &str, ids: &dyn Ids, left: &CancellationToken) -> Result<Probed, String> {
    let base = url.parse().map_err(|_| format!("'{url}' is no URL"))?;
    let mut config = ClientConfig::new(base);
    config.timeouts.request = ANSWER;
    let client = Client::new(config).map_err(|error| error.to_string())?;
    let no_comfyui = || format!("{url} answers, but not as a ComfyUI does; is it the address of its page?");
    let facts = Facts::of(&client, models::is_offered_by_a_loader)
        .await
        .map_err(|error| why(url, &error))?;
    let stats = &facts.system_stats;
    if !stats["system"].is_object() {
        return Err(no_comfyui());
    }
    let told = client
        .told(&["object_info"])
        .await
        .map_err(|error| why(url, &error))?;
    let told = told.ok_or_else(no_comfyui)?;
    let object_info = told.to_string().into_bytes();
    let info = ObjectInfo::parse(told).map_err(|_| no_comfyui())?;
    if info.classes.is_empty() {
        return Err(format!("{url} is a ComfyUI without a single node class"));
    }
    let took = run(&client, &info, ids, left)
        .await
        .map_err(|why| format!("{url} is a ComfyUI, but {why}"))?;
    let told = json!({
        "version": stats["system"]["comfyui_version"],
        "python": stats["system"]["python_version"],
        "pytorch": stats["system"]["pytorch_version"],
        "devices": stats["devices"],
        "nodes": info.classes.len(),
        "models": models::counted(&info),
        "tested_ms": took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX)),
    });
    Ok(Probed {
        object_info,
        facts,
        told,
    })
}

fn why(url: &str, error: &Error) -> String {
    match error {
        Error::Refused { .. } => format!("nothing listens at {url}: is it running, and is the port right?"),
        Error::Timeout { .. } => format!("{url} accepts connections but does not answer"),
        Error::Status {
            status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN,
            ..
        } => format!("{url} wants a key: put it into the configuration, with its `header` (docs/boxes.md)"),
        Error::Status { .. } | Error::Unreadable { .. } | Error::TooLarge { .. } => {
            format!("{url} answers, but not as a ComfyUI does ({error})")
        }
        _ => format!("{url} cannot be used: {error}"),
    }
}

/// Runs a graph of a few pixels; how long it took, or `None` where it has no nodes for one.
async fn run(
    client: &Client,
    info: &ObjectInfo,
    ids: &dyn Ids,
    left: &CancellationToken,
) -> Result<Option<Duration>, String> {
    if ["EmptyImage", "PreviewImage"]
        .iter()
        .any(|class| info.get(class).is_none())
    {
        return Ok(None);
    }
    let id = darkroom_core::JobId::new(ids).to_string();
    let graph = json!({
        "1": {"class_type": "EmptyImage", "inputs": {"width": 16, "height": 16, "batch_size": 1, "color": 0}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    });
    let began = Instant::now();
    let ran = tokio::select! {
        ran = client.run(&graph, &id) => Some(ran),
        () = sleep(RUN) => None,
        () = left.cancelled() => None,
    };
    let Some(ran) = ran else {
        // Nobody waits for it any more. What runs is not interrupted: it may be somebody else's.
        let _ = client.delete_queued(&[&id]).await;
        return Err(format!(
            "a tiny graph did not run within {} s: it is busy with other prompts, or its worker is dead",
            RUN.as_secs()
        ));
    };
    match ran
        .map_err(|error| format!("a tiny graph could not be run: {error}"))?
        .succeeded()
    {
        Some(false) => Err("a tiny graph failed there; its log tells why".to_owned()),
        Some(true) | None => Ok(Some(began.elapsed())),
    }
}
