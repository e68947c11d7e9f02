//! What every handler of our own API begins with: the caller, and how it is refused.

use axum::extract::FromRequestParts;
use darkroom_core::{EndpointName, InstanceId, JobId, TenantId};
use http::request::Parts;

use super::error::ApiError;
use crate::{
    auth::{Caller, Scope},
    service::Error,
    state::AppState,
};

/// A call of our own API by somebody we know.
pub struct Call {
    /// Who.
    pub caller: Caller,
}

impl FromRequestParts<AppState> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        Ok(Call { caller })
    }
}

impl Call {
    /// An error of the service as the answer to this call.
    pub fn fail(&self, error: impl Into<Error>) -> ApiError {
        ApiError::service(error.into(), &self.caller.request_id)
    }

    /// Goes on only with this scope on this endpoint.
    pub fn needs(&self, scope: Scope, endpoint: &EndpointName) -> Result<(), ApiError> {
        self.caller
            .may(scope, endpoint)
            .map_err(|e| ApiError::access(e, &self.caller.request_id))
    }

    /// Goes on only with this scope.
    pub fn needs_anywhere(&self, scope: Scope) -> Result<(), ApiError> {
        self.caller
            .may_anywhere(scope)
            .map_err(|e| ApiError::access(e, &self.caller.request_id))
    }

    /// Goes on only for callers who may list jobs of this endpoint.
    pub fn needs_list(&self, endpoint: &EndpointName) -> Result<(), ApiError> {
        self.caller
            .may_list(endpoint)
            .map_err(|e| ApiError::access(e, &self.caller.request_id))
    }

    /// Whose jobs the caller sees: an operator all, everyone else their own.
    pub fn tenant(&self) -> Option<&TenantId> {
        visible_tenant(&self.caller)
    }

    /// A job id from a path. What is no id of ours cannot be a job of ours.
    pub fn job_id(&self, text: &str) -> Result<JobId, ApiError> {
        text.parse().map_err(|_| self.fail(Error::not_found("job", text)))
    }

    /// An instance id from a path.
    pub fn instance_id(&self, text: &str) -> Result<InstanceId, ApiError> {
        text.parse()
            .map_err(|_| self.fail(Error::not_found("instance", text)))
    }

    /// An endpoint's name from a path or query.
    pub fn endpoint(&self, text: &str) -> Result<EndpointName, ApiError> {
        text.parse()
            .map_err(|_| self.fail(Error::not_found("endpoint", text)))
    }
}

/// Whose jobs a caller sees: an operator all, everyone else their own.
pub fn visible_tenant(caller: &Caller) -> Option<&TenantId> {
    (!caller.is_admin()).then_some(&caller.tenant)
}
