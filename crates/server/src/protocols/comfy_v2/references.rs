//! Asset references in a graph: `{"__type": "core/ASSET", "info": {"id": …}}` wherever a file name would stand
//! (`protocols/comfy-v2.md` §6). What they mean is the service's; that they lead somewhere is asked before a key is claimed.

use serde_json::{Value, json};

use super::{call::V2Call, error::ApiError};
use crate::service::Service;

/// Lets through a graph whose references all lead to files of the caller's. `size`: how large the request was, in bytes.
///
/// # Errors
/// `missing_asset` with the ids; that of an invalid graph for too many references.
pub async fn check(service: &Service, call: &V2Call, graph: Value, size: usize) -> Result<Value, ApiError> {
    let checked = service
        .missing_assets(&call.caller.tenant, &call.endpoint.name, graph, size)
        .await;
    let (graph, missing) = checked.map_err(ApiError::of_submit)?;
    match missing.is_empty() {
        true => Ok(graph),
        false => Err(missing_asset(&missing)),
    }
}

/// The refusal of references that lead nowhere the caller may go.
pub fn missing_asset(missing: &[String]) -> ApiError {
    let message = "the workflow names assets that are not there";
    ApiError::unprocessable("missing_asset", message).with_details(json!({ "missing_ids": missing }))
}
