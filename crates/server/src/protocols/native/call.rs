//! What every handler of this protocol begins with: the caller, the endpoint, the query, and how each is refused.

use std::sync::Arc;

use axum::extract::{FromRequestParts, Query};
use darkroom_core::{Endpoint, endpoint::Kind};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::{NativeError, Refused};
use crate::{
    auth::{Caller, Scope},
    service::Error,
    state::{AppState, SelectedEndpoint},
};

/// A call of somebody who may use the selected endpoint, which is a ComfyUI's.
pub struct NativeCall<Q = NoQuery> {
    /// Who.
    pub caller: Caller,
    /// Which endpoint.
    pub endpoint: Arc<Endpoint>,
    /// The query.
    pub query: Q,
}

/// The query of routes that take none; whatever stands there is ignored, as ComfyUI does.
#[derive(Debug, serde::Deserialize)]
pub struct NoQuery {}

impl<Q: DeserializeOwned> FromRequestParts<AppState> for NativeCall<Q> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let refuse = |error: NativeError| Refused::new(error, &caller.request_id);
        let Ok(SelectedEndpoint(name)) = SelectedEndpoint::from_request_parts(parts, state).await;
        caller.may(Scope::Client, &name).map_err(|e| refuse(e.into()))?;
        let endpoint = state.service.endpoint(&name).map_err(|e| refuse(e.into()))?;
        if endpoint.kind != Kind::Comfyui {
            return Err(refuse(Error::not_found("ComfyUI endpoint", name).into()));
        }
        // What a page asks for by itself reads; what changes something, a person wanted.
        if !parts.method.is_safe() {
            state.service.user_was_active(&endpoint.name);
        }
        let Query(query) = Query::try_from_uri(&parts.uri).map_err(|e| refuse(e.into()))?;
        Ok(NativeCall {
            caller,
            endpoint,
            query,
        })
    }
}

/// A parameter of the path by its name: below `/e/{endpoint}` there is one more of them than at the root.
pub fn param<'a>(params: &'a [(String, String)], name: &str) -> &'a str {
    let found = params.iter().find(|(key, _)| key == name);
    found.map_or("", |(_, value)| value)
}

impl<Q> NativeCall<Q> {
    /// An error as the answer to this call.
    pub fn refuse(&self, error: impl Into<NativeError>) -> Refused {
        Refused::new(error, &self.caller.request_id)
    }

    /// Goes on only where the caller may list: callers without a key reach jobs by their ids alone, unless the endpoint
    /// says otherwise.
    ///
    /// # Errors
    /// The refusal.
    pub fn may_list(&self) -> Result<(), Refused> {
        self.caller
            .may_list(&self.endpoint.name)
            .map_err(|e| self.refuse(e))
    }
}
