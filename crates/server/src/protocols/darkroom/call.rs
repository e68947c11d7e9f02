//! What every handler of our own API begins with: the caller, and how it is refused.

use axum::extract::FromRequestParts;
use darkroom_core::{EndpointName, JobId};
use http::request::Parts;

use super::error::ApiError;
use crate::{
    auth::{Caller, Scope},
    service::{Error, Service, instances::InstanceRecord, jobs::JobRecord},
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

    /// Goes on only with this scope on every endpoint.
    pub fn needs_everywhere(&self, scope: Scope) -> Result<(), ApiError> {
        self.caller
            .may_everywhere(scope)
            .map_err(|e| ApiError::access(e, &self.caller.request_id))
    }

    /// Goes on only for callers who may list jobs of this endpoint.
    pub fn needs_list(&self, endpoint: &EndpointName) -> Result<(), ApiError> {
        self.caller
            .may_list(endpoint)
            .map_err(|e| ApiError::access(e, &self.caller.request_id))
    }

    /// A job id from a path or query. What is no id of ours cannot be a job of ours.
    pub fn job_id(&self, text: &str) -> Result<JobId, ApiError> {
        text.parse().map_err(|_| self.fail(Error::not_found("job", text)))
    }

    /// The job that a path names. One of another tenant, or of an endpoint that the key may not use, is as unknown as
    /// one that never was.
    pub async fn job(&self, service: &Service, text: &str) -> Result<JobRecord, ApiError> {
        if !self.caller.anonymous {
            self.needs_anywhere(Scope::Client)?;
        }
        let id = self.job_id(text)?;
        let job = service
            .job(self.caller.visible_tenant(), id)
            .await
            .map_err(|e| self.fail(e))?;
        match self.caller.may(Scope::Client, &job.endpoint) {
            Ok(()) => Ok(job),
            Err(_) => Err(self.fail(Error::not_found("job", text))),
        }
    }

    /// The instance that a path names, to somebody with this scope on its endpoint; others find none.
    pub async fn instance(
        &self,
        service: &Service,
        scope: Scope,
        text: &str,
    ) -> Result<InstanceRecord, ApiError> {
        self.needs_anywhere(scope)?;
        let unknown = || self.fail(Error::not_found("instance", text));
        let id = text.parse().map_err(|_| unknown())?;
        let instance = service.instance(id).await.map_err(|e| self.fail(e))?;
        match self.caller.may(scope, &instance.endpoint) {
            Ok(()) => Ok(instance),
            Err(_) => Err(unknown()),
        }
    }

    /// An endpoint's name from a path or query.
    pub fn endpoint(&self, text: &str) -> Result<EndpointName, ApiError> {
        text.parse()
            .map_err(|_| self.fail(Error::not_found("endpoint", text)))
    }
}
