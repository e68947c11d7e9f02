//! Aliases of a workflow: where they point, where they pointed, and moving them.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::JsonRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{call::Call, error::ApiError, page::PageParams},
    views,
};
use crate::{
    service::{Error, published::Target},
    state::AppState,
};

/// The query of a history.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Params {
    alias: Option<String>,
}

/// `GET /workflows/{workflow}/aliases?alias=`: what they point at, and every move, newest first, page by page.
///
/// # Errors
/// 404; for those who may change the workflow.
pub async fn history(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
    Query(params): Query<Params>,
    Query(page): Query<PageParams>,
) -> Result<Json<Value>, ApiError> {
    call.publisher()?;
    let key = call.workflow_key(&workflow)?;
    let alias = params
        .alias
        .as_deref()
        .map(|alias| call.alias(alias))
        .transpose()?;
    let not_a_page = || call.fail(Error::Invalid("after is not the 'next' of a page".into()));
    let before = page
        .after()
        .map(|nr| nr.parse().map_err(|_| not_a_page()))
        .transpose()?;
    let actor = call.actor();
    let (record, moves) = state
        .service
        .alias_history(&actor, &key, alias.as_ref(), before, page.limit())
        .await
        .map_err(|e| call.denied(e))?;
    Ok(Json(json!({
        "workflow_id": workflow,
        "aliases": views::workflow(&record, &actor)["aliases"],
        "moves": moves.iter().map(views::alias_move).collect::<Vec<_>>(),
        "next": page.next(&moves, |one| one.nr.to_string()),
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
/// 404 for a workflow or version that is not there; 403 where a version runs on an endpoint that the key may not publish on.
pub async fn point(
    State(state): State<AppState>,
    call: Call,
    Path((workflow, alias)): Path<(String, String)>,
    body: Result<Json<Point>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    call.publisher()?;
    let Json(body) = body.map_err(|e| call.fail(Error::Invalid(e.body_text())))?;
    let to = Target::Version(call.version(&body.version)?);
    moved(&state, &call, &workflow, &alias, to).await
}

/// `POST /workflows/{workflow}/aliases/{alias}/rollback`: back to where it pointed before its last move that was not taken
/// back yet.
///
/// # Errors
/// As [`point`]; 400 when there is nothing to go back to.
pub async fn roll_back(
    State(state): State<AppState>,
    call: Call,
    Path((workflow, alias)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    call.publisher()?;
    moved(&state, &call, &workflow, &alias, Target::Back).await
}

async fn moved(
    state: &AppState,
    call: &Call,
    workflow: &str,
    alias: &str,
    to: Target,
) -> Result<Json<Value>, ApiError> {
    let (key, alias) = (call.workflow_key(workflow)?, call.alias(alias)?);
    let moved = state.service.move_alias(&call.actor(), &key, &alias, to).await;
    let (from, to) = moved.map_err(|e| call.denied(e))?;
    Ok(Json(
        json!({ "workflow_id": key.id, "alias": alias, "from": from, "version": to }),
    ))
}
