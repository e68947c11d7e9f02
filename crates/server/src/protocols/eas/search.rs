//! `GET ?_search_=true`: where an item stands; `GET ?_count_=true`: how many there are.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{call::EasCall, error::EasError, get_items::wanted, query::Index};
use crate::{service::queues::OpenQueue, state::AppState};

/// Searches.
pub async fn search(state: &AppState, queue: &OpenQueue, call: &EasCall) -> Result<Response, EasError> {
    let index = match call.query.index()? {
        Some(Index::From(index)) if index > 0 => index,
        _ => return Err(EasError::invalid("a search needs the index of an item")),
    };
    let standing = state.service.standing(queue, index).await?;
    let mut answer = json!({ "IsPending": standing.pending, "WaitCount": standing.waits });
    if let Some(consumer) = standing.consumer {
        answer["ConsumerId"] = consumer.into();
    }
    Ok(Json(answer).into_response())
}

/// Counts.
pub async fn count(state: &AppState, queue: &OpenQueue, call: &EasCall) -> Result<Response, EasError> {
    let count = state.service.count_items(queue, wanted(call)?).await?;
    Ok(count.to_string().into_response())
}
