//! What the machine is, and the lists that are empty on an engine without models.

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde_json::{Value, json};

use super::Shared;

/// The version whose behaviour is repeated.
const COMFYUI_VERSION: &str = "0.3.64";

const MODEL_FOLDERS: [&str; 20] = [
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
    "custom_nodes",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
];

/// `GET /system_stats`: one device, the processor. No paths of the machine.
pub async fn stats() -> Json<Value> {
    let memory = tokio::task::spawn_blocking(memory).await.unwrap_or_default();
    Json(json!({
        "system": {
            "os": "posix",
            "ram_total": memory.total,
            "ram_free": memory.free,
            "comfyui_version": COMFYUI_VERSION,
            "required_frontend_version": null,
            "installed_templates_version": null,
            "required_templates_version": null,
            "python_version": concat!("none (darkroom engine ", env!("CARGO_PKG_VERSION"), ")"),
            "pytorch_version": "none",
            "embedded_python": false,
            "argv": ["darkroom", "engine"],
        },
        "devices": [{
            "name": "cpu", "type": "cpu", "index": null, "vram_total": memory.total, "vram_free": memory.free,
            "torch_vram_total": memory.total, "torch_vram_free": memory.free,
        }],
    }))
}

/// `GET /features`: also the answer to a client's `feature_flags`.
pub async fn features(State(engine): Shared) -> Json<Value> {
    Json(feature_flags(engine.max_upload_bytes))
}

/// What this server can do.
pub fn feature_flags(max_upload_bytes: usize) -> Value {
    json!({"supports_preview_metadata": true, "max_upload_size": max_upload_bytes})
}

/// `GET /models`
pub async fn model_folders() -> Json<[&'static str; 20]> {
    Json(MODEL_FOLDERS)
}

/// `GET /models/{folder}`: known folders are empty.
pub async fn models(Path(folder): Path<String>) -> Result<Json<[(); 0]>, StatusCode> {
    if MODEL_FOLDERS.contains(&folder.as_str()) {
        Ok(Json([]))
    } else {
        Err(StatusCode::NOT_FOUND)
    }
}

/// An empty list.
pub async fn no_names() -> Json<[(); 0]> {
    Json([])
}

/// An empty object.
pub async fn nothing() -> Json<Value> {
    Json(json!({}))
}

/// An empty text: the engine's log goes to its standard error only.
pub async fn no_logs() -> Json<&'static str> {
    Json("")
}

#[derive(Default)]
struct Memory {
    total: u64,
    free: u64,
}

/// Bytes of memory; zero where the system has no `/proc/meminfo`.
fn memory() -> Memory {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = |name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.split_whitespace().next())
            .and_then(|n| n.parse().ok())
            .unwrap_or(0)
    };
    Memory {
        total: kilobytes("MemTotal:") << 10,
        free: kilobytes("MemAvailable:") << 10,
    }
}
