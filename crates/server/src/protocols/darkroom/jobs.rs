//! Jobs: submit, show, list, cancel, retry.

use axum::{
    Json,
    extract::{Path, Query, State, rejection::JsonRejection},
    response::{IntoResponse, Response},
};
use darkroom_core::{EndpointName, JobId, JobState};
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{error::ApiError, views};
use crate::{
    auth::{Caller, Rejection, Scope},
    service::{
        Error,
        intake::Fetch,
        jobs::{Cancelled, ExternalId, JobFilter, JobMeta, OnDuplicate, Page},
        submit::ComfySubmit,
    },
    state::AppState,
};

/// The body of a submit.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Submit {
    /// The workflow, in API format. Loader inputs may be names of uploads, addresses, data URIs, or base64.
    graph: Value,
    /// ComfyUI's `extra_data`.
    #[serde(default)]
    extra_data: Map<String, Value>,
    /// Only these output nodes.
    #[serde(default)]
    targets: Option<Vec<String>>,
    /// Higher runs first.
    #[serde(default)]
    priority: i32,
    /// The client's own id: a second submit with it returns the first job.
    #[serde(default)]
    reference: Option<String>,
}

/// `POST /endpoints/{endpoint}/jobs`: 201 with the job, 200 when the reference was used before.
///
/// # Errors
/// Every refusal of a submit.
pub async fn submit(
    State(state): State<AppState>,
    caller: Result<Caller, Rejection>,
    Path(endpoint): Path<String>,
    body: Result<Json<Submit>, JsonRejection>,
) -> Result<Response, ApiError> {
    let caller = caller?;
    let fail = ApiError::service(&caller.request_id);
    let endpoint = endpoint_name(&endpoint).map_err(&fail)?;
    caller
        .may(Scope::Client, &endpoint)
        .map_err(ApiError::access(&caller.request_id))?;
    let Json(body) = body.map_err(|e| {
        fail(match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Error::TooLarge {
                what: "the body",
                limit_bytes: super::MAX_BODY_BYTES as u64,
            },
            _ => Error::Invalid(e.body_text()),
        })
    })?;
    if body
        .reference
        .as_ref()
        .is_some_and(|r| r.is_empty() || r.len() > 200)
    {
        return Err(fail(Error::Invalid("reference must be 1 to 200 bytes".into())));
    }
    let accepted = state
        .service
        .submit_comfy(ComfySubmit {
            tenant: caller.tenant.clone(),
            endpoint,
            graph: body.graph,
            extra_data: body.extra_data,
            targets: body.targets,
            priority: body.priority.clamp(-100, 100),
            external_id: body.reference.map(|id| ExternalId {
                dialect: "darkroom".into(),
                id,
                on_duplicate: OnDuplicate::Existing,
            }),
            randomise_seeds: false,
            fetch: Fetch::Now,
            meta: JobMeta {
                dialect: "darkroom".into(),
                request_id: caller.request_id.to_string(),
                ..JobMeta::default()
            },
        })
        .await
        .map_err(&fail)?;
    let record = state
        .service
        .job(Some(&caller.tenant), accepted.job)
        .await
        .map_err(&fail)?;
    let view = views::job_in_full(&state.service, &record).await.map_err(&fail)?;
    let status = if accepted.existed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    Ok((status, Json(view)).into_response())
}

/// The query of a list.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ListParams {
    endpoint: Option<String>,
    state: Option<String>,
    limit: Option<u32>,
    after: Option<String>,
}

