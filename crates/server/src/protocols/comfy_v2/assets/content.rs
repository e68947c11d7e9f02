//! `GET /assets/{id}/content`: the bytes, whole or a range of them.

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, Method, StatusCode, header};

use super::{
    super::{
        call::{Id, V2Call},
        error::ApiError,
    },
    find,
};
use crate::{http::Ask, service::assets::AssetBody, state::AppState};

/// The handler.
///
/// # Errors
/// 404, also for one that the caller may not see.
pub async fn handler(
    State(state): State<AppState>,
    call: V2Call,
    Id(id): Id,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let asset = find(&state.service, &call, &id).await?.asset;
    let key = match &asset.body {
        AssetBody::Blob(key) => key,
        AssetBody::Text(text) => {
            let kind = [(header::CONTENT_TYPE, asset.content_type.clone())];
            return Ok((kind, text.clone()).into_response());
        }
    };
    let ask = Ask {
        method: &method,
        headers: &headers,
        file_name: asset.file_name(),
        cache: "private, no-cache",
    };
    let sent = state.blobs.send(key, ask).await;
    sent.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "output_unavailable",
            "the bytes of this asset are gone",
        )
    })
}
