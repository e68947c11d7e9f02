//! Function Compute's "ComfyUI Serverless API" (`protocols/comfyui-serverless-fc.md`).
//!
//! `run` takes a bare workflow and answers in one of four ways: a JSON body, server-sent events, `202` now and events
//! later through `status`, or a WebSocket. All four show the same messages ([`messages`]) and the same last one
//! ([`result`]).

use axum::{
    Router,
    extract::DefaultBodyLimit,
    routing::{any, get, post},
};

use crate::state::AppState;

mod call;
mod error;
mod messages;
mod reader;
mod request;
mod result;
mod run;
mod status;
mod tasks;
mod ws;

/// The external-id namespace of this protocol's task ids.
const DIALECT: &str = "fc_task";

/// Largest body of `run`, in bytes: the vendor's bound for synchronous calls.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// Largest body of an asynchronous `run` when `vendor_limits` is on, in bytes.
const MAX_ASYNC_BODY_BYTES: usize = 128 * 1024;

/// The routes, below the root or below `/e/{endpoint}`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/api/serverless/run", post(run::handler))
        .route("/api/serverless/ws", any(ws::handler))
        .route("/api/serverless/status", get(status::handler))
        .route("/api/serverless/task/{task_id}", get(tasks::show))
        .route("/api/serverless/tasks", get(tasks::list))
        // The handler measures by itself, so that its refusal has the protocol's shape.
        .layer(DefaultBodyLimit::disable())
}
