//! The table of contents: every route, each answered by its own file.

mod history;
mod info;
mod prompt;
mod queue;
mod system;
mod upload;
mod userdata;
mod view;
mod ws;

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post},
};
use http::StatusCode;

use super::Engine;

type Shared = axum::extract::State<Arc<Engine>>;

/// The routes that exist under `/` and `/api`.
pub fn table() -> Router<Arc<Engine>> {
    Router::new()
        .route("/prompt", get(prompt::remaining).post(prompt::submit))
        .route("/queue", get(queue::list).post(queue::change))
        .route("/interrupt", post(queue::interrupt))
        .route("/free", post(queue::free))
        .route("/history", get(history::list).post(history::change))
        .route("/history/{id}", get(history::one))
        .route("/view", get(view::view))
        .route("/upload/image", post(upload::image))
        .route("/upload/mask", post(upload::mask))
        .route("/object_info", get(info::all))
        .route("/object_info/{class}", get(info::one))
        .route("/system_stats", get(system::stats))
        .route("/features", get(system::features))
        .route("/embeddings", get(system::no_names))
        .route("/models", get(system::model_folders))
        .route("/models/{folder}", get(system::models))
        .route("/experiment/models", get(system::no_names))
        .route("/extensions", get(system::no_names))
        .route("/workflow_templates", get(system::nothing))
        .route("/i18n", get(system::nothing))
        .route("/users", get(userdata::users))
        .route(
            "/settings",
            get(userdata::settings).post(userdata::change_settings),
        )
        .route(
            "/settings/{id}",
            get(userdata::setting).post(userdata::change_setting),
        )
        .route("/userdata", get(userdata::list))
        .route(
            "/userdata/{file}",
            get(userdata::read).post(userdata::write).delete(userdata::delete),
        )
        .route("/ws", get(ws::connect))
        .method_not_allowed_fallback(not_found)
}

/// The routes that exist only under `/`.
pub fn internal() -> Router<Arc<Engine>> {
    Router::new()
        .route("/internal/logs", get(system::no_logs))
        .route("/internal/folder_paths", get(system::nothing))
}

/// Also the answer to a known path with another method, as in ComfyUI.
pub async fn not_found() -> StatusCode {
    StatusCode::NOT_FOUND
}
