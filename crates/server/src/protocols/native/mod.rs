//! ComfyUI's own HTTP API and WebSocket over an endpoint's instances (`protocols/comfyui-multi-instance.md`,
//! `comfyui/behaviour.md`).
//!
//! Whoever talks to one ComfyUI talks here to a durable queue with many behind it: what ComfyUI keeps in its memory is
//! answered from the store, and nothing here wakes an instance but a prompt. Every route exists below the root and below
//! `/api`, each once more below `/e/{endpoint}`.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use http::header;

use crate::state::AppState;

mod body;
mod call;
mod entry;
mod error;
mod exec_info;
mod files;
mod history;
mod ids;
mod internal;
mod interrupt;
mod job_query;
mod job_view;
mod jobs;
mod messages;
mod models;
mod object_info;
mod page;
mod prompt;
mod queue;
mod settings;
mod streamed;
mod system;
mod upload;
mod userdata;
mod view;
mod ws;

/// The routes, below the root or below `/e/{endpoint}`.
pub fn routes() -> Router<AppState> {
    let both = prompts().merge(files::both());
    Router::new()
        .merge(both.clone())
        .merge(files::internal())
        .nest("/api", both.merge(jobs()))
        // Handlers measure by themselves, so that their refusals have the protocol's shape.
        .layer(DefaultBodyLimit::disable())
}

/// The same below the address of a PAI-EAS service, for programs of its editions without a queue: `POST {base}prompt`,
/// `GET {base}history/{id}` (`protocols/eas-queue.md` §6). Their other addresses, a host's root or `/e/{endpoint}/`, are
/// those of everybody.
pub fn service_routes() -> Router<AppState> {
    Router::new()
        .nest("/api/predict/{service}", prompts().merge(files::both()))
        .layer(DefaultBodyLimit::disable())
}

/// The page of every endpoint, below `/e/{endpoint}/`.
pub fn page() -> Router<AppState> {
    page::routes()
}

/// The queue, its history, and its events.
fn prompts() -> Router<AppState> {
    Router::new()
        .route("/prompt", get(exec_info::handler).post(prompt::handler))
        .route("/queue", get(queue::show).post(queue::change))
        .route("/interrupt", post(interrupt::handler))
        .route("/history", get(history::list).post(history::change))
        .route("/history/{prompt_id}", get(history::show))
        .route("/ws", get(ws::handler))
}

/// The newer list; below `/api` alone.
fn jobs() -> Router<AppState> {
    Router::new()
        .route("/jobs", get(jobs::list))
        .route("/jobs/cancel", post(jobs::cancel_many))
        .route("/jobs/{job_id}", get(jobs::show))
        .route("/jobs/{job_id}/cancel", post(jobs::cancel))
}

/// An answer that is JSON already.
fn json_response(json: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], json).into_response()
}
