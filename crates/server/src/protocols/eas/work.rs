//! `POST` to the input, or to any path, of a service whose workers are handlers: the body is the input of one.

use axum::{extract::Request, response::Response};

use super::{
    call::EasCall,
    error::EasError,
    posted::{Posted, max_payload},
    put::answer,
};
use crate::{
    beside::beside,
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
    let posted = Posted::read(state, call, request, max_payload(queue)).await?;
    let (body, memory) = (posted.body, posted.memory);
    let item = WorkItem {
        tags: call.query.tags.clone(),
        priority: posted.priority,
        input: beside(body.len(), move || input_of(&body)).await?,
        base_url: call.base_url.clone(),
        request_id: call.caller.request_id.to_string(),
    };
    let done = state.service.put_work(queue, item).await?;
    drop(memory);
    Ok(answer(&done))
}
