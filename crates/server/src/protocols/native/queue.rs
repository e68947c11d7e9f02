//! `GET /queue` and `POST /queue`: what runs and waits, and taking out what waits (`comfyui/behaviour.md` §2).

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use darkroom_core::JobState;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, StatusCode};

use super::{
    body::Removal,
    call::NativeCall,
    entry::prompt_of,
    error::{NativeError, Refused},
    ids,
    streamed::{AHEAD, json_answer, separated, text},
};
use crate::{
    beside::beside,
    service::{Error, Service, jobs::JobRecord},
    state::AppState,
};

/// Prompts that a list holds at most, of either kind.
const MOST: usize = 1000;

/// `GET /queue`: the caller's own prompts.
///
/// # Errors
/// Refusals in this protocol's shape.
pub async fn show(State(state): State<AppState>, call: NativeCall) -> Result<Response, Refused> {
    call.may_list()?;
    let fail = |error: Error| call.refuse(error);
    let service = &state.service;
    let (tenant, endpoint) = (&call.caller.tenant, &call.endpoint.name);
    let states = [JobState::Running, JobState::Queued];
    let open = service.open_jobs(tenant, endpoint, &states).await.map_err(fail)?;
    let (running, waiting): (Vec<_>, Vec<_>) =
        open.into_iter().partition(|job| job.state == JobState::Running);
    let (running, waiting) = (prompts(service, running), prompts(service, waiting));
    Ok(json_answer(
        text("{\"queue_running\":[")
            .chain(running)
            .chain(text("],\"queue_pending\":["))
            .chain(waiting)
            .chain(text("]}")),
    ))
}

fn prompts(service: &Service, jobs: Vec<JobRecord>) -> impl Stream<Item = Result<Bytes, Error>> + use<> {
    let service = service.clone();
    let prompts = stream::iter(jobs)
        .take(MOST)
        .map(move |job| prompt(service.clone(), job))
        .buffered(AHEAD);
    separated(prompts)
}

async fn prompt(service: Service, job: JobRecord) -> Result<Option<Vec<u8>>, Error> {
    let Some(prompt) = prompt_of(&service, &job).await? else {
        return Ok(None);
    };
    let json = beside(prompt.size(), move || serde_json::to_vec(&prompt)).await;
    json.map(Some).map_err(|error| Error::Internal(error.into()))
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
