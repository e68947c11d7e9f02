//! `GET /jobs`: the caller's jobs of the endpoint, whichever protocol took them, newest first, by keyset.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde_json::{Value, json};

use super::{call::V2Call, cursor, error::ApiError, query::Query, view};
use crate::{
    service::jobs::{JobFilter, Page},
    state::AppState,
};

/// The handler.
///
/// # Errors
/// For bad parameters, and callers who may not list.
pub async fn handler(
    State(state): State<AppState>,
    call: V2Call,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, ApiError> {
    call.caller.may_list(&call.endpoint.name)?;
    let query = Query::read(query.as_deref().unwrap_or_default())?;
    let of = format!(
        "{} {} {}",
        call.caller.tenant,
        call.endpoint.name,
        query.described()
    );
    let after = match &query.cursor {
        Some(text) => Some(cursor::read(text, &of).ok_or_else(foreign_cursor)?),
        None => None,
    };
    let page = Page {
        limit: query.limit,
        after,
    };
    let filter = JobFilter {
        tenant: Some(call.caller.tenant.clone()),
        endpoint: Some(call.endpoint.name.clone()),
        states: query.states(),
        labels: query.labels.clone(),
        ..JobFilter::default()
    };
    let mut jobs = state.service.jobs(filter, page).await?;
    let last = jobs.last().filter(|_| jobs.len() == query.limit as usize);
    let next = last.map(|last| cursor::write(last.id, &of));
    // Running jobs have two words.
    jobs.retain(|job| query.statuses.is_empty() || query.statuses.contains(&view::status(job)));
    let shown = view::jobs(&state.service, &call, &jobs).await?;
    Ok(Json(json!({ "jobs": shown, "next_cursor": next })))
}

fn foreign_cursor() -> ApiError {
    ApiError::new(
        http::StatusCode::BAD_REQUEST,
        "invalid_cursor",
        "the cursor is of no page of this list",
    )
}
