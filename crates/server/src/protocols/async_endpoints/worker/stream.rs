//! `POST job-stream/{worker}/{job}`: one chunk of a generator.

use axum::{body::Body, extract::State, response::Response};
use http::{HeaderMap, StatusCode};

use super::{
    call::{Refusal, WorkerCall},
    done,
    lenient::{self, Said},
};
use crate::{
    beside::beside,
    http::{BodyError, read_body},
    state::AppState,
};

/// The longest chunk that is taken, in bytes.
const MAX_CHUNK_BYTES: usize = 16 << 20;

/// Takes it.
pub async fn handler(
    State(state): State<AppState>,
    call: WorkerCall,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    // First of all, as with results.
    let read = read_body(&headers, body, MAX_CHUNK_BYTES, &state.service.memory).await;
    let Ok(job) = call.job.parse() else {
        return Err(done::unknown());
    };
    let Some(worker) = call.known(&state)? else {
        return call.answer_stranger(&state, job).await;
    };
    let service = &state.service;
    let failed = async |what: String| {
        let ended = service.worker_failed_midway(&worker, job, what.clone()).await;
        Err(ended.map_or_else(
            |e| Refusal::from(&e),
            |()| Refusal::new(StatusCode::BAD_REQUEST, what),
        ))
    };
    let (body, _memory) = match read {
        Ok(read) => read,
        Err(BodyError::TooLarge { max_bytes }) => {
            return failed(format!("its handler yielded more than {max_bytes} bytes at once")).await;
        }
        Err(error) => return Err(done::unread(&error)),
    };
    match beside(body.len(), move || lenient::read(&body)).await {
        Ok(Said::Result {
            output: Some(output), ..
        }) => {
            let received = service.worker_chunk(&worker, job, output).await;
            done::answer(received.map_err(|e| Refusal::from(&e))?)
        }
        Ok(Said::Result { output: None, .. } | Said::Progress(_)) => {
            Err(Refusal::new(StatusCode::BAD_REQUEST, "a chunk has an output"))
        }
        Err(error) => failed(format!("its worker posted a chunk that is not JSON: {error}")).await,
    }
}
