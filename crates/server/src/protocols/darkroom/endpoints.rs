//! Endpoints: what they are, what they do, why they scaled; files for their graphs.

use axum::{
    Json,
    body::Bytes,
    extract::{Path, Query, State},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{call::Call, error::ApiError, views};
use crate::{auth::Scope, service::Error, state::AppState};

/// `GET /endpoints`.
///
/// # Errors
/// Without a key that may use any.
pub async fn list(State(state): State<AppState>, call: Call) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Client)?;
    let views = views_for(&state, &call).await?;
    Ok(Json(json!({ "endpoints": views })))
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
        .map(|v| views::endpoint(&call.caller, v, &instances))
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
            let decision: Option<darkroom_core::scheduler::Decision> = serde_json::from_str(&text).ok();
            json!({
                "at": views::time(Some(at)),
                "message": decision.as_ref().map(ToString::to_string),
                "decision": decision,
            })
        })
        .collect();
    Ok(Json(json!({ "decisions": decisions })))
}

/// `PUT /endpoints/{endpoint}/inputs/{name}`: the body is a file that graphs of this endpoint can name.
///
/// # Errors
/// For a bad name, or a body that is too large.
pub async fn upload(
    State(state): State<AppState>,
    call: Call,
    Path((endpoint, name)): Path<(String, String)>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let endpoint = call.endpoint(&endpoint)?;
    call.needs(Scope::Client, &endpoint)?;
    state.service.endpoint(&endpoint).map_err(|e| call.fail(e))?;
    let body = body.map_err(|_| {
        call.fail(Error::TooLarge {
            what: "the body",
            limit_bytes: super::MAX_BODY_BYTES as u64,
        })
    })?;
    state
        .service
        .upload(&call.caller.tenant, &endpoint, &name, body)
        .await
        .map_err(|e| call.fail(e))?;
    Ok((StatusCode::CREATED, Json(json!({ "name": name }))))
}
