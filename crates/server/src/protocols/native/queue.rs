//! `GET /queue` and `POST /queue`: what runs and waits, and taking out what waits (`comfyui/behaviour.md` §2).

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use darkroom_core::JobState;
use http::{HeaderMap, StatusCode};
use serde::Serialize;

use super::{
    body::Removal,
    call::NativeCall,
    entry::{Prompt, prompt_of},
    error::{NativeError, Refused},
    ids,
};
use crate::{
    beside::beside,
    service::{Error, Service, jobs::JobRecord},
    state::AppState,
};

/// Prompts that a list holds at most, of either kind.
const MOST: usize = 1000;

#[derive(Serialize)]
struct Queue {
    queue_running: Vec<Prompt>,
    queue_pending: Vec<Prompt>,
}

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
    let queue = Queue {
        queue_running: prompts(service, &running).await.map_err(fail)?,
        queue_pending: prompts(service, &waiting).await.map_err(fail)?,
    };
    let size = queue
        .queue_running
        .iter()
        .chain(&queue.queue_pending)
        .map(Prompt::size)
        .sum();
    let json = beside(size, move || serde_json::to_vec(&queue)).await;
    let json = json.map_err(|error| fail(Error::Internal(error.into())))?;
    Ok(super::json_response(json))
}

async fn prompts(service: &Service, jobs: &[JobRecord]) -> Result<Vec<Prompt>, Error> {
    let mut prompts = Vec::new();
    for job in jobs.iter().take(MOST) {
        prompts.extend(prompt_of(service, job).await?);
    }
    Ok(prompts)
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
