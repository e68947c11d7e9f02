//! `POST /links`: the address of an endpoint's page for a browser, with which it logs in once.

use axum::{
    Json,
    extract::{State, rejection::JsonRejection},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{call::Call, error::ApiError};
use crate::{
    auth::{LINK_LIFETIME, Scope},
    service::Error,
    state::{AppState, BaseUrl},
};

/// The body.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    endpoint: String,
}

/// `POST /links`. Whoever follows the link has the caller's rights; it is good once and for minutes. Callers without a key
/// get the plain address.
///
/// # Errors
/// For an unknown endpoint, or one that the caller may not use.
pub async fn create(
    State(state): State<AppState>,
    call: Call,
    BaseUrl(base): BaseUrl,
    body: Result<Json<Wanted>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let Json(Wanted { endpoint }) = body.map_err(|e| call.fail(Error::Invalid(e.body_text())))?;
    let name = endpoint
        .parse()
        .map_err(|_| call.fail(Error::not_found("endpoint", &endpoint)))?;
    call.needs(Scope::Client, &name)?;
    let endpoint = state.service.endpoint(&name).map_err(|e| call.fail(e))?;
    let page = format!("/e/{}/", endpoint.name);
    Ok(Json(match state.auth.new_link(&call.caller) {
        Some(token) => json!({
            "url": format!("{base}/login?token={token}&next={page}"),
            "expires_in_seconds": LINK_LIFETIME.as_secs(),
        }),
        None => json!({ "url": format!("{base}{page}"), "expires_in_seconds": null }),
    }))
}
