//! `POST /workflows/{workflow}/run`: a typed call. It waits for the end (the default), answers at once (`mode=async` or
//! `Prefer: respond-async`), or streams what happens (`mode=stream` or `Accept: text/event-stream`).

use std::{convert::Infallible, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::{Path, Query, State},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use darkroom_core::{EndpointName, JobId, JobState};
use futures::{StreamExt, stream};
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    super::{body::read_json, call::Call, error::ApiError, events, facts::Said},
    outcome::{self, job_failed},
};
use crate::{
    auth::Scope,
    service::{
        Error,
        intake::Fetch,
        published::{CallError, NoResource, Unknown, WorkflowCall},
    },
    state::{AppState, BaseUrl},
};

/// The body.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Run {
    /// Values by published name.
    inputs: Map<String, Value>,
    /// `v3`; wins over an alias.
    version: Option<String>,
    /// `main` if left out.
    alias: Option<String>,
    /// Every seed that is not given becomes random.
    randomise_seeds: bool,
    /// Temporary files are told as well.
    return_temp_files: bool,
    /// Resource configs, comma-separated; `default` is the workflow's own endpoint.
    resource: Option<String>,
    /// Higher runs first.
    priority: i32,
    /// The client's own id: a second call with it returns the first job.
    reference: Option<String>,
    /// Where to tell of the job's end.
    webhook: Option<String>,
}

/// The query.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Params {
    mode: Option<Mode>,
}

/// How the caller wants its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// When it is over.
    Sync,
    /// At once.
    Async,
    /// As it goes.
    Stream,
}

impl Mode {
    fn of(params: &Params, headers: &HeaderMap) -> Mode {
        let says = |name: &str, word: &str| {
            let text = headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or_default();
            text.split([',', ';'])
                .any(|part| part.trim().eq_ignore_ascii_case(word))
        };
        match params.mode {
            Some(mode) => mode,
            None if says(header::ACCEPT.as_str(), "text/event-stream") => Mode::Stream,
            None if says("prefer", "respond-async") => Mode::Async,
            None => Mode::Sync,
        }
    }
}

/// The handler: 200 with the outputs, 202 with the job, or an event stream.
///
/// # Errors
/// 404 for what is not there; 422 for values that the version does not take, all of them told; 422 `job_failed` when a job
/// that was waited for did not succeed.
pub async fn run(
    State(state): State<AppState>,
    call: Call,
    Path(workflow): Path<String>,
    Query(params): Query<Params>,
    BaseUrl(base): BaseUrl,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    if !call.caller.anonymous {
        call.needs_anywhere(Scope::Client)?;
    }
    let mode = Mode::of(&params, &headers);
    let read = read_json::<Run>(&call, &state.service.memory, &headers, body).await?;
    let (run, size_bytes, memory) = (read.parsed, read.size, read.held);
    let said = Said {
        priority: run.priority,
        reference: run.reference,
        webhook: run.webhook,
    };
    let facts = call.job_facts(&state.service, said, &base)?;
    let key = call.workflow_key(&workflow)?;
    let version = run
        .version
        .as_deref()
        .map(|text| call.version(text))
        .transpose()?;
    let alias = run.alias.as_deref().map(|text| call.alias(text)).transpose()?;
    let resources = run
        .resource
        .as_deref()
        .unwrap_or_default()
        .split(',')
        .map(str::trim);
    let caller = call.caller.clone();
    let may = move |endpoint: &EndpointName| caller.may(Scope::Client, endpoint).is_ok();
    let called = state
        .service
        .call_workflow(WorkflowCall {
            tenant: call.caller.tenant.clone(),
            workflow: key.id,
            version,
            alias,
            inputs: run.inputs,
            randomise_seeds: run.randomise_seeds,
            return_temp_files: run.return_temp_files,
            resources: resources.filter(|id| !id.is_empty()).map(str::to_owned).collect(),
            may: &may,
            fetch: match mode {
                Mode::Sync => Fetch::Now,
                Mode::Async | Mode::Stream => Fetch::Later,
            },
            priority: facts.priority,
            external_id: facts.external_id,
            meta: facts.meta,
            size_bytes,
            memory,
        })
        .await;
    let called = match called {
        Ok(called) => called,
        Err(error) => return refused(error, &call),
    };
    match mode {
        Mode::Async => {
            let view = outcome::of_job(&state.service, called.job, &base)
                .await
                .map_err(|e| call.fail(e))?;
            Ok((StatusCode::ACCEPTED, Json(view)).into_response())
        }
        Mode::Stream => Ok(stream(state, called.job, base).into_response()),
        Mode::Sync => {
            let record = tokio::select! {
                record = state.service.wait_final(called.job) => record.map_err(|e| call.fail(e))?,
                () = state.closing.cancelled() => return Err(call.fail(stopping(called.job))),
            };
            let view = outcome::of_record(&state.service, &record, &base);
            match record.state {
                JobState::Succeeded => Ok(Json(view).into_response()),
                _ => Ok(job_failed(&record, view, &call)),
            }
        }
    }
}

