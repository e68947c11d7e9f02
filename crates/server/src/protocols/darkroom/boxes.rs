//! Boxes of an endpoint: what they are, attaching and detaching them, and what a workflow would miss on each.

use std::collections::BTreeMap;

use axum::{
    Json,
    body::Body,
    extract::{Path, State, rejection::JsonRejection},
};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{body::read_json, call::Call, error::ApiError, views};
use crate::{
    auth::Scope,
    service::{
        Error,
        attached::{Attach, AttachedBox},
        missing::BoxCheck,
        models,
    },
    state::AppState,
};

/// `GET /endpoints/{endpoint}/boxes`: what each can do, as far as it told. What was attached carries its address.
///
/// # Errors
/// 404; operators only.
pub async fn list(
    State(state): State<AppState>,
    call: Call,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let endpoint = call.endpoint(&name)?;
    call.needs(Scope::Admin, &endpoint)?;
    let service = &state.service;
    let read = service.endpoint(&endpoint).map_err(|e| call.fail(e))?;
    let told = service.boxes(&endpoint).await.map_err(|e| call.fail(e))?;
    let attached = service.attached_boxes().await.map_err(|e| call.fail(e))?;
    let attached: BTreeMap<String, &AttachedBox> = attached
        .get(&endpoint)
        .into_iter()
        .flatten()
        .map(|one| (one.name_on(&read), one))
        .filter(|(name, _)| read.has_box(name))
        .collect();
    let mut boxes: BTreeMap<&String, Value> = BTreeMap::new();
    for (name, one) in told.iter() {
        let shown = json!({
            "name": name,
            "nodes": one.info.classes.len(),
            "models": models::counted(&one.info),
            "learned_at": views::time(Some(one.learned_at)),
            "attached": attached.get(name).map(|one| &one.target),
        });
        boxes.insert(name, shown);
    }
    for (name, one) in &attached {
        boxes.entry(name).or_insert_with(|| {
            json!({ "name": name, "nodes": null, "models": {}, "learned_at": null, "attached": one.target })
        });
    }
    Ok(Json(json!({ "boxes": boxes.into_values().collect::<Vec<_>>() })))
}

/// The body of [`attach`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    target: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    python: Option<String>,
    #[serde(default)]
    args: Vec<String>,
}

/// `POST /endpoints/{endpoint}/boxes`: 201 with what was found; the endpoint is made if there is none. The box has run a tiny
/// graph by then; an installation was started for that, and ended again.
///
/// # Errors
/// 400 with what is wrong.
pub async fn attach(
    State(state): State<AppState>,
    call: Call,
    Path(name): Path<String>,
    body: Result<Json<Wish>, JsonRejection>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    call.needs_anywhere(Scope::Admin)?;
    let Json(wish) = body.map_err(|e| call.fail(Error::Invalid(e.body_text())))?;
    let endpoint: darkroom_core::EndpointName = name
        .parse()
        .map_err(|e: darkroom_core::id::Error| call.fail(Error::Invalid(e.to_string())))?;
    call.needs(Scope::Admin, &endpoint)?;
    let attached = AttachedBox {
        name: wish.name,
        target: wish.target.trim_end_matches('/').to_owned(),
        python: wish.python,
        args: wish.args,
    };
    if !attached.is_server() {
        // It is a program that runs as the server's user.
        call.needs_everywhere(Scope::Admin)?;
    }
    let wish = Attach {
        endpoint: endpoint.clone(),
        attached,
    };
    let done = state.service.attach(wish).await.map_err(|e| call.fail(e))?;
    state
        .reload
        .keys(&state.service)
        .await
        .map_err(|e| call.fail(e))?;
    let answer = json!({ "endpoint": endpoint, "name": done.name, "made": done.made, "told": done.told });
    Ok((StatusCode::CREATED, Json(answer)))
}

/// The body of [`detach`].
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unwanted {
    what: String,
    #[serde(default)]
    endpoint: Option<String>,
}

/// `POST /detach`: what has that name, URL, or directory.
///
/// # Errors
/// 404 for an endpoint that does not exist, 400 where nothing or more than one is meant.
pub async fn detach(
    State(state): State<AppState>,
    call: Call,
    body: Result<Json<Unwanted>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    call.needs_anywhere(Scope::Admin)?;
    let Json(body) = body.map_err(|e| call.fail(Error::Invalid(e.body_text())))?;
    let from = body.endpoint.map(|name| call.endpoint(&name)).transpose()?;
    if let Some(from) = &from {
        call.needs(Scope::Admin, from)?;
    }
    let done = state.service.detach(&body.what, from.as_ref()).await;
    let done = done.map_err(|e| call.fail(e))?;
    state
        .reload
        .keys(&state.service)
        .await
        .map_err(|e| call.fail(e))?;
    Ok(Json(json!({
        "endpoint": done.endpoint,
        "target": done.attached.target,
        "endpoint_is_gone": done.endpoint_is_gone,
    })))
}

/// The body of [`check`].
#[derive(Debug, Deserialize)]
pub struct Checked {
    graph: Value,
}

/// `POST /endpoints/{endpoint}/check`: what a workflow, in API format or the editor's, would miss on each box. Nothing is queued.
///
/// # Errors
/// 404; 400 for what is no workflow, and where no box has told yet what it can do.
pub async fn check(
    State(state): State<AppState>,
    call: Call,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let endpoint = call.endpoint(&name)?;
    call.needs(Scope::Client, &endpoint)?;
    let read = read_json::<Checked>(&call, &state.service.memory, &headers, body).await?;
    let checked = state
        .service
        .missing(&endpoint, read.parsed.graph, read.size)
        .await;
    let mut boxes: Vec<BoxCheck> = checked.map_err(|e| call.fail(e))?;
    if !call.caller.operates(&endpoint) {
        let read = state.service.endpoint(&endpoint).map_err(|e| call.fail(e))?;
        boxes
            .iter_mut()
            .for_each(|one| one.rename(|name| read.public_box_name(name)));
    }
    let runs = boxes.iter().any(|one| one.runs);
    Ok(Json(
        json!({ "endpoint": endpoint, "runs": runs, "boxes": boxes }),
    ))
}
