//! Aliases of a workflow: where they point, where they pointed, and moving them.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::JsonRejection},
};
use darkroom_core::workflow::AliasName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{call::Call, error::ApiError},
    show::{Which, load},
    views,
};
use crate::{
    auth::Scope,
    service::{
        Error,
        published::{Target, WorkflowKey},
    },
    state::AppState,
};

/// The query of a history.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Params {
    alias: Option<String>,
}

/// `GET /workflows/{workflow}/aliases?alias=`: what they point at, and every move, newest first.
///
/// # Errors
/// 404; for publishers only.
pub async fn history(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
    Query(params): Query<Params>,
) -> Result<Json<Value>, ApiError> {
    call.publisher()?;
    let record = call.workflow(&state.service, &workflow).await?;
    let alias = params
        .alias
        .as_deref()
        .map(|alias| call.alias(alias))
        .transpose()?;
    let moves = state
        .service
        .alias_history(&record.key, alias.as_ref())
        .await
        .map_err(|e| call.fail(e))?;
    Ok(Json(json!({
        "workflow_id": workflow,
        "aliases": views::workflow(&record)["aliases"],
        "moves": moves.iter().map(views::alias_move).collect::<Vec<_>>(),
    })))
}

/// The body of a move.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Point {
    version: String,
}

/// `PUT /workflows/{workflow}/aliases/{alias}` `{"version": "v2"}`: makes it if need be.
///
/// # Errors
/// 404 for a workflow or version that is not there; without the scope on the version's endpoint.
pub async fn point(
    State(state): State<AppState>,
    call: Call,
    Path((workflow, alias)): Path<(String, String)>,
    body: Result<Json<Point>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    call.publisher()?;
    let Json(body) = body.map_err(|e| call.fail(Error::Invalid(e.body_text())))?;
    let (key, alias, version) = (
        call.workflow_key(&workflow)?,
        call.alias(&alias)?,
        call.version(&body.version)?,
    );
    let loaded = load(
        &state,
        &call,
        &workflow,
        &Which {
            version: Some(body.version),
            alias: None,
        },
    )
    .await?;
    call.needs(Scope::Publish, &loaded.record.endpoint)?;
    moved(&state, &call, &key, &alias, Target::Version(version)).await
}

/// `POST /workflows/{workflow}/aliases/{alias}/rollback`: back to where it pointed before its last move.
///
/// # Errors
/// 404; 400 when there is nothing to go back to.
pub async fn roll_back(
    State(state): State<AppState>,
    call: Call,
    Path((workflow, alias)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    call.publisher()?;
    let record = call.workflow(&state.service, &workflow).await?;
    if let Some(endpoint) = &record.endpoint {
        call.needs(Scope::Publish, endpoint)?;
    }
    let alias = call.alias(&alias)?;
    moved(&state, &call, &record.key, &alias, Target::Back).await
}

async fn moved(
    state: &AppState,
    call: &Call,
    key: &WorkflowKey,
    alias: &AliasName,
    to: Target,
) -> Result<Json<Value>, ApiError> {
    let moved = state.service.move_alias(key, alias, to, &call.by()).await;
    let (from, to) = moved.map_err(|e| call.fail(e))?;
    Ok(Json(
        json!({ "workflow_id": key.id, "alias": alias, "from": from, "version": to }),
    ))
}
