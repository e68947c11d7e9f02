//! `GET /stream/{id}`: what a generator has yielded since the last time anybody asked (`protocols/runpod.md` §2).
//!
//! The SDK shows every chunk that it is given, so each is given once: the route drains one cursor per job. It stops at a
//! final state with an empty list, and knows no `CANCELLED`: such a job is told as `FAILED` here.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use darkroom_core::JobState;
use http::header;
use serde::Serialize;
use serde_json::value::RawValue;

use super::{ClientCall, view};
use crate::{
    protocols::async_endpoints::error::{AsyncError, Refused},
    service::Error,
    state::AppState,
};

#[derive(Serialize)]
struct Answer<'a> {
    status: &'a str,
    stream: Vec<Element>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

#[derive(Serialize)]
struct Element {
    output: Box<RawValue>,
}

/// The handler.
///
/// # Errors
/// 404 for a job that is not there or not the caller's.
pub async fn handler(State(state): State<AppState>, call: ClientCall) -> Result<Response, Refused> {
    stream(&state, &call).await.map_err(|e| call.refuse(e))
}

async fn stream(state: &AppState, call: &ClientCall) -> Result<Response, AsyncError> {
    // The state first: once it is final, no chunk can come behind it.
    let job = call.job(state).await?;
    let status = match job.state {
        JobState::Cancelled => "FAILED",
        _ => view::state_word(&job),
    };
    let taken = state.service.take_chunks(job.id).await?;
    let answer = Answer {
        status,
        error: taken
            .truncated
            .then_some("the handler yielded more than is kept: the rest of its chunks is missing"),
        stream: taken
            .outputs
            .into_iter()
            .map(|output| Element { output })
            .collect(),
    };
    let body = serde_json::to_vec(&answer).map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}
