//! `POST /assets/from-hash`: an asset of bytes that the tenant has here already.

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde_json::Value;

use super::{
    super::{body::read_json, call::V2Call, error::ApiError},
    brought, no_blob, refused,
    terms::Said,
};
use crate::{service::assets::ContentHash, state::AppState};

const MAX_BODY_BYTES: usize = 64 * 1024;

/// The handler: 201 for a new asset, 200 where the same bytes have that path already.
///
/// # Errors
/// 404 for bytes that are not here, or not the caller's, and for what is no hash.
pub async fn handler(
    State(state): State<AppState>,
    call: V2Call,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let read = read_json(&headers, body, MAX_BODY_BYTES, &state.service.memory).await?;
    let text = |key: &str| match read.json.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(_) => Err(ApiError::unprocessable(
            "invalid_request",
            format!("{key} must be a text"),
        )),
    };
    let hash: ContentHash = read
        .json
        .get("hash")
        .and_then(Value::as_str)
        .and_then(|hash| hash.parse().ok())
        .ok_or_else(no_blob)?;
    let said = Said {
        file_path: text("file_path")?,
        expires_in: match read.json.get("expires_in") {
            None | Some(Value::Null) => None,
            // What is no whole number is out of bounds.
            Some(wish) => Some(wish.as_u64().unwrap_or(0)),
        },
        ..Said::default()
    };
    let minted = state
        .service
        .mint_asset(&call.caller.tenant, hash, said.check()?)
        .await
        .map_err(refused)?;
    let status = match minted.new_asset {
        true => StatusCode::CREATED,
        false => StatusCode::OK,
    };
    let view = brought(&state.service, &call, minted.asset, false);
    Ok((status, Json(view)).into_response())
}
