//! Webhooks: what became of a job's, once more, and what receivers check signatures with.

use axum::{
    Json,
    extract::{Path, Query, State},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{call::Call, error::ApiError, views};
use crate::{
    auth::Scope,
    service::{Error, Service, jobs::JobRecord, webhooks::Delivery},
    state::AppState,
};

/// `GET /jobs/{job}/webhooks`: where to, whether another try is due, and every try so far.
///
/// # Errors
/// 404, also for one that the caller may not see.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    Path(job): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let job = call.job(&state.service, &job).await?;
    let view = state.service.webhook(&job).await.map_err(|e| call.fail(e))?;
    Ok(Json(json!({
        "url": view.url,
        "next_at": views::time(view.next_at),
        "deliveries": view.deliveries.iter().map(delivery).collect::<Vec<_>>(),
    })))
}

/// `POST /jobs/{job}/webhooks/redeliver`: 202; the same message is sent once more.
///
/// # Errors
/// 404, also for one that the caller may not see; 400 while the job has not ended, or when it has no webhook.
pub async fn redeliver(
    State(state): State<AppState>,
    call: Call,
    Path(job): Path<String>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let job = call.job(&state.service, &job).await?.id;
    let tenant = call.caller.visible_tenant();
    state
        .service
        .redeliver(tenant, job)
        .await
        .map_err(|e| call.fail(e))?;
    Ok((StatusCode::ACCEPTED, Json(json!({ "id": job, "queued": true }))))
}

/// The query of the secret.
#[derive(Debug, Deserialize)]
pub struct SecretParams {
    #[serde(default)]
    tenant: Option<String>,
}

/// `GET /webhooks/secret`: the caller's tenant's; operators may name another with `?tenant=`.
///
/// # Errors
/// Without the scope.
pub async fn secret(
    State(state): State<AppState>,
    call: Call,
    Query(params): Query<SecretParams>,
) -> Result<Json<Value>, ApiError> {
    let tenant = match params.tenant {
        Some(name) => {
            call.needs_anywhere(Scope::Admin)?;
            name.parse()
                .map_err(|e: darkroom_core::id::Error| call.fail(Error::Invalid(e.to_string())))?
        }
        None => {
            call.needs_anywhere(Scope::Client)?;
            call.caller.tenant.clone()
        }
    };
    let secret = state.service.webhook_secret(&tenant);
    Ok(Json(json!({ "tenant": tenant, "secret": secret.expose() })))
}

/// A job as its webhook tells it: as `GET /jobs/{job}` shows it, with absolute addresses.
///
/// # Errors
/// When the store fails.
pub async fn status_body(service: Service, job: JobRecord) -> Result<Value, Error> {
    let mut view = views::job(&service, &job);
    let base_url = job.meta.options["base_url"].as_str().unwrap_or_default();
    for output in view["outputs"].as_array_mut().into_iter().flatten() {
        if let Some(path) = output["url"].as_str() {
            output["url"] = format!("{base_url}{path}").into();
        }
    }
    view["attempts"] = service
        .attempts(job.id)
        .await?
        .iter()
        .map(views::attempt)
        .collect();
    view["waiting"] = Value::Null;
    Ok(view)
}

fn delivery(delivery: &Delivery) -> Value {
    json!({
        "message": delivery.message,
        "at": views::time(Some(delivery.at)),
        "duration_ms": u64::try_from(delivery.took.as_millis()).unwrap_or(u64::MAX),
        "status": delivery.status,
        "acknowledged": delivery.problem.is_none(),
        "problem": delivery.problem,
        "next_at": views::time(delivery.next_at),
    })
}