/// `GET /jobs`: newest first.
///
/// # Errors
/// For bad parameters.
pub async fn list(
    State(state): State<AppState>,
    caller: Result<Caller, Rejection>,
    Query(params): Query<ListParams>,
) -> Result<Json<Value>, ApiError> {
    let caller = caller?;
    let fail = ApiError::service(&caller.request_id);
    let endpoint = params
        .endpoint
        .as_deref()
        .map(endpoint_name)
        .transpose()
        .map_err(&fail)?;
    match &endpoint {
        Some(endpoint) => caller.may_list(endpoint),
        None => caller.may_anywhere(Scope::Client),
    }
    .map_err(ApiError::access(&caller.request_id))?;
    let mut states = Vec::new();
    for word in params
        .state
        .iter()
        .flat_map(|s| s.split(','))
        .filter(|w| !w.is_empty())
    {
        let known = JobState::parse(word);
        states.push(known.ok_or_else(|| fail(Error::Invalid(format!("'{word:.40}' is not a state"))))?);
    }
    let after = params.after.as_deref().map(job_id).transpose().map_err(&fail)?;
    let limit = params.limit.unwrap_or(50).clamp(1, 500);
    let filter = JobFilter {
        tenant: (!caller.is_admin()).then(|| caller.tenant.clone()),
        endpoint,
        states,
        ..JobFilter::default()
    };
    let jobs = state
        .service
        .jobs(filter, Page { limit, after })
        .await
        .map_err(&fail)?;
    let next = (jobs.len() == limit as usize)
        .then(|| jobs.last().map(|j| j.id))
        .flatten();
    let jobs: Vec<Value> = jobs.iter().map(|j| views::job(&state.service, j)).collect();
    Ok(Json(json!({ "jobs": jobs, "next": next })))
}

/// `GET /jobs/{job}`.
///
/// # Errors
/// 404, also for another tenant's.
pub async fn show(
    State(state): State<AppState>,
    caller: Result<Caller, Rejection>,
    Path(job): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let caller = caller?;
    let fail = ApiError::service(&caller.request_id);
    let job = job_id(&job).map_err(&fail)?;
    let tenant = views::visible_tenant(&caller);
    let record = state.service.job(tenant, job).await.map_err(&fail)?;
    Ok(Json(
        views::job_in_full(&state.service, &record).await.map_err(&fail)?,
    ))
}

/// `POST /jobs/{job}/cancel`.
///
/// # Errors
/// 404, also for another tenant's.
pub async fn cancel(
    State(state): State<AppState>,
    caller: Result<Caller, Rejection>,
    Path(job): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let caller = caller?;
    let fail = ApiError::service(&caller.request_id);
    let job = job_id(&job).map_err(&fail)?;
    let tenant = views::visible_tenant(&caller);
    let done = state.service.cancel(tenant, job).await.map_err(&fail)?;
    let record = state.service.job(tenant, job).await.map_err(&fail)?;
    let result = match done {
        Cancelled::Now => "cancelled",
        Cancelled::Requested => "requested",
        Cancelled::AlreadyFinal(_) => "already_final",
    };
    Ok(Json(json!({ "result": result, "state": record.state })))
}

/// `POST /jobs/{job}/retry`: a finished job is queued again.
///
/// # Errors
/// 404, also for another tenant's; 400 while it has not ended.
pub async fn retry(
    State(state): State<AppState>,
    caller: Result<Caller, Rejection>,
    Path(job): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let caller = caller?;
    let fail = ApiError::service(&caller.request_id);
    let job = job_id(&job).map_err(&fail)?;
    let tenant = views::visible_tenant(&caller);
    state.service.retry(tenant, job).await.map_err(&fail)?;
    let record = state.service.job(tenant, job).await.map_err(&fail)?;
    Ok(Json(views::job(&state.service, &record)))
}

/// A job id from a path.
///
/// # Errors
/// Not found: what is no id of ours cannot be a job of ours.
pub fn job_id(text: &str) -> Result<JobId, Error> {
    text.parse().map_err(|_| Error::not_found("job", text))
}

/// An endpoint's name from a path or query.
///
/// # Errors
/// Not found: what is no name cannot be an endpoint.
pub fn endpoint_name(text: &str) -> Result<EndpointName, Error> {
    text.parse().map_err(|_| Error::not_found("endpoint", text))
}
