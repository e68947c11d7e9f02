//! `GET job-take/{worker}` and `job-take-batch/{worker}`: held until there is a job, at most 25 s.

use std::time::Duration;

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{HeaderMap, StatusCode, header};

use super::{
    call::{Refusal, WorkerCall},
    last_of_its_connection,
};
use crate::{
    service::pull::{Phase, take::Taken},
    state::AppState,
};

/// Jobs in one answer.
const MOST: usize = 100;
/// Who comes while the server stops waits so long for nothing, so that it does not come 300 times a second.
const STOPPING_PACE: Duration = Duration::from_millis(500);

/// One job, as an object.
pub async fn one(
    State(state): State<AppState>,
    headers: HeaderMap,
    call: Result<WorkerCall, Refusal>,
) -> Response {
    let answer = answer(&state, call, false).await;
    last_of_its_connection(&headers, answer.unwrap_or_else(Refusal::into_poll_answer))
}

/// Up to `batch_size` jobs, as a list.
pub async fn batch(
    State(state): State<AppState>,
    headers: HeaderMap,
    call: Result<WorkerCall, Refusal>,
) -> Response {
    let answer = answer(&state, call, true).await;
    last_of_its_connection(&headers, answer.unwrap_or_else(Refusal::into_poll_answer))
}

async fn answer(
    state: &AppState,
    call: Result<WorkerCall, Refusal>,
    batch: bool,
) -> Result<Response, Refusal> {
    let call = call?;
    let worker = call.arrives(state).await?;
    if let Some(ms) = call.get("ping").and_then(|ms| ms.parse().ok()) {
        worker.set_ping_interval(Duration::from_millis(ms).min(Duration::from_secs(600)));
    }
    let asked = call.get("batch_size").and_then(|n| n.parse::<usize>().ok());
    let wanted = if batch {
        asked.unwrap_or(1).clamp(1, MOST)
    } else {
        1
    };
    let busy = call.get("job_in_progress").is_some_and(|n| n != "0");
    if state.stopping.is_cancelled() {
        tokio::time::sleep(STOPPING_PACE).await;
    }
    let taken = state
        .service
        .take_for_worker(&worker, busy, wanted, &state.stopping)
        .await;
    if taken.is_empty() {
        return match worker.phase() {
            Phase::Gone => Err(Refusal::new(StatusCode::GONE, "the worker was ended")),
            Phase::Serving | Phase::Draining | Phase::Leaving => Ok(StatusCode::NO_CONTENT.into_response()),
        };
    }
    let body = written(&taken, batch);
    let length = body.len();
    let headers = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_LENGTH, length.to_string()),
    ];
    Ok((headers, Body::from_stream(handing_over(body, taken))).into_response())
}

/// The body in one piece; what was taken counts as handed over once the connection asks for it.
fn handing_over(
    body: Bytes,
    taken: Vec<Taken>,
) -> impl futures::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    stream::unfold(Some((body, taken)), |left| async move {
        let (body, mut taken) = left?;
        taken.iter_mut().for_each(Taken::handed_over);
        Some((Ok(body), None))
    })
}

/// The whole object is what the handler gets as its job, so there is nothing in it but what is meant for it.
fn written(taken: &[Taken], batch: bool) -> Bytes {
    let size = taken.iter().map(|taken| taken.input.len() + 256).sum();
    let mut body = BytesMut::with_capacity(size);
    if batch {
        body.put_u8(b'[');
    }
    for (n, job) in taken.iter().enumerate() {
        if n > 0 {
            body.put_u8(b',');
        }
        body.extend_from_slice(format!("{{\"id\":\"{}\",\"input\":", job.job).as_bytes());
        body.extend_from_slice(&job.input);
        for (key, value) in &job.credentials {
            let name = serde_json::Value::from(key.as_str());
            body.extend_from_slice(format!(",{name}:{value}").as_bytes());
        }
        body.put_u8(b'}');
    }
    if batch {
        body.put_u8(b']');
    }
    body.freeze()
}
