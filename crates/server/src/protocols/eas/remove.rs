//! `DELETE`: items for all groups, one by one or below an index; `POST ?_eos_=true` ends a queue.

use axum::response::{IntoResponse, Response};

use super::{DONE, call::EasCall, error::EasError, query::Index};
use crate::{service::queues::OpenQueue, state::AppState};

/// Deletes or truncates.
pub async fn remove(state: &AppState, queue: &OpenQueue, call: &EasCall) -> Result<Response, EasError> {
    if call.query.flag("_trunc_") {
        let before = match call.query.index()? {
            Some(Index::From(index)) => index,
            Some(Index::Newest) | None => {
                return Err(EasError::invalid("a truncation needs the index it ends before"));
            }
        };
        state.service.truncate_queue(queue, before).await?;
    } else {
        let indexes = call.query.indexes()?;
        state.service.delete_items(queue, indexes).await?;
    }
    Ok(DONE.into_response())
}

/// Ends a queue: it takes no more items, and its watchers are let go once it is empty. With `_force_` what is left goes.
pub async fn end(state: &AppState, queue: &OpenQueue, call: &EasCall) -> Result<Response, EasError> {
    state.service.end_queue(&queue.id, true).await?;
    if call.query.flag("_force_") {
        let last = state.service.queue_view(&queue.id).await?.last;
        state.service.truncate_queue(queue, last + 1).await?;
    }
    Ok(DONE.into_response())
}
