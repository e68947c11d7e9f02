//! `/history`

use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::json;

use super::{
    super::body::{BadRequest, JsonBody},
    Shared,
};

/// Texts, so that a bad one can be named.
#[derive(Deserialize)]
pub struct Page {
    max_items: Option<String>,
    offset: Option<String>,
}

/// `GET /history`
pub async fn list(State(engine): Shared, Query(page): Query<Page>) -> Result<Response, BadRequest> {
    let number = |name: &str, text: Option<String>| match text {
        None => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(BadRequest(format!("{name} '{text}' is not a whole number"))),
        },
    };
    let (max_items, offset) = (
        number("max_items", page.max_items)?,
        number("offset", page.offset)?,
    );
    Ok(Json(engine.history.list(max_items, offset)).into_response())
}

/// `GET /history/{id}`: an empty object for what is unknown, waits or runs.
pub async fn one(State(engine): Shared, Path(id): Path<String>) -> Response {
    match engine.history.get(&id) {
        Some(entry) => Json(json!({id: entry})).into_response(),
        None => Json(json!({})).into_response(),
    }
}

/// `POST /history`: `clear` and `delete`.
pub async fn change(State(engine): Shared, body: JsonBody) {
    if body.clears() {
        engine.history.clear();
    }
    body.deletes().for_each(|id| engine.history.remove(id));
}
