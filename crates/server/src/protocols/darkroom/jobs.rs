//! Jobs: submit, show, list, cancel, retry.

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use darkroom_core::JobState;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{body::read_json, call::Call, error::ApiError, facts::Said, views};
use crate::{
    auth::Scope,
    http::cold_start_header,
    service::{
        Error,
        intake::Fetch,
        jobs::{Cancelled, JobFilter, Page},
        submit::ComfySubmit,
    },
    state::{AppState, BaseUrl},
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
    /// Where to tell of the job's end.
    #[serde(default)]
    webhook: Option<String>,
}

/// `POST /endpoints/{endpoint}/jobs`: 201 with the job, 200 when the reference was used before.
///
/// # Errors
/// Every refusal of a submit.
pub async fn submit(
    State(state): State<AppState>,
    call: Call,
    Path(endpoint): Path<String>,
    BaseUrl(base_url): BaseUrl,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let endpoint = call.endpoint(&endpoint)?;
    call.needs(Scope::Client, &endpoint)?;
    let read = read_json::<Submit>(&call, &state.service.memory, &headers, body).await?;
    let (body, size_bytes, held) = (read.parsed, read.size, read.held);
    let said = Said {
        priority: body.priority,
        reference: body.reference,
        webhook: body.webhook,
    };
    let facts = call.job_facts(&state.service, said, &base_url)?;
    let accepted = state
        .service
        .submit_comfy(ComfySubmit {
            tenant: call.caller.tenant.clone(),
            endpoint,
            graph: body.graph,
            extra_data: body.extra_data,
            targets: body.targets,
            priority: facts.priority,
            external_id: facts.external_id,
            randomise_seeds: false,
            fetch: Fetch::Now,
            meta: facts.meta,
            size_bytes,
            memory: held,
        })
        .await
        .map_err(|e| call.fail(e))?;
    let record = state
        .service
        .job(Some(&call.caller.tenant), accepted.job)
        .await
        .map_err(|e| call.fail(e))?;
    let view = views::job_in_full(&state.service, &call.caller, &record)
        .await
        .map_err(|e| call.fail(e))?;
    let status = if accepted.existed {
        StatusCode::OK
    } else {
        StatusCode::CREATED
    };
    let cold = cold_start_header(accepted.cold_start);
    Ok((status, cold, Json(view)).into_response())
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
    call: Call,
    Query(params): Query<ListParams>,
) -> Result<Json<Value>, ApiError> {
    let endpoint = params
        .endpoint
        .as_deref()
        .map(|name| call.endpoint(name))
        .transpose()?;
    match &endpoint {
        Some(endpoint) => call.needs_list(endpoint)?,
        None => call.needs_anywhere(Scope::Client)?,
    }
    let mut states = Vec::new();
    for word in params
        .state
        .iter()
        .flat_map(|s| s.split(','))
        .filter(|w| !w.is_empty())
    {
        let known = JobState::parse(word);
        states.push(known.ok_or_else(|| call.fail(Error::Invalid(format!("'{word:.40}' is not a state"))))?);
    }
    let after = params.after.as_deref().map(|id| call.job_id(id)).transpose()?;
    let limit = params.limit.unwrap_or(50).clamp(1, 500);
    let filter = JobFilter {
        tenant: call.caller.visible_tenant().cloned(),
        endpoint,
        endpoints: call.caller.visible_endpoints(),
        states,
        ..JobFilter::default()
    };
    let jobs = state
        .service
        .jobs(filter, Page { limit, after })
        .await
        .map_err(|e| call.fail(e))?;
    let next = (jobs.len() == limit as usize)
        .then(|| jobs.last().map(|j| j.id))
        .flatten();
    let jobs = views::jobs(&state.service, &call.caller, &jobs)
        .await
        .map_err(|e| call.fail(e))?;
    Ok(Json(json!({ "jobs": jobs, "next": next })))
}

/// `GET /jobs/{job}`.
///
/// # Errors
/// 404, also for one that the caller may not see.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    Path(job): Path<String>,
) -> Result<Response, ApiError> {
    let record = call.job(&state.service, &job).await?;
    let view = views::job_in_full(&state.service, &call.caller, &record)
        .await
        .map_err(|e| call.fail(e))?;
    let cold = state
        .service
        .cold_start(&record)
        .await
        .map_err(|e| call.fail(e))?;
    Ok((cold_start_header(cold), Json(view)).into_response())
}

/// `POST /jobs/{job}/cancel`.
///
/// # Errors
/// 404, also for one that the caller may not see.
pub async fn cancel(
    State(state): State<AppState>,
    call: Call,
    Path(job): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let job = call.job(&state.service, &job).await?.id;
    let tenant = call.caller.visible_tenant();
    let done = state
        .service
        .cancel(tenant, job)
        .await
        .map_err(|e| call.fail(e))?;
    let record = state.service.job(tenant, job).await.map_err(|e| call.fail(e))?;
    let result = match done {
        Cancelled::Now => "cancelled",
        Cancelled::Requested => "requested",
        Cancelled::AlreadyFinal(_) => "already_final",
    };
    Ok(Json(json!({ "result": result, "state": record.state })))
}

/// `DELETE /jobs/{job}`: a finished job goes with its files.
///
/// # Errors
/// 404, also for one that the caller may not see; 401 without a key on a server that has some; 400 while it has not ended; 503
/// while its end is being told.
pub async fn delete(
    State(state): State<AppState>,
    call: Call,
    Path(job): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let job = call.job(&state.service, &job).await?;
    if call.caller.anonymous {
        // All who come without a key are one tenant, and ids stand in the addresses of files: what one made is not another's to
        // destroy.
        call.needs(Scope::Admin, &job.endpoint)?;
    }
    let (job, tenant) = (job.id, call.caller.visible_tenant());
    let deleted = state.service.delete_job(tenant, job).await;
    deleted.map_err(|e| call.fail(e))?;
    Ok(Json(json!({ "id": job, "deleted": true })))
}

/// `POST /jobs/{job}/retry`: a finished job is queued again.
///
/// # Errors
/// 404, also for one that the caller may not see; 400 while it has not ended.
pub async fn retry(
    State(state): State<AppState>,
    call: Call,
    Path(job): Path<String>,
) -> Result<Json<Value>, ApiError> {
    let job = call.job(&state.service, &job).await?.id;
    let tenant = call.caller.visible_tenant();
    state.service.retry(tenant, job).await.map_err(|e| call.fail(e))?;
    let record = state.service.job(tenant, job).await.map_err(|e| call.fail(e))?;
    Ok(Json(views::job(&state.service, &record)))
}
