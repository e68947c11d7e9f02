//! `POST /workflows`: the next version of a workflow.

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use darkroom_comfy::published::{InputWish, OutputWish};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{body::read_json, call::Call, error::ApiError},
    views,
};
use crate::{
    service::published::{Outcome, Publication, Publishing},
    state::AppState,
};

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publish {
    /// The workflow's id, fixed for all its versions.
    workflow_id: String,
    /// Which endpoint runs it; `default` if left out.
    #[serde(default)]
    endpoint: Option<String>,
    /// In API format or the editor's own. Left out: the draft is published.
    #[serde(default)]
    graph: Option<Value>,
    #[serde(default)]
    inputs: Vec<InputWish>,
    #[serde(default)]
    outputs: Vec<OutputWish>,
    #[serde(default)]
    description: String,
    /// A line about this version.
    #[serde(default)]
    note: String,
    /// Point this alias at it.
    #[serde(default)]
    alias: Option<String>,
    /// Only say what would be found.
    #[serde(default)]
    dry_run: bool,
}

/// 201 with the version; 422 with the findings when some are errors.
///
/// # Errors
/// Without the scope `publish` on the endpoint, and on every other that versions of the workflow run on; for names that are
/// none.
pub async fn publish(
    State(state): State<AppState>,
    call: Call,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    call.publisher()?;
    let read = read_json::<Publish>(&call, &state.service.memory, &headers, body).await?;
    let (body, size, _held) = (read.parsed, read.size, read.held);
    let (actor, key) = (call.actor(), call.new_workflow_key(&body.workflow_id)?);
    let alias = body.alias.as_deref().map(|alias| call.alias(alias)).transpose()?;
    let from_draft = body.graph.is_none();
    let publication = match body.graph {
        Some(graph) => Publication {
            endpoint: call.endpoint(body.endpoint.as_deref().unwrap_or("default"))?,
            graph,
            inputs: body.inputs,
            outputs: body.outputs,
            description: body.description,
        },
        None => {
            let draft = state.service.draft(&actor, &key).await;
            draft.map_err(|e| call.denied(e))?.1
        }
    };
    if body.dry_run {
        let checked = state
            .service
            .try_publication(&actor, &key, &publication, size)
            .await;
        let checked = checked.map_err(|e| call.denied(e))?.good();
        let ok = checked.is_ok();
        let findings = checked.map_or_else(|findings| findings, |(_, findings)| findings);
        return Ok(Json(json!({ "ok": ok, "findings": findings })).into_response());
    }
    let id = key.id.clone();
    let publishing = Publishing {
        workflow: key,
        note: body.note,
        alias,
        from_draft,
    };
    let outcome = state.service.publish(&actor, publishing, publication, size).await;
    match outcome.map_err(|e| call.denied(e))? {
        Outcome::Published { newly, findings } => {
            let view = json!({
                "workflow_id": id,
                "version": newly.version,
                "aliases": newly.aliases,
                "findings": findings,
            });
            Ok((StatusCode::CREATED, Json(view)).into_response())
        }
        Outcome::Refused(findings) => Ok(views::refused("published", &findings, &call)),
    }
}
