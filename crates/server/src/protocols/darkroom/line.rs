//! An endpoint's line: held, let go on, cleared; a job moved in it. Clients clear only what their tenant queued; the rest
//! is for operators.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{call::Call, error::ApiError, views};
use crate::{
    auth::Scope,
    service::{Error, line::Place},
    state::AppState,
};

/// `POST /endpoints/{endpoint}/pause`: what waits there waits on, what runs goes on.
///
/// # Errors
/// 404; operators only.
pub async fn pause(
    State(state): State<AppState>,
    call: Call,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let endpoint = call.endpoint(&name)?;
    call.needs(Scope::Admin, &endpoint)?;
    let changed = state.service.pause(&endpoint).await.map_err(|e| call.fail(e))?;
    Ok(Json(
        json!({ "endpoint": endpoint, "paused": true, "changed": changed }),
    ))
}

/// `POST /endpoints/{endpoint}/resume`.
///
/// # Errors
/// 404; operators only.
pub async fn resume(
    State(state): State<AppState>,
    call: Call,
    Path(name): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let endpoint = call.endpoint(&name)?;
    call.needs(Scope::Admin, &endpoint)?;
    let changed = state.service.resume(&endpoint).await.map_err(|e| call.fail(e))?;
    Ok(Json(
        json!({ "endpoint": endpoint, "paused": false, "changed": changed }),
    ))
}

/// The query of a clear.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClearParams {
    /// Everybody's jobs, which is for operators; else those of the caller's tenant.
    all_tenants: bool,
}

/// `POST /endpoints/{endpoint}/clear`: cancels what waits there, not what runs. Also of an endpoint that is not configured
/// any more.
///
/// # Errors
/// Without the scope.
pub async fn clear(
    State(state): State<AppState>,
    call: Call,
    Path(name): Path<String>,
    Query(params): Query<ClearParams>,
) -> Result<Json<Value>, ApiError> {
    let endpoint = call.endpoint(&name)?;
    let tenant = if params.all_tenants {
        call.needs(Scope::Admin, &endpoint)?;
        None
    } else {
        call.needs(Scope::Client, &endpoint)?;
        Some(&call.caller.tenant)
    };
    let cleared = state
        .service
        .clear(&endpoint, tenant)
        .await
        .map_err(|e| call.fail(e))?;
    Ok(Json(json!({ "endpoint": endpoint, "cancelled": cleared })))
}

/// Where a job goes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Move {
    /// `first` or `last`.
    #[serde(default)]
    to: Option<String>,
    /// The job that it shall stand before.
    #[serde(default)]
    before: Option<String>,
}

/// `POST /jobs/{job}/move` with `{"to": "first" | "last"}` or `{"before": job}`: the job as it stands then.
///
/// # Errors
/// 404; 400 when it does not wait; operators of its endpoint only, since others wait longer for it.
pub async fn move_job(
    State(state): State<AppState>,
    call: Call,
    Path(job): Path<String>,
    Json(body): Json<Move>,
) -> Result<Json<Value>, ApiError> {
    let record = call.job(&state.service, &job).await?;
    call.needs(Scope::Admin, &record.endpoint)?;
    let place = match (body.to.as_deref(), body.before.as_deref()) {
        (Some("first"), None) => Place::First,
        (Some("last"), None) => Place::Last,
        (None, Some(other)) => Place::Before(call.job_id(other)?),
        _ => {
            let usage = "say either to: 'first' or 'last', or before: a job's id";
            return Err(call.fail(Error::Invalid(usage.to_owned())));
        }
    };
    let tenant = call.caller.visible_tenant();
    state
        .service
        .move_job(tenant, record.id, place)
        .await
        .map_err(|e| call.fail(e))?;
    let record = state
        .service
        .job(tenant, record.id)
        .await
        .map_err(|e| call.fail(e))?;
    let view = views::job_in_full(&state.service, &call.caller, &record).await;
    Ok(Json(view.map_err(|e| call.fail(e))?))
}
