//! The job that a path names.

use darkroom_core::JobId;

use super::{call::V2Call, error::ApiError, view};
use crate::service::{Service, jobs::JobRecord};

/// The caller's job of the endpoint with that id, as long as it is kept. One of another tenant or endpoint is as unknown as one
/// that never was, and what is no UUID is no id.
///
/// # Errors
/// 404; when the store fails.
pub async fn find(service: &Service, call: &V2Call, id: &str) -> Result<JobRecord, ApiError> {
    let unknown = || ApiError::not_found("job");
    if id.parse::<JobId>().is_err() {
        return Err(unknown());
    }
    let (tenant, endpoint) = (&call.caller.tenant, &call.endpoint.name);
    let found = service.find_prompt(tenant, endpoint, id).await?;
    let is_kept =
        |job: &JobRecord| !job.state.is_final() || service.now() < view::expires_at(job, &call.endpoint);
    found.filter(is_kept).ok_or_else(unknown)
}
