//! `GET job-stop/{worker}`: held until a job of the worker should be stopped, at most 25 s. Only runpod 1.12 asks.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use futures::stream;
use http::{HeaderMap, StatusCode, header};
use serde_json::json;

use super::{
    call::{Refusal, WorkerCall},
    last_of_its_connection,
};
use crate::state::AppState;

/// Answers.
pub async fn handler(
    State(state): State<AppState>,
    headers: HeaderMap,
    call: Result<WorkerCall, Refusal>,
) -> Response {
    let answer = answer(&state, call).await;
    last_of_its_connection(&headers, answer.unwrap_or_else(Refusal::into_poll_answer))
}

async fn answer(state: &AppState, call: Result<WorkerCall, Refusal>) -> Result<Response, Refusal> {
    // It may come before the worker's first poll for jobs.
    let worker = call?.arrives(state).await?;
    let jobs = state.service.jobs_to_stop(&worker, &state.stopping).await;
    if jobs.is_empty() {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let ids: Vec<String> = jobs.iter().map(ToString::to_string).collect();
    let body = json!({ "jobsToStop": ids }).to_string();
    let length = body.len().to_string();
    let headers = [
        (header::CONTENT_TYPE, "application/json"),
        (header::CONTENT_LENGTH, length.as_str()),
    ];
    // Told once the connection asks for it: an order that met a broken one is given again.
    let told = stream::once(async move {
        worker.was_told_to_stop(&jobs);
        Ok::<_, std::convert::Infallible>(body)
    });
    Ok((headers, Body::from_stream(told)).into_response())
}
