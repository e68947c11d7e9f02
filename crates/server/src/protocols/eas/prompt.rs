//! `POST /api/predict/{service}/api_prompt`: a bare workflow becomes a job; its result comes to the sink
//! (`protocols/eas-queue.md` §6).

use axum::{
    extract::{Request, State},
    response::Response,
};
use darkroom_core::endpoint::Kind;
use serde_json::Value;

use super::{
    call::EasCall,
    error::{EasError, Refused},
    posted::Posted,
    put::answer,
};
use crate::{
    beside::beside,
    service::queues::{OpenQueue, PromptItem, Side},
    state::AppState,
};

/// Largest body, in bytes: a workflow with its images inline.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;

/// The handler.
///
/// # Errors
/// Every refusal, in this protocol's shape.
pub async fn handler(
    State(state): State<AppState>,
    call: EasCall,
    request: Request,
) -> Result<Response, Refused> {
    // Where instances are programs of somebody's own, this path is theirs.
    if call.endpoint.kind == Kind::Worker {
        return super::elsewhere(State(state), call, request).await;
    }
    submit(&state, &call, request)
        .await
        .map_err(|error| call.refuse(error))
}

async fn submit(state: &AppState, call: &EasCall, request: Request) -> Result<Response, EasError> {
    let posted = Posted::read(state, call, request, MAX_BODY_BYTES).await?;
    let body = posted.body;
    let size_bytes = body.len();
    let graph = beside(size_bytes, move || workflow(&body)).await?;
    let queue = OpenQueue::new(&call.caller.tenant, call.endpoint.clone(), Side::Input);
    let prompt = PromptItem {
        tags: call.query.tags.clone(),
        priority: posted.priority,
        graph,
        size_bytes,
        base_url: call.base_url.clone(),
        request_id: call.caller.request_id.to_string(),
        memory: posted.memory,
    };
    let done = state.service.put_prompt(&queue, prompt).await?;
    Ok(answer(&done))
}

/// The workflow of a body: bare, or wrapped in `prompt` as ComfyUI's own API has it.
fn workflow(body: &[u8]) -> Result<Value, EasError> {
    let mut json: Value =
        serde_json::from_slice(body).map_err(|e| EasError::invalid(format!("the body is not JSON: {e}")))?;
    let is_node = |value: &Value| value.get("class_type").is_some();
    if let Some(inner) = json
        .get_mut("prompt")
        .filter(|inner| inner.is_object() && !is_node(inner))
    {
        return Ok(inner.take());
    }
    match json.is_object() {
        true => Ok(json),
        false => Err(EasError::invalid(
            "the body is no workflow: it must be a JSON object of nodes",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workflows_are_bare_or_wrapped() {
        assert!(
            workflow(br#"{"3":{"class_type":"X"}}"#)
                .unwrap()
                .get("3")
                .is_some()
        );
        assert!(
            workflow(br#"{"prompt":{"3":{"class_type":"X"}}}"#)
                .unwrap()
                .get("3")
                .is_some()
        );
        let node = workflow(br#"{"prompt":{"class_type":"X"}}"#).unwrap();
        assert!(node.get("prompt").is_some(), "a node may be called prompt");
        for bad in [&b""[..], b"[]", b"3", b"{", b"null"] {
            assert!(workflow(bad).is_err());
        }
    }
}
