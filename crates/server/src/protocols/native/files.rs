//! Files, what instances told, and what the page keeps: the routes that need no queue.

use axum::{
    Router,
    routing::{get, post},
};

use super::{internal, models, object_info, settings, system, upload, userdata, view};
use crate::state::AppState;

/// The routes that exist below the root and below `/api`.
pub fn both() -> Router<AppState> {
    Router::new()
        .route("/view", get(view::handler))
        .route("/view_metadata/{folder}", get(models::metadata))
        .route("/upload/image", post(upload::image))
        .route("/upload/mask", post(upload::mask))
        .route("/object_info", get(object_info::all))
        .route("/object_info/{class}", get(object_info::one))
        .route("/system_stats", get(system::stats))
        .route("/features", get(system::features))
        .route("/free", post(system::free))
        .route("/embeddings", get(models::embeddings))
        .route("/models", get(models::folders))
        .route("/models/{folder}", get(models::files))
        .route("/experiment/models", get(models::detailed_folders))
        .route("/experiment/models/{folder}", get(models::detailed_files))
        .route("/extensions", get(system::extensions))
        .route("/workflow_templates", get(system::workflow_templates))
        .route("/i18n", get(system::i18n))
        .route("/node_replacements", get(system::node_replacements))
        .route("/global_subgraphs", get(system::global_subgraphs))
        .route("/global_subgraphs/{id}", get(system::global_subgraph))
        .route("/users", get(settings::users).post(settings::add_user))
        .route("/settings", get(settings::all).post(settings::change))
        .route("/settings/{id}", get(settings::one).post(settings::change_one))
        .route("/userdata", get(userdata::list))
        .route(
            "/userdata/{file}",
            get(userdata::read).post(userdata::write).delete(userdata::remove),
        )
        .route("/userdata/{file}/move/{dest}", post(userdata::rename))
        .route("/v2/userdata", get(userdata::tree))
}

/// The routes that exist below the root alone.
pub fn internal() -> Router<AppState> {
    Router::new()
        .route("/internal/logs", get(internal::logs))
        .route("/internal/logs/raw", get(internal::raw_logs))
        .route(
            "/internal/logs/subscribe",
            axum::routing::patch(internal::subscribe),
        )
        .route("/internal/folder_paths", get(internal::folder_paths))
        .route("/internal/files/{folder}", get(internal::files))
}
