//! Queues of the EAS queue service: what waits, who consumes, how far behind.

use axum::{
    Json,
    extract::{Path, State},
};
use serde_json::{Value, json};

use super::{call::Call, error::ApiError, views};
use crate::{
    auth::Scope,
    service::{
        Error,
        queues::{QueueId, QueueView, Side},
    },
    state::AppState,
};

/// `GET /queues`: those of the caller's tenant; an operator's list has everyone's.
///
/// # Errors
/// Without a key.
pub async fn list(State(state): State<AppState>, call: Call) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Client)?;
    let all = state
        .service
        .queue_views(call.caller.visible_tenant())
        .await
        .map_err(|e| call.fail(e))?;
    let visible = all
        .iter()
        .filter(|v| call.caller.may(Scope::Client, &v.id.endpoint).is_ok());
    let queues: Vec<Value> = visible.map(|v| queue(&state, v)).collect();
    Ok(Json(json!({ "queues": queues })))
}

/// `GET /queues/{endpoint}/{side}`: one of the caller's tenant, with its consumers and groups.
///
/// # Errors
/// 404 for a side that there is not, or an endpoint that the key may not use.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    Path((endpoint, side)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let id = named(&call, &endpoint, &side)?;
    let service = &state.service;
    let view = service.queue_view(&id).await.map_err(|e| call.fail(e))?;
    let consumers = service.queue_consumers(&id).await.map_err(|e| call.fail(e))?;
    let groups = service.queue_groups(&id).await.map_err(|e| call.fail(e))?;
    let mut shown = queue(&state, &view);
    shown["consumers"] = consumers
        .iter()
        .map(|c| {
            json!({
                "group": c.group,
                "name": c.name,
                "connected": c.left_at.is_none(),
                "left_at": views::time(c.left_at),
                "active_at": views::time(Some(c.active_at)),
                "last_index": c.last_index,
                "pending": c.pending,
                "window": c.window,
                "auto_commit": c.auto_commit,
                "tags": c.tags,
            })
        })
        .collect();
    shown["groups"] = groups
        .iter()
        .map(|(name, remaining)| json!({ "name": name, "remaining": remaining }))
        .collect();
    Ok(Json(shown))
}

/// `POST /queues/{endpoint}/{side}/reopen`: a queue that a client ended (`_eos_`) takes items again; answers as
/// [`show`]. Nothing happens to one that is open.
///
/// # Errors
/// As [`show`].
pub async fn reopen(
    State(state): State<AppState>,
    call: Call,
    Path((endpoint, side)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let id = named(&call, &endpoint, &side)?;
    let reopened = state.service.end_queue(&id, false).await;
    reopened.map_err(|e| call.fail(e))?;
    show(State(state), call, Path((endpoint, side))).await
}

/// The caller's own queue of this name.
fn named(call: &Call, endpoint: &str, side: &str) -> Result<QueueId, ApiError> {
    let endpoint = call.endpoint(endpoint)?;
    call.needs(Scope::Client, &endpoint)?;
    let side = Side::parse(side).ok_or_else(|| call.fail(Error::not_found("side", side)))?;
    Ok(QueueId {
        tenant: call.caller.tenant.clone(),
        endpoint,
        side,
    })
}

fn queue(state: &AppState, view: &QueueView) -> Value {
    let lag = view
        .oldest_put_at
        .map(|at| state.service.now().since(at).as_secs());
    json!({
        "endpoint": view.id.endpoint,
        "side": view.id.side.as_str(),
        "tenant": view.id.tenant,
        "length": view.length,
        "first_index": view.first,
        "last_index": view.last,
        "oldest_put_at": views::time(view.oldest_put_at),
        "lag_s": lag,
        "pending": view.pending,
        "connected_consumers": view.consumers,
        "ended": view.ended,
    })
}
