//! Our own API, `/darkroom/v1`: JSON, additive only. The CLI and the pages use nothing else.

use axum::{
    Router,
    routing::{delete, get, post, put},
};

use crate::state::AppState;

mod agent;
mod asset_uploads;
mod assets;
mod body;
mod boxes;
pub mod call;
mod connect;
mod endpoints;
mod error;
mod events;
mod facts;
mod inputs;
mod instances;
mod jobs;
mod keys;
mod line;
mod links;
mod outputs_zip;
mod page;
mod queues;
mod storage;
mod uploads;
mod views;
mod webhooks;
mod workflows;

pub use webhooks::status_body;

/// Largest body of a submit, in bytes: a workflow with its images inline.
const MAX_BODY_BYTES: usize = 128 * 1024 * 1024;

/// The routes.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/version", get(version))
        .route("/endpoints", get(endpoints::list))
        .route("/endpoints/{endpoint}", get(endpoints::show))
        .route("/endpoints/{endpoint}/decisions", get(endpoints::decisions))
        .route("/endpoints/{endpoint}/jobs", post(jobs::submit))
        .route(
            "/endpoints/{endpoint}/boxes",
            get(boxes::list).post(boxes::attach),
        )
        .route("/endpoints/{endpoint}/check", post(boxes::check))
        .route("/detach", post(boxes::detach))
        .route("/endpoints/{endpoint}/connect", get(connect::show))
        .route("/endpoints/{endpoint}/pause", post(line::pause))
        .route("/endpoints/{endpoint}/resume", post(line::resume))
        .route("/endpoints/{endpoint}/clear", post(line::clear))
        .route("/endpoints/{endpoint}/inputs", get(inputs::list))
        .route(
            "/endpoints/{endpoint}/inputs/{*name}",
            put(inputs::upload).delete(inputs::remove),
        )
        .route("/jobs", get(jobs::list))
        .route("/jobs/{job}", get(jobs::show).delete(jobs::delete))
        .route("/jobs/{job}/cancel", post(jobs::cancel))
        .route("/jobs/{job}/retry", post(jobs::retry))
        .route("/jobs/{job}/move", post(line::move_job))
        .route("/jobs/{job}/outputs.zip", get(outputs_zip::send))
        .route("/jobs/{job}/events", get(events::stream))
        .route("/jobs/{job}/webhooks", get(webhooks::show))
        .route("/jobs/{job}/webhooks/redeliver", post(webhooks::redeliver))
        .route("/webhooks/secret", get(webhooks::secret))
        .route("/instances", get(instances::list))
        .route("/instances/{instance}", get(instances::show))
        .route("/instances/{instance}/logs", get(instances::logs))
        .route("/links", post(links::create))
        .route("/queues", get(queues::list))
        .route("/queues/{endpoint}/{side}", get(queues::show))
        .route("/queues/{endpoint}/{side}/reopen", post(queues::reopen))
        .route("/storage", get(storage::show))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{name}", delete(keys::revoke))
        .route("/assets", get(assets::list).post(assets::create))
        .route("/assets/from-hash", post(assets::mint))
        .route("/assets/by-hash/{hash}", get(assets::exists))
        .route("/assets/uploads", post(asset_uploads::begin))
        .route(
            "/assets/uploads/{upload}",
            get(asset_uploads::show)
                .put(asset_uploads::resume)
                .delete(asset_uploads::forget),
        )
        .route("/assets/uploads/{upload}/complete", post(asset_uploads::complete))
        .route("/assets/{asset}", get(assets::show).delete(assets::remove))
        .route("/assets/{asset}/content", get(assets::content))
        .route("/assets/{asset}/keep", post(assets::keep))
        .route("/uploads", post(uploads::sign))
        .route("/uploads/{*name}", put(uploads::put).get(uploads::get))
        .nest("/workflows", workflows::routes())
        .nest("/agent", agent::routes())
        .layer(axum::extract::DefaultBodyLimit::max(MAX_BODY_BYTES))
}

/// What there is to call, for programs.
pub fn document() -> Router<AppState> {
    Router::new().route("/darkroom/openapi.json", get(workflows::openapi::document))
}

async fn version() -> axum::Json<serde_json::Value> {
    axum::Json(serde_json::json!({ "version": env!("CARGO_PKG_VERSION") }))
}
