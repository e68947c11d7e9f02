//! `POST job-done/{worker}/{job}`: a job's result, or intermediate output under the same address.

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};

use super::{
    call::{Refusal, WorkerCall},
    lenient::{self, Said},
};
use crate::{
    beside::beside,
    http::{BodyError, read_body},
    service::pull::result::{Posted, Received},
    state::AppState,
};

/// The longest result that is taken, in bytes. Above what the protocol can return it is returned as an address.
pub const MAX_RESULT_BYTES: usize = 64 << 20;

/// Takes it.
pub async fn handler(
    State(state): State<AppState>,
    call: WorkerCall,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    // First of all: a connection on which a body was left unread is closed, and what the worker posts there next is lost.
    let read = read_body(&headers, body, MAX_RESULT_BYTES, &state.service.memory).await;
    let Ok(job) = call.job.parse() else {
        return Err(unknown());
    };
    let Some(worker) = call.known(&state)? else {
        return call.answer_stranger(&state, job).await;
    };
    let service = &state.service;
    let (body, _memory) = match read {
        Ok(read) => read,
        Err(BodyError::TooLarge { max_bytes }) => {
            let what = format!(
                "its result is larger than {max_bytes} bytes: store it elsewhere and return an address"
            );
            service
                .worker_failed(&worker, job, what)
                .await
                .map_err(|e| Refusal::from(&e))?;
            return Err(Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "the result is too large",
            ));
        }
        Err(error) => return Err(unread(&error)),
    };
    let said = beside(body.len(), move || lenient::read(&body)).await;
    let posted = match said {
        Ok(Said::Progress(output)) => {
            service.worker_progress(&worker, job, &output);
            return Ok("ok".into_response());
        }
        Ok(Said::Result {
            output,
            error,
            stop_pod,
        }) => Posted {
            output,
            error,
            wears_out: stop_pod,
        },
        Err(error) => {
            let what = format!("its worker posted a result that is not JSON: {error}");
            service
                .worker_failed(&worker, job, what)
                .await
                .map_err(|e| Refusal::from(&e))?;
            return Err(Refusal::new(StatusCode::BAD_REQUEST, error.to_string()));
        }
    };
    let received = service.worker_result(&worker, job, posted).await;
    answer(received.map_err(|e| Refusal::from(&e))?)
}

/// The answer to something that was posted about a job. Nobody reads more of it than the status.
pub fn answer(received: Received) -> Result<Response, Refusal> {
    match received {
        Received::Recorded => Ok("ok".into_response()),
        Received::TooLate => Ok("ignored: the job is not this worker's any more".into_response()),
        Received::NotTheirs => Err(Refusal::new(StatusCode::CONFLICT, "the job is not this worker's")),
        Received::Unknown => Err(unknown()),
    }
}

/// A body that could not be read: the worker should try again.
pub fn unread(error: &BodyError) -> Refusal {
    let status = match error {
        BodyError::Broken => StatusCode::BAD_REQUEST,
        BodyError::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        BodyError::Slow | BodyError::Exhausted(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    Refusal::new(status, error.to_string())
}

pub fn unknown() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is no such job")
}
