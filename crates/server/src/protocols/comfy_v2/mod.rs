//! Comfy API v2 (`protocols/comfy-v2.md`): the neutral protocol of Comfy's own SDKs, over an endpoint's instances.
//!
//! A program takes a base address and nothing else: the root, or `/e/{endpoint}`, in front of `/api/v2`. Its jobs are those of
//! every other protocol; their ids are the prompt ids of ComfyUI's own API.

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{MethodRouter, any, get, head, post},
};

use crate::state::AppState;

mod assets;
mod body;
mod call;
mod cancel;
mod cursor;
mod error;
mod events;
mod found;
mod health;
mod ids;
mod labels;
mod list;
mod nowhere;
mod outputs;
mod query;
mod references;
mod show;
mod submit;
mod time;
mod view;
mod workflow;

/// The routes, below the root or below `/e/{endpoint}`.
pub fn routes() -> Router<AppState> {
    let routes = Router::new()
        .route("/health", only(get(health::handler)))
        .route("/jobs", only(get(list::handler).post(submit::handler)))
        .route("/jobs/{id}", only(get(show::handler)))
        .route("/jobs/{id}/workflow", only(get(workflow::handler)))
        .route("/jobs/{id}/events", only(get(events::handler)))
        .route("/jobs/{id}/cancel", only(post(cancel::handler)))
        .route("/assets", only(post(assets::upload::handler)))
        .route("/assets/from-hash", only(post(assets::from_hash::handler)))
        .route("/assets/by-hash/{hash}", only(head(assets::by_hash::handler)))
        .route(
            "/assets/{id}",
            only(get(assets::show::handler).delete(assets::remove::handler)),
        )
        .route("/assets/{id}/content", only(get(assets::content::handler)))
        .route("/{*unknown}", any(nowhere::no_route))
        // Handlers measure by themselves, so that their refusals have the protocol's shape.
        .layer(DefaultBodyLimit::disable());
    Router::new().nest("/api/v2", routes)
}

/// Other methods are refused in the protocol's shape.
fn only(methods: MethodRouter<AppState>) -> MethodRouter<AppState> {
    methods.fallback(nowhere::no_method)
}
