//! `POST`: the body is an item, the query its tags; the answer is its index as bare text.

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::header;

use super::{
    call::EasCall,
    error::EasError,
    named,
    posted::{Posted, max_payload},
};
use crate::{
    service::queues::{OpenQueue, PutDone, PutItem},
    state::AppState,
};

/// Puts an item.
pub async fn put(
    state: &AppState,
    queue: &OpenQueue,
    call: &EasCall,
    request: Request,
) -> Result<Response, EasError> {
    let posted = Posted::read(state, call, request, max_payload(queue)).await?;
    let put = PutItem {
        tags: call.query.tags.clone(),
        priority: posted.priority,
        body: posted.body,
    };
    let done = state.service.put_item(queue, put).await?;
    drop(posted.memory);
    Ok(answer(&done))
}

/// The index without a line end: clients send it back as it is (`protocols/eas-queue.md` §7).
pub fn answer(done: &PutDone) -> Response {
    let head = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
    let mut response = (head, done.index.to_string()).into_response();
    named(&mut response, &done.request_id);
    response
}
