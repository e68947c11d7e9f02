//! `GET /api/serverless/status?task_id=`: every message so far as one array (`protocols/comfyui-serverless-fc.md` §7).

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use darkroom_core::EndpointName;
use http::header;
use serde::Deserialize;

use super::{
    DIALECT,
    call::FcCall,
    error::{FcError, Refused},
    messages::{Transcript, of_event},
    request::Flags,
    run::common_headers,
};
use crate::{
    auth::Caller,
    service::{Error, Service, jobs::JobRecord},
    state::AppState,
};

/// The query.
#[derive(Debug, Deserialize)]
pub struct Params {
    #[serde(default)]
    task_id: String,
}

/// The handler. A task that is unknown, of another tenant, or has not begun is an empty array: the vendor's sample
/// polls from the first second on and never expects an error.
///
/// # Errors
/// Without a task id, or without access.
pub async fn handler(State(state): State<AppState>, call: FcCall<Params>) -> Result<Response, Refused> {
    let task_id = call.query.task_id.as_str();
    if task_id.is_empty() {
        return Err(call.refuse(FcError::invalid("task_id is required")));
    }
    let found = find(&state.service, &call.caller, &call.endpoint, task_id)
        .await
        .map_err(|e| call.refuse(e))?;
    let messages = match found {
        Some(job) => messages(&state.service, &job, call.base_url.clone())
            .await
            .map_err(|e| call.refuse(e))?,
        None => vec![],
    };
    let mut response = (
        [(header::CONTENT_TYPE, "application/json")],
        format!("[{}]", messages.join(",")),
    )
        .into_response();
    common_headers(response.headers_mut(), task_id);
    Ok(response)
}

/// The task of an id: one the caller chose, or the one we made (the job's own).
///
/// # Errors
/// When the store fails.
pub async fn find(
    service: &Service,
    caller: &Caller,
    endpoint: &EndpointName,
    task_id: &str,
) -> Result<Option<JobRecord>, Error> {
    if let Some(job) = service
        .job_named(&caller.tenant, endpoint, DIALECT, task_id)
        .await?
    {
        return Ok(Some(job));
    }
    let Ok(id) = task_id.parse() else { return Ok(None) };
    match service.job(Some(&caller.tenant), id).await {
        Ok(job) => Ok((job.endpoint == *endpoint).then_some(job)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Every message of a job so far, as JSON texts. The array only grows, so that a reader can go on from the length it
/// saw; progress, which is not kept, is in the task's record instead.
///
/// # Errors
/// When the store or an output cannot be read.
pub async fn messages(service: &Service, job: &JobRecord, base_url: String) -> Result<Vec<String>, Error> {
    let mut messages = Vec::new();
    let events = service.events(job.id, 0).await?;
    for event in &events {
        messages.extend(of_event(event));
    }
    let flags: Flags = serde_json::from_value(job.meta.options.clone()).unwrap_or_default();
    messages.extend(
        Transcript::new(service.clone(), flags, base_url)
            .of_end(job)
            .await?,
    );
    Ok(messages)
}
