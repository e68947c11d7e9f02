//! ComfyUI's own HTTP API and WebSocket over an endpoint's instances (`protocols/comfyui-multi-instance.md`,
//! `comfyui/behaviour.md`).
//!
//! Whoever talks to one ComfyUI talks here to a durable queue with many behind it: what ComfyUI keeps in its memory is
//! answered from the store, and nothing here wakes an instance but a prompt. Every route exists below the root and below
//! `/api`, each once more below `/e/{endpoint}`.

use axum::{Router, extract::DefaultBodyLimit, routing::get};

use crate::state::AppState;

mod call;
mod error;
mod exec_info;

/// The routes, below the root or below `/e/{endpoint}`.
pub fn routes() -> Router<AppState> {
    let both = jobs();
    Router::new()
        .merge(both.clone())
        .nest("/api", both)
        // Handlers measure by themselves, so that their refusals have the protocol's shape.
        .layer(DefaultBodyLimit::disable())
}

/// The queue, its history, and its events.
fn jobs() -> Router<AppState> {
    Router::new().route("/prompt", get(exec_info::handler))
}
