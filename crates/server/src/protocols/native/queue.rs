//! `GET /queue` and `POST /queue`: what runs and waits, and taking out what waits (`comfyui/behaviour.md` §2).

use std::collections::HashSet;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use darkroom_core::{JobId, JobState};
use futures::{Stream, StreamExt, TryStreamExt, stream};
use http::{HeaderMap, StatusCode};

use super::{
    body::Removal,
    call::NativeCall,
    entry::prompt_of,
    error::{NativeError, Refused},
    ids,
    streamed::{Item, json_answer, memory_for, separated, text},
};
use crate::{
    beside::beside,
    service::{Error, Service, jobs::JobRecord},
    state::AppState,
};

/// `GET /queue`: the caller's own prompts.
///
/// # Errors
/// Refusals in this protocol's shape.
pub async fn show(State(state): State<AppState>, call: NativeCall) -> Result<Response, Refused> {
    call.may_list()?;
    let fail = |error: Error| call.refuse(error);
    let service = &state.service;
    let (tenant, endpoint) = (&call.caller.tenant, &call.endpoint.name);
    let running = service.running_jobs(tenant, endpoint).await.map_err(fail)?;
    let waiting = service.waiting_jobs(tenant, endpoint).await.map_err(fail)?;
    let begun: HashSet<JobId> = running.iter().map(|job| job.id).collect();
    let running = prompts(service, stream::iter(running.into_iter().map(Ok)));
    // One that began since stands among those that run, or in the next answer.
    let waiting = service.records(waiting).try_filter(move |job| {
        let waits = job.state == JobState::Queued && !begun.contains(&job.id);
        std::future::ready(waits)
    });
    let waiting = prompts(service, waiting);
    Ok(json_answer(
        text("{\"queue_running\":[")
            .chain(running)
            .chain(text("],\"queue_pending\":["))
            .chain(waiting)
            .chain(text("]}")),
    ))
}

fn prompts<Jobs>(service: &Service, jobs: Jobs) -> impl Stream<Item = Result<Bytes, Error>> + use<Jobs>
where
    Jobs: Stream<Item = Result<JobRecord, Error>>,
{
    let service = service.clone();
    separated(jobs.and_then(move |job| prompt(service.clone(), job)))
}

async fn prompt(service: Service, job: JobRecord) -> Result<Option<Item>, Error> {
    let held = memory_for(&service, &job).await?;
    let Some(prompt) = prompt_of(&service, &job).await? else {
        return Ok(None);
    };
    let json = beside(prompt.size(), move || serde_json::to_vec(&prompt)).await;
    let json = json.map_err(|error| Error::Internal(error.into()))?;
    Ok(Some(Item { json, held }))
}

/// `POST /queue`: `{"clear": true}` and `{"delete": [ids]}` take out what waits, never what runs. Unknown ids are ignored.
///
/// # Errors
/// Refusals in this protocol's shape.
pub async fn change(
    State(state): State<AppState>,
    call: NativeCall,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    remove(&state.service, &call, &headers, body)
        .await
        .map_err(|error| call.refuse(error))?;
    Ok(StatusCode::OK.into_response())
}

async fn remove(
    service: &Service,
    call: &NativeCall,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), NativeError> {
    let removal = Removal::read(headers, body, &service.memory).await?;
    let tenant = &call.caller.tenant;
    // Callers without a key share a tenant: they take out what they can name.
    if removal.clear && call.caller.may_list(&call.endpoint.name).is_ok() {
        service.clear_waiting(tenant, &call.endpoint.name).await?;
    }
    let named = ids::find_all(service, call, &removal.delete).await?;
    let named = named.iter().map(|job| job.id).collect();
    Ok(service.cancel_waiting(tenant, named).await?)
}
