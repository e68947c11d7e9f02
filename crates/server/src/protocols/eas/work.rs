//! `POST` to the input, or to any path, of a service whose workers are handlers: the body is the input of one.

use axum::{extract::Request, response::Response};

use super::{call::EasCall, error::EasError, put::answer};
use crate::{
    beside::beside,
    http::read_body,
    service::queues::{OpenQueue, WorkItem, input_of},
    state::AppState,
};

/// Accepts an input.
pub async fn work(
    state: &AppState,
    queue: &OpenQueue,
    call: &EasCall,
    request: Request,
) -> Result<Response, EasError> {
    let priority = call.priority()?.unwrap_or(0);
    let (parts, body) = request.into_parts();
    let limit = usize::try_from(queue.endpoint.queue.max_payload_bytes).unwrap_or(usize::MAX);
    let (body, memory) = read_body(&parts.headers, body, limit, &state.service.memory).await?;
    let item = WorkItem {
        tags: call.query.tags.clone(),
        priority,
        input: beside(body.len(), move || input_of(&body)).await?,
        base_url: call.base_url.clone(),
        request_id: call.caller.request_id.to_string(),
    };
    let done = state.service.put_work(queue, item).await?;
    drop(memory);
    Ok(answer(&done))
}
