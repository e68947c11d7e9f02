//! `/darkroom/v1/agent`: the port of the attempts for agents on other machines (`darkroom_runner::wire` says what is said).
//! The scope is `worker`, on the agent's endpoint.

use axum::{
    Json, Router,
    body::Body,
    extract::{FromRequestParts, Path, State},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use darkroom_core::attempt::RunningOn;
use darkroom_core::{
    InstanceId, JobId,
    attempt::{Fence, Lease},
    output::Output,
};
use darkroom_runner::{
    link::{InputSource, LinkError},
    wire::{Ended, Hello, Leave, Next, PRODUCED, Produced, Recorded, Stop, Told, Welcome, code},
};
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, StatusCode, header, request::Parts};
use serde::{Deserialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{
    MAX_BODY_BYTES,
    body::{read_json, refusal},
    call::Call,
    error::ApiError,
};
use crate::{
    auth::Scope,
    http::{error_response, read_body},
    service::{
        Error,
        agents::{
            Refused,
            seat::{Failed, Input, Seated, Work},
        },
        facts::Facts,
    },
    state::AppState,
};

/// The routes.
pub fn routes() -> Router<AppState> {
    let attempt = Router::new()
        .route("/started", post(started))
        .route("/input", post(input))
        .route("/told", post(told))
        .route("/collecting", post(collecting))
        .route("/output", put(output))
        .route("/reuse", post(reuse))
        .route("/stop", get(stop))
        .route("/finish", post(finish))
        .route("/abandoned", post(abandoned));
    let session = Router::new()
        .route("/object_info", put(object_info))
        .route("/facts", put(facts))
        .route("/next", post(next))
        .route("/leave", post(leave))
        .nest("/{job}/{fence}", attempt);
    Router::new()
        .route("/connect", post(connect))
        .nest("/{instance}/{session}", session)
}

type Answer<T> = Result<T, Response>;

/// Who calls, and in which session.
struct At {
    call: Call,
    seated: Seated,
}

/// The same about an attempt.
struct AtAttempt {
    at: At,
    lease: Lease,
}

#[derive(Deserialize)]
struct SessionParams {
    instance: InstanceId,
    session: Uuid,
}

#[derive(Deserialize)]
struct AttemptParams {
    job: JobId,
    fence: Fence,
}

impl FromRequestParts<AppState> for At {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Answer<At> {
        let call = Call::from_request_parts(parts, state)
            .await
            .map_err(IntoResponse::into_response)?;
        let params = Path::<SessionParams>::from_request_parts(parts, state).await;
        let Ok(Path(SessionParams { instance, session })) = params else {
            return Err(refused(&call, Refused::NoSession));
        };
        let seated = state
            .service
            .seated(instance, session, call.caller.key_name.as_deref())
            .map_err(|e| refused(&call, e))?;
        call.needs(Scope::Worker, seated.agent().endpoint())
            .map_err(IntoResponse::into_response)?;
        Ok(At { call, seated })
    }
}

impl FromRequestParts<AppState> for AtAttempt {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Answer<AtAttempt> {
        let at = At::from_request_parts(parts, state).await?;
        match Path::<AttemptParams>::from_request_parts(parts, state).await {
            Ok(Path(AttemptParams { job, fence })) => Ok(AtAttempt {
                at,
                lease: Lease { job, fence },
            }),
            // What is no attempt of ours is nobody's.
            Err(_) => Err(failed(&at.call, LinkError::Stale.into())),
        }
    }
}

impl At {
    async fn json<T>(&self, state: &AppState, headers: &HeaderMap, body: Body) -> Answer<T>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let read = read_json(&self.call, &state.service.memory, headers, body).await;
        Ok(read.map_err(IntoResponse::into_response)?.parsed)
    }
}

fn refused(call: &Call, refused: Refused) -> Response {
    let (status, code) = match refused {
        Refused::NoSession => (StatusCode::NOT_FOUND, code::NO_SESSION),
        Refused::Superseded => (StatusCode::CONFLICT, code::SUPERSEDED),
        Refused::Gone => (StatusCode::GONE, code::GONE),
        Refused::NotYours => (StatusCode::FORBIDDEN, "not_yours"),
        Refused::Failed(error) => return call.fail(error).into_response(),
    };
    error_response(status, code, &refused.to_string(), &call.caller.request_id)
}

fn failed(call: &Call, error: Failed) -> Response {
    let error = match error {
        Failed::Session(session) => return refused(call, session),
        Failed::Link(error) => error,
    };
    let (status, code) = match &error {
        LinkError::Stale => (StatusCode::CONFLICT, code::STALE),
        LinkError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        LinkError::InputUnavailable(_) => (StatusCode::UNPROCESSABLE_ENTITY, code::INPUT_UNAVAILABLE),
        LinkError::Rejected(_) => (StatusCode::BAD_REQUEST, "rejected"),
    };
    error_response(status, code, &error.to_string(), &call.caller.request_id)
}

async fn connect(
    State(state): State<AppState>,
    call: Call,
    headers: HeaderMap,
    body: Body,
) -> Answer<Json<Welcome>> {
    let read = read_json::<Hello>(&call, &state.service.memory, &headers, body).await;
    let hello = read.map_err(IntoResponse::into_response)?.parsed;
    call.needs(Scope::Worker, &hello.endpoint)
        .map_err(IntoResponse::into_response)?;
    let connected = state
        .service
        .agent_connects(hello, call.caller.key_name.as_deref())
        .await;
    connected.map(Json).map_err(|e| refused(&call, e))
}

