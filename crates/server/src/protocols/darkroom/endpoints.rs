//! Endpoints: what they are, what they do, why they scaled.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use darkroom_core::scheduler::Decision;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{call::Call, error::ApiError, views};
use crate::{auth::Scope, service::Error, state::AppState};

/// `GET /endpoints`; `removed` are those that are not configured any more and still have jobs that wait or run.
///
/// # Errors
/// Without a key that may use any.
pub async fn list(State(state): State<AppState>, call: Call) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Client)?;
    let views = views_for(&state, &call).await?;
    let removed = state
        .service
        .removed_endpoints()
        .await
        .map_err(|e| call.fail(e))?;
    let removed: Vec<Value> = removed
        .iter()
        .filter(|(name, _)| call.caller.may(Scope::Client, name).is_ok())
        .map(|(name, of)| json!({ "name": name, "queued": of.queued, "running": of.running + of.collecting }))
        .collect();
    Ok(Json(json!({ "endpoints": views, "removed": removed })))
}

/// `GET /endpoints/{endpoint}`.
///
/// # Errors
/// 404.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Client)?;
    let views = views_for(&state, &call).await?;
    let found = views.into_iter().find(|v| v["name"] == name.as_str());
    found
        .map(Json)
        .ok_or_else(|| call.fail(Error::not_found("endpoint", name)))
}

async fn views_for(state: &AppState, call: &Call) -> Result<Vec<Value>, ApiError> {
    let instances = state.service.instances(false).await.map_err(|e| call.fail(e))?;
    let all = state.service.endpoint_views().await.map_err(|e| call.fail(e))?;
    let visible = all
        .iter()
        .filter(|v| call.caller.may(Scope::Client, &v.endpoint.name).is_ok());
    Ok(visible
        .map(|v| views::endpoint(&state.service, &call.caller, v, &instances))
        .collect())
}

/// The query of decisions.
#[derive(Debug, Deserialize)]
pub struct DecisionParams {
    #[serde(default)]
    limit: Option<u32>,
}

/// `GET /endpoints/{endpoint}/decisions`: newest first.
///
/// # Errors
/// 404; operators only.
pub async fn decisions(
    State(state): State<AppState>,
    call: Call,
    Path(name): Path<String>,
    Query(params): Query<DecisionParams>,
) -> Result<Json<Value>, ApiError> {
    let endpoint = call.endpoint(&name)?;
    call.needs(Scope::Admin, &endpoint)?;
    let limit = params.limit.unwrap_or(50).clamp(1, 1000);
    let decisions = state
        .service
        .decisions(&endpoint, limit)
        .await
        .map_err(|e| call.fail(e))?;
    let decisions: Vec<Value> = decisions
        .into_iter()
        .map(|(at, text)| {
            let decision: Option<Decision> = serde_json::from_str(&text).ok();
            let decision = decision
                .map(|decision| decision.for_users_of(|other| call.caller.may(Scope::Client, other).is_ok()));
            json!({
                "at": views::time(Some(at)),
                "message": decision.as_ref().map(ToString::to_string),
                "decision": decision,
            })
        })
        .collect();
    Ok(Json(json!({ "decisions": decisions })))
}
