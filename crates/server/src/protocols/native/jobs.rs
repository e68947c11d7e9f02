//! `/api/jobs`: the newer list of waiting, running and ended prompts in one (`protocols/comfyui-multi-instance.md`). Its
//! errors are `{"error": text}`.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use darkroom_core::JobState;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{body::id_text, call::NativeCall, error::Refused, ids, job_query::Wanted, job_view};
use crate::{
    http::read_body,
    service::{Error, Service, history::HistoryPage, jobs::JobRecord},
    state::AppState,
};

/// Largest body of a cancel, in bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// `GET /api/jobs`.
///
/// # Errors
/// Refusals of access in this protocol's shape.
pub async fn list(
    State(state): State<AppState>,
    call: NativeCall<super::job_query::Query>,
) -> Result<Response, Refused> {
    call.may_list()?;
    let wanted = match Wanted::read(&call.query) {
        Ok(wanted) => wanted,
        Err(message) => return Ok(refused(StatusCode::BAD_REQUEST, &message)),
    };
    let page = page(&state.service, &call, &wanted).await;
    let (jobs, total) = page.map_err(|error| call.refuse(error))?;
    let shown: Vec<Value> = jobs.iter().map(job_view::listed).collect();
    let has_more = wanted.offset + (shown.len() as u64) < total;
    let body = json!({
        "jobs": shown,
        "pagination": {
            "offset": wanted.offset, "limit": wanted.limit, "total": total, "has_more": has_more,
        },
    });
    Ok(Json(body).into_response())
}

/// A piece of those that have not ended and those that have, in one order; and how many there are in all.
async fn page<Q>(
    service: &Service,
    call: &NativeCall<Q>,
    wanted: &Wanted,
) -> Result<(Vec<JobRecord>, u64), Error> {
    let (tenant, endpoint) = (&call.caller.tenant, &call.endpoint.name);
    let mut open = match wanted.open.is_empty() {
        true => Vec::new(),
        false => service.open_jobs(tenant, endpoint, &wanted.open).await?,
    };
    if let Some(workflow) = &wanted.workflow_id {
        open.retain(|job| ids::Options::of(job).workflow_id.as_deref() == Some(workflow));
    }
    let mut total = open.len() as u64;
    // Of what stands before the page at most so many are open; the rest is history, which need not be read.
    let ahead = wanted.offset.min(total);
    if let Some(filter) = wanted.history(tenant, endpoint) {
        let page = HistoryPage {
            order: wanted.order,
            descending: wanted.descending,
            offset: wanted.offset - ahead,
            limit: wanted
                .limit
                .saturating_add(u32::try_from(ahead).unwrap_or(u32::MAX)),
        };
        total += service.history_len(filter.clone()).await?;
        open.extend(service.history(filter, page).await?);
    }
    open.sort_by_key(|job| wanted.key(job));
    let skip = usize::try_from(ahead).unwrap_or(usize::MAX);
    let page = open.into_iter().skip(skip).take(wanted.limit as usize);
    Ok((page.collect(), total))
}

/// The path of one job, below the root or below `/e/{endpoint}`.
#[derive(Debug, Deserialize)]
pub struct JobPath {
    job_id: String,
}

/// `GET /api/jobs/{id}`.
///
/// # Errors
/// Refusals of access in this protocol's shape.
pub async fn show(
    State(state): State<AppState>,
    call: NativeCall,
    Path(path): Path<JobPath>,
) -> Result<Response, Refused> {
    let service = &state.service;
    let found = async {
        let Some(job) = ids::find(service, &call, &path.job_id).await? else {
            return Ok(None);
        };
        if job.state.is_final() && !service.is_remembered(job.id).await? {
            return Ok(None);
        }
        job_view::in_full(service, &job).await
    };
    match found.await.map_err(|error: Error| call.refuse(error))? {
        Some(view) => Ok(Json(view).into_response()),
        None => Ok(not_found()),
    }
}

/// `POST /api/jobs/{id}/cancel`: `{"cancelled": true}` where there was something to cancel.
///
/// # Errors
/// Refusals of access in this protocol's shape.
pub async fn cancel(
    State(state): State<AppState>,
    call: NativeCall,
    Path(path): Path<JobPath>,
) -> Result<Response, Refused> {
    let service = &state.service;
    let done = async {
        match ids::find(service, &call, &path.job_id).await? {
            Some(job) => end(service, &job).await.map(Some),
            None => Ok(None),
        }
    };
    match done.await.map_err(|error| call.refuse(error))? {
        Some(cancelled) => Ok(Json(json!({ "cancelled": cancelled })).into_response()),
        None => Ok(not_found()),
    }
}

/// `POST /api/jobs/cancel` of `{"job_ids": [ids]}`; unknown ones are ignored.
///
/// # Errors
/// Refusals of access in this protocol's shape.
pub async fn cancel_many(
    State(state): State<AppState>,
    call: NativeCall,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let service = &state.service;
    let read = read_body(&headers, body, MAX_BODY_BYTES, &service.memory).await;
    let (body, _held) = read.map_err(|error| call.refuse(error))?;
    let Some(wanted) = job_ids(&body) else {
        return Ok(refused(StatusCode::BAD_REQUEST, "job_ids must be a list of ids"));
    };
    let done = async {
        let mut cancelled = false;
        for job in ids::find_all(service, &call, &wanted).await? {
            cancelled |= end(service, &job).await?;
        }
        Ok::<_, Error>(cancelled)
    };
    let cancelled = done.await.map_err(|error| call.refuse(error))?;
    Ok(Json(json!({ "cancelled": cancelled })).into_response())
}

fn job_ids(body: &[u8]) -> Option<Vec<String>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let ids = body.get("job_ids")?.as_array()?;
    ids.iter().map(id_text).collect()
}

async fn end(service: &Service, job: &JobRecord) -> Result<bool, Error> {
    use crate::service::jobs::Cancelled;
    if job.state == JobState::Running && job.cancel_requested {
        return Ok(true);
    }
    let outcome = service.cancel(Some(&job.tenant), job.id).await?;
    Ok(!matches!(outcome, Cancelled::AlreadyFinal(_)))
}

fn not_found() -> Response {
    refused(StatusCode::NOT_FOUND, "Job not found")
}

fn refused(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}
