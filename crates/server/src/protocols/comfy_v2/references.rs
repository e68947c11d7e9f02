//! Asset references in a graph: `{"__type": "core/ASSET", "info": {"id": …}}` wherever a file name would stand
//! (`protocols/comfy-v2.md` §6). What they mean is the service's; that they lead somewhere is asked before a key is claimed.

use serde_json::{Value, json};

use super::{call::V2Call, error::ApiError};
use crate::service::Service;

/// Lets through a graph whose references all lead to files of the caller's.
///
/// # Errors
/// `missing_asset` with the ids.
pub async fn check(service: &Service, call: &V2Call, graph: &Value) -> Result<(), ApiError> {
    let missing = service.missing_assets(&call.caller.tenant, graph).await?;
    match missing.is_empty() {
        true => Ok(()),
        false => Err(missing_asset(&missing)),
    }
}

/// The refusal of references that lead nowhere the caller may go.
pub fn missing_asset(missing: &[String]) -> ApiError {
    let message = "the workflow names assets that are not there";
    ApiError::unprocessable("missing_asset", message).with_details(json!({ "missing_ids": missing }))
}
