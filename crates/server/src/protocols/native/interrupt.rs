//! `POST /interrupt`: ends the prompt that is named if it runs; without a name, what runs of the caller's own
//! (`protocols/comfyui-multi-instance.md`: else one user would end everybody's).

use axum::{
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use darkroom_core::JobState;
use http::{HeaderMap, StatusCode};

use super::{
    body::id_text,
    call::NativeCall,
    error::{NativeError, Refused},
    ids,
};
use crate::{http::read_body, service::Service, state::AppState};

/// Largest body, in bytes: one id.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// The handler. A body that cannot be read names no prompt, as in ComfyUI; the answer is always empty.
///
/// # Errors
/// Refusals in this protocol's shape.
pub async fn handler(
    State(state): State<AppState>,
    call: NativeCall,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    interrupt(&state.service, &call, &headers, body)
        .await
        .map_err(|error| call.refuse(error))?;
    Ok(StatusCode::OK.into_response())
}

async fn interrupt(
    service: &Service,
    call: &NativeCall,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), NativeError> {
    let (body, _held) = read_body(headers, body, MAX_BODY_BYTES, &service.memory).await?;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let named = body.get("prompt_id").filter(|id| !id.is_null());
    let (tenant, endpoint) = (&call.caller.tenant, &call.endpoint.name);
    let jobs = match named {
        Some(id) => match id_text(id) {
            Some(id) => ids::find(service, call, &id).await?.into_iter().collect(),
            None => Vec::new(),
        },
        // Callers without a key share a tenant: they end what they can name.
        None if call.caller.may_list(endpoint).is_err() => Vec::new(),
        None => service.open_jobs(tenant, endpoint, &[JobState::Running]).await?,
    };
    Ok(service.interrupt(tenant, &jobs).await?)
}
