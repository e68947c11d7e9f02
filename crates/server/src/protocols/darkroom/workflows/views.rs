//! Workflows as our own API shows them.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use darkroom_comfy::published::Finding;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::super::{call::Call, views::time};
use crate::service::published::{Actor, Definition, MoveRecord, VersionRecord, WorkflowRecord};

/// A workflow, as far as somebody sees it.
pub fn workflow(record: &WorkflowRecord, actor: &Actor) -> Value {
    let aliases = actor.seen_aliases(record);
    let aliases = aliases.map(|one| (one.name.to_string(), json!(one.version)));
    let endpoint = record.endpoint.as_ref().filter(|endpoint| actor.sees(endpoint));
    let draft_at = record.draft_at.filter(|_| actor.sees_draft(record));
    json!({
        "workflow_id": record.key.id,
        "endpoint": endpoint,
        "latest": endpoint.and(record.latest),
        "aliases": Map::from_iter(aliases),
        "has_draft": draft_at.is_some(),
        "draft_at": time(draft_at),
        "created_at": time(Some(record.created_at)),
        "updated_at": time(Some(record.updated_at)),
    })
}

/// A version without what it holds.
pub fn version(record: &VersionRecord) -> Value {
    json!({
        "version": record.version,
        "endpoint": record.endpoint,
        "note": record.note,
        "published_at": time(Some(record.published_at)),
        "published_by": record.published_by,
    })
}

/// What callers need to know of a version. The graph is for who publishes: it may hold what its author wrote for nobody else.
pub fn version_in_full(record: &VersionRecord, definition: &Definition, with_graph: bool) -> Value {
    let mut view = version(record);
    let published = &definition.published;
    view["description"] = Value::from(definition.description.as_str());
    view["inputs"] = json!(published.inputs);
    view["outputs"] = json!(published.outputs);
    view["schema"] = published.schema();
    view["checked"] = Value::from(!definition.unchecked);
    view["nodes"] = Value::from(published.graph.as_object().map_or(0, Map::len));
    if with_graph {
        view["graph"] = published.graph.clone();
    }
    view
}

/// A move of an alias.
pub fn alias_move(record: &MoveRecord) -> Value {
    json!({
        "alias": record.alias,
        "from": record.from,
        "to": record.to,
        "at": time(Some(record.at)),
        "by": record.by,
        "rollback": record.rollback,
    })
}

/// The answer to a publish or an import with mistakes in it.
pub fn refused(done: &str, findings: &[Finding], call: &Call) -> Response {
    let first = findings.iter().find(|finding| finding.is_error());
    let more = match findings.iter().filter(|finding| finding.is_error()).count() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    let message = first.map_or("", |finding| finding.message.as_str());
    let body = json!({ "error": {
        "code": "not_publishable",
        "message": format!("the workflow cannot be {done}: {message}{more}"),
        "request_id": call.caller.request_id.as_str(),
        "details": { "findings": findings },
    }});
    (StatusCode::UNPROCESSABLE_ENTITY, Json(body)).into_response()
}
