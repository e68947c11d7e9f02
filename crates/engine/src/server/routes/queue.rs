//! `/queue`, `/interrupt` and `/free`: looking at what waits, and stopping things.

use std::sync::atomic::Ordering;

use axum::{Json, extract::State, response::Response};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{super::body::JsonBody, Shared};

/// `GET /queue`
pub async fn list(State(engine): Shared) -> Json<Value> {
    let (running, pending) = engine.queue.list();
    let show = |items: Vec<std::sync::Arc<super::super::queue::Item>>| -> Vec<Value> {
        items.iter().map(|item| item.to_json()).collect()
    };
    Json(json!({"queue_running": show(running), "queue_pending": show(pending)}))
}

/// `POST /queue`: `clear` and `delete`; the running prompt is never touched.
pub async fn change(State(engine): Shared, body: JsonBody) {
    if body.clears() {
        engine.queue.clear();
    }
    for id in body.deletes() {
        engine.queue.remove(id);
    }
}

/// `POST /interrupt`: the running prompt, or only if it is the one named. A body that says nothing means whatever runs.
pub async fn interrupt(State(engine): Shared, body: Bytes) {
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let named = body
        .get("prompt_id")
        .and_then(Value::as_str)
        .filter(|id| !id.is_empty());
    if named.is_none_or(|id| engine.queue.is_running(id)) {
        engine.interrupt.store(true, Ordering::SeqCst);
    }
}

/// `POST /free`: there are no models to unload; `free_memory` drops all cached results.
pub async fn free(State(engine): Shared, JsonBody(body): JsonBody) -> Result<(), Response> {
    if body.get("free_memory").and_then(Value::as_bool) == Some(true) {
        engine.queue.forget();
    }
    Ok(())
}