async fn object_info(
    State(state): State<AppState>,
    at: At,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    let fail = |error: Error| ApiError::service(error, &at.call.caller.request_id).into_response();
    let (json, _held) = read_body(&headers, body, MAX_BODY_BYTES, &state.service.memory)
        .await
        .map_err(|e| fail(refusal(e)))?;
    at.seated.learn(json.into()).await.map_err(fail)?;
    Ok(StatusCode::NO_CONTENT)
}

async fn facts(State(state): State<AppState>, at: At, headers: HeaderMap, body: Body) -> Answer<StatusCode> {
    let facts: Facts = at.json(&state, &headers, body).await?;
    let learned = at.seated.learn_facts(facts).await;
    learned.map_err(|e| ApiError::service(e, &at.call.caller.request_id).into_response())?;
    Ok(StatusCode::NO_CONTENT)
}

async fn next(State(state): State<AppState>, at: At, headers: HeaderMap, body: Body) -> Answer<Response> {
    let asked: Next = at.json(&state, &headers, body).await?;
    let work = at.seated.next(asked.got, &state.stopping).await;
    match work.map_err(|e| refused(&at.call, e))? {
        Work::Attempt(assignment) => Ok(Json(*assignment).into_response()),
        Work::None => Ok(StatusCode::NO_CONTENT.into_response()),
        Work::Closed => {
            let why = "the instance takes no more work";
            let request_id = &at.call.caller.request_id;
            Err(error_response(StatusCode::GONE, code::CLOSED, why, request_id))
        }
    }
}

async fn leave(State(state): State<AppState>, at: At, headers: HeaderMap, body: Body) -> Answer<StatusCode> {
    let leaving: Leave = at.json(&state, &headers, body).await?;
    at.seated.leave(leaving).await;
    Ok(StatusCode::NO_CONTENT)
}

async fn started(
    State(state): State<AppState>,
    AtAttempt { at, lease }: AtAttempt,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    let on: RunningOn = at.json(&state, &headers, body).await?;
    let done = at.seated.started(lease, on).await;
    done.map_err(|e| failed(&at.call, e))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn input(
    State(state): State<AppState>,
    AtAttempt { at, lease }: AtAttempt,
    headers: HeaderMap,
    body: Body,
) -> Answer<Response> {
    let source: InputSource = at.json(&state, &headers, body).await?;
    let read = at.seated.input(lease, &source).await;
    Ok(match read.map_err(|e| failed(&at.call, e))? {
        Input::Bytes(bytes) => bytes.into_response(),
        Input::Blob(reader) => {
            let length = [(header::CONTENT_LENGTH, reader.size.to_string())];
            (length, Body::from_stream(reader.stream)).into_response()
        }
    })
}

async fn told(
    State(state): State<AppState>,
    AtAttempt { at, lease }: AtAttempt,
    headers: HeaderMap,
    body: Body,
) -> Answer<StatusCode> {
    let told: Told = at.json(&state, &headers, body).await?;
    let done = at.seated.tell(lease, told).await;
    done.map_err(|e| failed(&at.call, e))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn collecting(AtAttempt { at, lease }: AtAttempt) -> Answer<StatusCode> {
    let done = at.seated.collecting(lease).await;
    done.map_err(|e| failed(&at.call, e))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn output(AtAttempt { at, lease }: AtAttempt, headers: HeaderMap, body: Body) -> Answer<Json<Output>> {
    let Some(produced) = produced(&headers) else {
        let why = format!("the header {PRODUCED} does not describe a file");
        return Err(failed(&at.call, LinkError::Rejected(why).into()));
    };
    let bytes = body.into_data_stream().map_err(std::io::Error::other).boxed();
    let stored = at.seated.put_output(lease, produced, bytes).await;
    stored.map(Json).map_err(|e| failed(&at.call, e))
}

fn produced(headers: &HeaderMap) -> Option<Produced> {
    let json = BASE64_URL_SAFE_NO_PAD.decode(headers.get(PRODUCED)?).ok()?;
    serde_json::from_slice(&json).ok()
}

async fn reuse(
    State(state): State<AppState>,
    AtAttempt { at, lease }: AtAttempt,
    headers: HeaderMap,
    body: Body,
) -> Answer<Json<Option<Output>>> {
    let output: Output = at.json(&state, &headers, body).await?;
    let reused = at.seated.reuse_output(lease, output).await;
    reused.map(Json).map_err(|e| failed(&at.call, e))
}

async fn stop(State(state): State<AppState>, AtAttempt { at, lease }: AtAttempt) -> Answer<Json<Stop>> {
    let cause = at.seated.stop(lease, &state.stopping).await;
    let cause = cause.map_err(|e| refused(&at.call, e))?;
    Ok(Json(Stop { cause }))
}

async fn finish(
    State(state): State<AppState>,
    AtAttempt { at, lease }: AtAttempt,
    headers: HeaderMap,
    body: Body,
) -> Answer<Json<Recorded>> {
    let ended: Ended = at.json(&state, &headers, body).await?;
    let recorded = at.seated.finish(lease, ended).await;
    let state = recorded.map_err(|e| failed(&at.call, e))?;
    Ok(Json(Recorded { state }))
}

async fn abandoned(AtAttempt { at, lease }: AtAttempt) -> Answer<StatusCode> {
    at.seated.abandoned(lease);
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests;