fn stopping(job: JobId) -> Error {
    Error::Unavailable {
        reason: format!("the server stops; job {job} goes on, ask for it later"),
        retry_after: Duration::from_secs(2),
    }
}

/// `job` first, what happens, and `result` last.
fn stream(state: AppState, job: JobId, base: String) -> impl IntoResponse {
    let first = json!({ "job": job });
    let first = Event::default().event("job").data(first.to_string());
    let head = stream::iter([Ok::<Event, Infallible>(first)]);
    let follower = state.service.follow(job, 0);
    let happens = events::until_end(follower, state.clone());
    let last = stream::once(async move {
        let view = outcome::of_job(&state.service, job, &base)
            .await
            .unwrap_or(Value::Null);
        Ok(Event::default().event("result").data(view.to_string()))
    });
    let keep_alive = KeepAlive::new().interval(Duration::from_secs(15)).text("ping");
    Sse::new(head.chain(happens).chain(last)).keep_alive(keep_alive)
}

fn refused(error: CallError, call: &Call) -> Result<Response, ApiError> {
    let message = error.to_string();
    let (status, code, details) = match error {
        CallError::Service(error) | CallError::Resource(NoResource::Service(error)) => {
            return Err(call.fail(error));
        }
        CallError::Unknown(unknown) => match unknown {
            Unknown::Service(error) => return Err(call.fail(error)),
            Unknown::Workflow(_) => (StatusCode::NOT_FOUND, "workflow_not_found", Value::Null),
            Unknown::Version { .. } => (StatusCode::NOT_FOUND, "version_not_found", Value::Null),
            Unknown::Alias { .. } => (StatusCode::NOT_FOUND, "alias_not_found", Value::Null),
        },
        CallError::Inputs(problems) => {
            let problems: Vec<Value> = problems
                .iter()
                .map(|p| json!({ "input": p.input, "code": p.kind.as_str(), "message": p.message }))
                .collect();
            (
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_input",
                json!({ "inputs": problems }),
            )
        }
        CallError::Unfit(findings) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "workflow_unfit",
            json!({ "findings": findings }),
        ),
        CallError::Resource(NoResource::Unknown(_)) => {
            (StatusCode::NOT_FOUND, "resource_not_found", Value::Null)
        }
        CallError::Resource(NoResource::Forbidden(_)) => {
            (StatusCode::FORBIDDEN, "resource_forbidden", Value::Null)
        }
        CallError::Resource(NoResource::Busy(_)) => {
            (StatusCode::TOO_MANY_REQUESTS, "resource_busy", Value::Null)
        }
    };
    Ok(outcome::error(status, code, &message, details, call))
}

/// `GET /workflows/{workflow}/runs/{job}`: how far a run is, and its outputs by name once it is over.
///
/// # Errors
/// 404, also for a job that is no run of this workflow.
pub async fn show(
    State(state): State<AppState>,
    call: Call,
    Path((workflow, job)): Path<(String, String)>,
    BaseUrl(base): BaseUrl,
) -> Result<Json<Value>, ApiError> {
    let record = call.job(&state.service, &job).await?;
    let mut view = outcome::of_record(&state.service, &record, &base);
    if view["workflow_id"].as_str() != Some(workflow.as_str()) {
        return Err(call.fail(Error::not_found("run", &job)));
    }
    let progress = state
        .service
        .progress_of(&record)
        .await
        .map_err(|e| call.fail(e))?;
    view["progress"] = Value::from(progress.fraction);
    view["remaining_s"] = progress
        .remaining
        .map_or(Value::Null, |left| Value::from(left.as_secs_f64()));
    view["position"] = progress.position.map_or(Value::Null, Value::from);
    view["node"] = progress.node.map_or(Value::Null, Value::from);
    Ok(Json(view))
}
