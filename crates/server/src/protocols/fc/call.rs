//! What every handler of this protocol begins with: the caller, the endpoint, the query, and how each is refused in the
//! protocol's own shape.

use axum::extract::{FromRequestParts, Query};
use darkroom_core::EndpointName;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::error::{FcError, Refused};
use crate::{
    auth::{Caller, Scope},
    state::{AppState, BaseUrl, SelectedEndpoint},
};

/// A call of somebody who may use the selected endpoint. Access is judged before the query is looked at.
pub struct FcCall<Q> {
    /// Who.
    pub caller: Caller,
    /// Which endpoint.
    pub endpoint: EndpointName,
    /// The base of absolute addresses in the answer.
    pub base_url: String,
    /// The query.
    pub query: Q,
}

impl<Q: DeserializeOwned> FromRequestParts<AppState> for FcCall<Q> {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let refuse = |error: FcError| Refused::new(error, &caller.request_id);
        let Ok(SelectedEndpoint(endpoint)) = SelectedEndpoint::from_request_parts(parts, state).await;
        caller
            .may(Scope::Client, &endpoint)
            .map_err(|e| refuse(e.into()))?;
        let Ok(BaseUrl(base_url)) = BaseUrl::from_request_parts(parts, state).await;
        let Query(query) = Query::try_from_uri(&parts.uri).map_err(|e| refuse(e.into()))?;
        Ok(FcCall {
            caller,
            endpoint,
            base_url,
            query,
        })
    }
}

impl<Q> FcCall<Q> {
    /// An error as the answer to this call.
    pub fn refuse(&self, error: impl Into<FcError>) -> Refused {
        Refused::new(error, &self.caller.request_id)
    }
}
