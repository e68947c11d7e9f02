//! `/users` and `/settings`: what the page remembers, per tenant and endpoint.

use axum::{
    Json,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::{
    call::{NativeCall, param},
    error::{NativeError, Refused},
};
use crate::{http::read_body, service::userdata::PageUser, state::AppState};

/// Largest body of settings, in bytes.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// `GET /users`: one user, who is the caller's tenant. The page asks for it first.
pub async fn users(_: NativeCall) -> Json<Value> {
    Json(json!({ "storage": "server", "migrated": true }))
}

/// `POST /users`: users are keys here.
pub async fn add_user(_: NativeCall) -> (StatusCode, Json<Value>) {
    let error = json!({ "error": "users are made with `darkroom keys create` here" });
    (StatusCode::BAD_REQUEST, Json(error))
}

/// `GET /settings`
///
/// # Errors
/// When the store fails.
pub async fn all(State(state): State<AppState>, call: NativeCall) -> Result<Json<Value>, Refused> {
    let Some(user) = call.page_user() else {
        return Ok(Json(json!({})));
    };
    let settings = state.service.page_settings(&user).await;
    settings
        .map(|settings| Json(Value::Object(settings)))
        .map_err(|e| call.refuse(e))
}

/// `POST /settings`: merged over what is there.
///
/// # Errors
/// For what is no JSON object, and callers without a key.
pub async fn change(
    State(state): State<AppState>,
    call: NativeCall,
    request: Request,
) -> Result<(), Refused> {
    let Value::Object(changes) = read(&state, &call, request).await? else {
        let message = "settings must be an object";
        return Err(call.refuse(NativeError::invalid("invalid_request", message, "")));
    };
    keep(&state, &call, changes).await
}

/// `GET /settings/{id}`: `null` when it was never set.
///
/// # Errors
/// When the store fails.
pub async fn one(
    State(state): State<AppState>,
    call: NativeCall,
    Path(params): Path<Vec<(String, String)>>,
) -> Result<Json<Value>, Refused> {
    let Some(user) = call.page_user() else {
        return Ok(Json(Value::Null));
    };
    let setting = state.service.page_setting(&user, param(&params, "id")).await;
    setting.map(Json).map_err(|e| call.refuse(e))
}

/// `POST /settings/{id}`
///
/// # Errors
/// For what is no JSON, and callers without a key.
pub async fn change_one(
    State(state): State<AppState>,
    call: NativeCall,
    Path(params): Path<Vec<(String, String)>>,
    request: Request,
) -> Result<(), Refused> {
    let value = read(&state, &call, request).await?;
    let changes = Map::from_iter([(param(&params, "id").to_owned(), value)]);
    keep(&state, &call, changes).await
}

async fn keep(state: &AppState, call: &NativeCall, changes: Map<String, Value>) -> Result<(), Refused> {
    let user = call.page_user().ok_or_else(|| call.refuse(nobody()))?;
    let kept = state.service.change_page_settings(&user, changes).await;
    kept.map_err(|e| call.refuse(e))
}

async fn read(state: &AppState, call: &NativeCall, request: Request) -> Result<Value, Refused> {
    let (parts, body) = request.into_parts();
    let (body, _held) = read_body(&parts.headers, body, MAX_BODY_BYTES, &state.service.memory)
        .await
        .map_err(|e| call.refuse(e))?;
    serde_json::from_slice(&body).map_err(|e| {
        call.refuse(NativeError::invalid(
            "invalid_request",
            "the body is not JSON",
            e.to_string(),
        ))
    })
}

/// The refusal of who shares a tenant with strangers.
pub(super) fn nobody() -> NativeError {
    let message = "nothing is kept for callers without a key";
    NativeError::new(StatusCode::FORBIDDEN, "forbidden", message, "")
}

impl<Q> NativeCall<Q> {
    /// Whose settings and files these are; `None` for callers who share a tenant with strangers.
    pub(super) fn page_user(&self) -> Option<PageUser> {
        let listed = self.caller.may_list(&self.endpoint.name).is_ok();
        listed.then(|| PageUser {
            tenant: self.caller.tenant.clone(),
            endpoint: self.endpoint.name.clone(),
        })
    }
}

/// A plain refusal, as ComfyUI words it.
pub(super) fn plain(status: StatusCode, text: &'static str) -> Response {
    (status, text).into_response()
}
