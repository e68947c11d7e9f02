//! `POST /run`: accepts a job and answers at once.

use axum::{Json, body::Body, extract::State};
use darkroom_core::endpoint::Kind;
use http::HeaderMap;
use serde_json::{Value, json};

use super::{ClientCall, comfyui, submission::Submission};
use crate::{
    beside::beside,
    http::read_body,
    protocols::async_endpoints::error::{AsyncError, Refused},
    service::{follow::Ending, workers::WorkerSubmit},
    state::AppState,
};

/// Largest body where the vendors' limits are not asked for, in bytes: as everywhere in this server.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// The handler.
///
/// # Errors
/// Every refusal, in this protocol's shape.
pub async fn handler(
    State(state): State<AppState>,
    call: ClientCall,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Refused> {
    let limit = match call.endpoint.limits.vendor_limits {
        true => call.family.run_body_bytes,
        false => MAX_BODY_BYTES,
    };
    let job = submit(&state, &call, &headers, body, limit, false)
        .await
        .map_err(|e| call.refuse(e))?;
    // Whether it was taken meanwhile is for `status` to tell.
    Ok(Json(json!({ "id": job.job(), "status": "IN_QUEUE" })))
}

/// Accepts the body of a request as a job of its caller, whose end can be waited for.
///
/// # Errors
/// Every refusal.
pub async fn submit(
    state: &AppState,
    call: &ClientCall,
    headers: &HeaderMap,
    body: Body,
    limit: usize,
    sync: bool,
) -> Result<Ending, AsyncError> {
    let (body, memory) = read_body(headers, body, limit, &state.service.memory).await?;
    let mut submission = beside(body.len(), move || Submission::read(&body)).await?;
    submission.wishes.sync = sync;
    let vendors = call.endpoint.limits.vendor_limits;
    submission.wishes.kept_ms = vendors.then(|| call.family.keeps_for_ms(sync));
    match call.endpoint.kind {
        Kind::Comfyui => {
            let job = comfyui::submit(state, call, submission, memory).await?;
            Ok(state.service.ending(job))
        }
        Kind::Worker | Kind::Queue => {
            let accepted = state
                .service
                .submit_worker_awaited(WorkerSubmit {
                    tenant: call.caller.tenant.clone(),
                    endpoint: call.endpoint.name.clone(),
                    input: submission.input,
                    wishes: submission.wishes,
                    webhook: submission.webhook,
                    base_url: call.base_url.clone(),
                    s3_config: submission.s3_config,
                    dialect: call.family.dialect,
                    request_id: call.caller.request_id.to_string(),
                })
                .await?;
            Ok(accepted)
        }
    }
}
