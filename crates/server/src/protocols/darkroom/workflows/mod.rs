//! Published workflows: publish, list, show, compare, move aliases, draft, export, import.

use std::sync::Arc;

use axum::{
    Router,
    routing::{get, post, put},
};
use darkroom_core::{
    EndpointName,
    workflow::{AliasName, Version, WorkflowId},
};

use super::{call::Call, error::ApiError};
use crate::{
    auth::{self, Scope},
    service::{
        Error,
        published::{Actor, Denied, WorkflowKey, workflow_key},
    },
    state::AppState,
};

mod aliases;
mod draft;
pub mod openapi;
mod outcome;
mod publish;
mod run;
mod show;
mod snippets;
mod transfer;
mod views;

/// The routes below `/workflows`.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/", get(show::list).post(publish::publish))
        .route("/import", post(transfer::import))
        .route("/{workflow}", get(show::show))
        .route("/{workflow}/versions", get(show::versions))
        .route("/{workflow}/versions/{version}", get(show::version))
        .route("/{workflow}/diff", get(show::diff))
        .route("/{workflow}/schema", get(show::schema))
        .route("/{workflow}/snippets", get(snippets::show))
        .route("/{workflow}/run", post(run::run))
        .route("/{workflow}/runs/{job}", get(run::show))
        .route("/{workflow}/aliases", get(aliases::history))
        .route("/{workflow}/aliases/{alias}", put(aliases::point))
        .route("/{workflow}/aliases/{alias}/rollback", post(aliases::roll_back))
        .route(
            "/{workflow}/draft",
            get(draft::show).put(draft::keep).delete(draft::remove),
        )
        .route("/{workflow}/export", get(transfer::export))
}

impl Call {
    /// A workflow from a path, among those of the caller's tenant.
    fn workflow_key(&self, text: &str) -> Result<WorkflowKey, ApiError> {
        let id: WorkflowId = text
            .parse()
            .map_err(|_| self.fail(Error::not_found("workflow", text)))?;
        Ok(workflow_key(&self.caller.tenant, &id))
    }

    /// The same for a new one: the id is judged aloud.
    fn new_workflow_key(&self, text: &str) -> Result<WorkflowKey, ApiError> {
        let id: WorkflowId = text
            .parse()
            .map_err(|e: darkroom_core::workflow::Error| self.fail(Error::Invalid(e.to_string())))?;
        Ok(workflow_key(&self.caller.tenant, &id))
    }

    fn version(&self, text: &str) -> Result<Version, ApiError> {
        text.parse()
            .map_err(|e: darkroom_core::workflow::Error| self.fail(Error::Invalid(e.to_string())))
    }

    fn alias(&self, text: &str) -> Result<AliasName, ApiError> {
        text.parse()
            .map_err(|e: darkroom_core::workflow::Error| self.fail(Error::Invalid(e.to_string())))
    }

    /// Somebody of this tenant who may publish somewhere.
    fn publisher(&self) -> Result<(), ApiError> {
        self.needs_anywhere(Scope::Publish)
    }

    /// Who acts, as the service asks.
    fn actor(&self) -> Actor {
        let on = |scope| {
            let caller = self.caller.clone();
            Arc::new(move |endpoint: &EndpointName| caller.may(scope, endpoint).is_ok())
        };
        Actor {
            by: self.caller.key_name.clone().unwrap_or_default(),
            publishes: on(Scope::Publish),
            calls: on(Scope::Client),
        }
    }

    /// The answer to who may not change a workflow.
    fn denied(&self, denied: Denied) -> ApiError {
        match denied {
            Denied::Service(error) => self.fail(error),
            Denied::Taken => {
                // Which one it is, is not theirs to know.
                let endpoint = "that this workflow runs on".to_owned();
                ApiError::access(auth::Error::ForeignEndpoint { endpoint }, &self.caller.request_id)
            }
            Denied::Endpoint(endpoint) => {
                let endpoint = endpoint.to_string();
                ApiError::access(auth::Error::ForeignEndpoint { endpoint }, &self.caller.request_id)
            }
        }
    }
}
