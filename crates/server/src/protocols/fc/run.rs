//! `POST /api/serverless/run`: JSON, server-sent events, or `202` (`protocols/comfyui-serverless-fc.md` §2, §5, §7).
//!
//! A caller that goes away does not end its job: it was accepted, and can be read from `status`.

use std::{convert::Infallible, time::Duration};

use axum::{
    body::Body,
    extract::State,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use darkroom_core::{EndpointName, JobId};
use futures::{Stream, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde_json::json;

use super::{
    DIALECT, MAX_ASYNC_BODY_BYTES, MAX_BODY_BYTES,
    call::FcCall,
    error::{FcError, Refused},
    messages::Transcript,
    reader::Reader,
    request::{Flags, Invocation, TaskId, Workflow},
    result,
};
use crate::{
    auth::Caller,
    beside::beside,
    http::{cold_start_header, read_body},
    memory::Held,
    service::{
        intake::Fetch,
        jobs::{ExternalId, JobMeta, OnDuplicate},
        submit::{Accepted, ComfySubmit},
    },
    state::AppState,
};

/// A comment line this often keeps proxies from cutting a stream while an instance starts.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The handler.
///
/// # Errors
/// Every refusal, in this protocol's shape.
pub async fn handler(
    State(state): State<AppState>,
    call: FcCall<Flags>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    let flags = call.query;
    let invocation = Invocation::read(&headers).map_err(|e| call.refuse(e))?;
    // The caller's id names the request from here on, also where it is refused.
    let named = invocation.task_id.as_ref().map(|id| id.as_str().to_owned());
    let request_id = named.unwrap_or_else(|| call.caller.request_id.to_string());
    let refuse = |error: FcError| Refused(error, request_id.clone());
    let limit = match invocation.asynchronous && vendor_limits(&state, &call.endpoint) {
        true => MAX_ASYNC_BODY_BYTES,
        false => MAX_BODY_BYTES,
    };
    let (body, memory) = read_body(&headers, body, limit, &state.service.memory)
        .await
        .map_err(|e| refuse(e.into()))?;
    let workflow = beside(body.len(), move || Workflow::read(&body))
        .await
        .map_err(refuse)?;
    let accepted = submit(&state, &call, workflow, &invocation, memory)
        .await
        .map_err(refuse)?;
    let job = accepted.job;
    let cold = cold_start_header(accepted.cold_start);
    let task_id = invocation
        .task_id
        .as_ref()
        .map_or_else(|| job.to_string(), |id| id.as_str().to_owned());
    let fail = |error: FcError| Refused(error, task_id.clone());

    if invocation.asynchronous {
        let mut response = (StatusCode::ACCEPTED, cold).into_response();
        common_headers(response.headers_mut(), &task_id);
        if let Some(TaskId::AsyncTask(id)) = &invocation.task_id
            && let Ok(value) = HeaderValue::from_str(id)
        {
            response.headers_mut().insert("x-fc-async-task-id", value);
        }
        return Ok(response);
    }
    if flags.stream {
        let transcript = Transcript::new(state.service.clone(), flags, call.base_url);
        let stream = Sse::new(events(state, job, transcript))
            .keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("ping"));
        let mut response = (cold, stream).into_response();
        common_headers(response.headers_mut(), &task_id);
        response
            .headers_mut()
            .insert("x-accel-buffering", HeaderValue::from_static("no"));
        return Ok(response);
    }
    let record = tokio::select! {
        record = state.service.wait_final(job) => record.map_err(|e| fail(e.into()))?,
        () = state.closing.cancelled() => return Err(fail(FcError::stopping())),
    };
    if let Some(error) = FcError::of_job(&record) {
        return Err(fail(error));
    }
    let result = result::of_job(&state.service, &record, flags, &call.base_url)
        .await
        .map_err(|e| fail(e.into()))?;
    let mut response = (cold, [(header::CONTENT_TYPE, "application/json")], result).into_response();
    common_headers(response.headers_mut(), &task_id);
    Ok(response)
}

/// Accepts the workflow of a request as a job of its caller.
///
/// # Errors
/// Every refusal of the service.
pub async fn submit(
    state: &AppState,
    call: &FcCall<Flags>,
    workflow: Workflow,
    invocation: &Invocation,
    memory: Held,
) -> Result<Accepted, FcError> {
    Ok(state
        .service
        .submit_comfy(ComfySubmit {
            tenant: call.caller.tenant.clone(),
            endpoint: call.endpoint.clone(),
            graph: workflow.graph,
            extra_data: workflow.extra_data,
            targets: None,
            priority: 0,
            external_id: external_id(&call.caller, invocation),
            randomise_seeds: true,
            fetch: if invocation.asynchronous {
                Fetch::Later
            } else {
                Fetch::Now
            },
            meta: JobMeta {
                dialect: "fc".to_owned(),
                request_id: call.caller.request_id.to_string(),
                options: json!(call.query),
                ..JobMeta::default()
            },
            size_bytes: workflow.size_bytes,
            memory,
        })
        .await?)
}

/// The caller's own name for the job. Callers without credentials share one tenant and reach jobs by ids nobody can guess:
/// of theirs only UUIDs become names, and a name once given does not move to somebody else's job.
fn external_id(caller: &Caller, invocation: &Invocation) -> Option<ExternalId> {
    let id = invocation.task_id.as_ref()?;
    if caller.anonymous && id.as_str().parse::<uuid::Uuid>().is_err() {
        return None;
    }
    let may_move = match id {
        TaskId::AsyncTask(_) => false,
        TaskId::Trace(_) => !invocation.asynchronous && !caller.anonymous,
    };
    Some(ExternalId {
        dialect: DIALECT.to_owned(),
        id: id.as_str().to_owned(),
        on_duplicate: match may_move {
            true => OnDuplicate::Replace,
            false => OnDuplicate::Reject,
        },
    })
}

/// Headers of every answer: the request id that `status` takes.
pub fn common_headers(headers: &mut HeaderMap, task_id: &str) {
    if let Ok(value) = HeaderValue::from_str(task_id) {
        headers.insert("x-fc-request-id", value);
    }
}

fn vendor_limits(state: &AppState, endpoint: &EndpointName) -> bool {
    state
        .service
        .endpoint(endpoint)
        .is_ok_and(|e| e.limits.vendor_limits)
}

/// One `data:` line per message, then the end.
fn events(
    state: AppState,
    job: JobId,
    transcript: Transcript,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let reader = Reader::new(state, job, transcript);
    stream::unfold(reader, |mut reader| async move {
        let text = reader.next().await?;
        Some((Ok(Event::default().data(text)), reader))
    })
}
