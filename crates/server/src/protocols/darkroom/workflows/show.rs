//! `GET /workflows…`: what there is to call, and what versions differ in.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use darkroom_comfy::published::Diff;
use darkroom_core::workflow::AliasName;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    super::{call::Call, error::ApiError, page::PageParams},
    views,
};
use crate::{
    auth::Scope,
    service::published::{Loaded, Unknown},
    state::AppState,
};

/// `GET /workflows`: by id, page by page.
///
/// # Errors
/// Without a key.
pub async fn list(
    State(state): State<AppState>,
    call: Call,
    Query(page): Query<PageParams>,
) -> Result<Json<Value>, ApiError> {
    if call.publisher().is_err() {
        call.needs_anywhere(Scope::Client)?;
    }
    let actor = call.actor();
    let after = page.after().map(|id| call.workflow_key(id)).transpose()?;
    let (workflows, next) = state
        .service
        .workflows(
            &actor,
            &call.caller.tenant,
            after.as_ref().map(|key| &key.id),
            page.limit(),
        )
        .await
        .map_err(|e| call.fail(e))?;
    let workflows: Vec<Value> = workflows
        .iter()
        .map(|record| views::workflow(record, &actor))
        .collect();
    Ok(Json(json!({ "workflows": workflows, "next": next })))
}

/// `GET /workflows/{workflow}`: with its newest versions, and what the one of `main` (else the newest) takes and gives.
///
/// # Errors
/// 404.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let (actor, key) = (call.actor(), call.workflow_key(&workflow)?);
    let record = state.service.seen_workflow(&actor, &key).await;
    let record = record.map_err(|e| call.fail(e))?;
    let mut view = views::workflow(&record, &actor);
    let page = PageParams::default();
    let versions = state
        .service
        .workflow_versions(&actor, &key, None, page.limit())
        .await;
    let (versions, next) = versions.map_err(|e| call.fail(e))?;
    view["versions"] = versions.iter().map(views::version).collect();
    view["next"] = json!(next);
    let main = actor
        .seen_aliases(&record)
        .find(|one| one.name == AliasName::main());
    let current = main
        .map(|one| one.version)
        .or(versions.first().map(|one| one.version));
    if let Some(version) = current {
        let loaded = state
            .service
            .seen_version(&actor, &key, Some(version), None)
            .await;
        let loaded = loaded.map_err(|e| call.fail(Unknown::into_error(e)))?;
        view["current"] = views::version_in_full(&loaded.record, &loaded.definition, false);
    }
    Ok(Json(view))
}

/// `GET /workflows/{workflow}/versions`: newest first, page by page.
///
/// # Errors
/// 404.
pub async fn versions(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
    Query(page): Query<PageParams>,
) -> Result<Json<Value>, ApiError> {
    let (actor, key) = (call.actor(), call.workflow_key(&workflow)?);
    let record = state.service.seen_workflow(&actor, &key).await;
    record.map_err(|e| call.fail(e))?;
    let before = page.after().map(|version| call.version(version)).transpose()?;
    let versions = state
        .service
        .workflow_versions(&actor, &key, before, page.limit())
        .await;
    let (versions, next) = versions.map_err(|e| call.fail(e))?;
    let versions: Vec<Value> = versions.iter().map(views::version).collect();
    Ok(Json(
        json!({ "workflow_id": workflow, "versions": versions, "next": next }),
    ))
}

/// `GET /workflows/{workflow}/versions/{version}`: an alias does as well. Publishers get the graph.
///
/// # Errors
/// 404.
pub async fn version(
    State(state): State<AppState>,
    call: Call,
    Path((workflow, version)): Path<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let loaded = load(&state, &call, &workflow, &Which::named(&version)).await?;
    let with_graph = call.caller.may(Scope::Publish, &loaded.record.endpoint).is_ok();
    Ok(Json(views::version_in_full(
        &loaded.record,
        &loaded.definition,
        with_graph,
    )))
}

/// `GET /workflows/{workflow}/schema?version=|alias=`: JSON Schema of the inputs.
///
/// # Errors
/// 404.
pub async fn schema(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
    Query(which): Query<Which>,
) -> Result<Json<Value>, ApiError> {
    let loaded = load(&state, &call, &workflow, &which).await?;
    let mut schema = loaded.definition.published.schema();
    schema["$schema"] = Value::from("https://json-schema.org/draft/2020-12/schema");
    schema["title"] = Value::from(format!("{workflow} {}", loaded.record.version));
    Ok(Json(schema))
}

/// The query of a comparison: versions or aliases.
#[derive(Debug, Deserialize)]
pub struct Between {
    from: String,
    to: String,
}

/// `GET /workflows/{workflow}/diff?from=v1&to=v2`.
///
/// # Errors
/// 404; for publishers only.
pub async fn diff(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
    Query(between): Query<Between>,
) -> Result<Json<Value>, ApiError> {
    call.publisher()?;
    // What differs is in the graphs, which are for publishers.
    let from = load(&state, &call, &workflow, &Which::named(&between.from)).await?;
    let to = load(&state, &call, &workflow, &Which::named(&between.to)).await?;
    for one in [&from, &to] {
        call.needs(Scope::Publish, &one.record.endpoint)?;
    }
    let diff = Diff::between(&from.definition.published, &to.definition.published);
    let endpoint = (from.record.endpoint != to.record.endpoint)
        .then(|| json!({ "from": from.record.endpoint, "to": to.record.endpoint }));
    Ok(Json(json!({
        "workflow_id": workflow,
        "from": from.record.version,
        "to": to.record.version,
        "endpoint": endpoint,
        "diff": diff,
    })))
}

/// Which version is meant; the version wins, and nothing means `main`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Which {
    /// `v3`.
    pub version: Option<String>,
    /// `main`.
    pub alias: Option<String>,
}

impl Which {
    /// A version or an alias, as a person writes it.
    pub fn named(text: &str) -> Self {
        let text = Some(text.to_owned());
        match text
            .as_deref()
            .is_some_and(|t| t.parse::<darkroom_core::workflow::Version>().is_ok())
        {
            true => Which {
                version: text,
                alias: None,
            },
            false => Which {
                version: None,
                alias: text,
            },
        }
    }
}

/// Loads a version that the caller may see.
///
/// # Errors
/// 404.
pub async fn load(state: &AppState, call: &Call, workflow: &str, which: &Which) -> Result<Loaded, ApiError> {
    let key = call.workflow_key(workflow)?;
    let version = which
        .version
        .as_deref()
        .map(|text| call.version(text))
        .transpose()?;
    let alias = which.alias.as_deref().map(|text| call.alias(text)).transpose()?;
    let loaded = state
        .service
        .seen_version(&call.actor(), &key, version, alias.as_ref())
        .await;
    loaded.map_err(|e| call.fail(Unknown::into_error(e)))
}
