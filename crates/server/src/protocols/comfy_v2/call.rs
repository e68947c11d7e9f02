//! What every handler of this protocol begins with: the caller, the endpoint, and where its answers' links lead.

use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use darkroom_core::{Endpoint, endpoint::Kind};
use http::request::Parts;

use super::error::ApiError;
use crate::{
    auth::{Caller, Scope},
    state::{AppState, BaseUrl, SelectedEndpoint},
};

/// A call of somebody who may use the selected endpoint, which is a ComfyUI's.
pub struct V2Call {
    /// Who.
    pub caller: Caller,
    /// Which endpoint.
    pub endpoint: Arc<Endpoint>,
    /// Where links lead.
    pub links: Links,
}

/// The addresses that answers hold: whole, below the prefix that the caller used (`protocols/comfy-v2.md` §1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Links {
    /// Scheme and host.
    pub root: String,
    /// The same with the prefix and `/api/v2`.
    pub api: String,
}

impl FromRequestParts<AppState> for V2Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let Ok(SelectedEndpoint(name)) = SelectedEndpoint::from_request_parts(parts, state).await;
        caller.may(Scope::Client, &name)?;
        let endpoint = state
            .service
            .endpoint(&name)
            .ok()
            .filter(|endpoint| endpoint.kind == Kind::Comfyui)
            .ok_or_else(|| ApiError::not_found("endpoint of ComfyUI"))?;
        let Ok(BaseUrl(root)) = BaseUrl::from_request_parts(parts, state).await;
        let params = RawPathParams::from_request_parts(parts, state).await;
        let is_named = params.is_ok_and(|params| params.iter().any(|(key, _)| key == "endpoint"));
        let api = match is_named {
            true => format!("{root}/e/{name}/api/v2"),
            false => format!("{root}/api/v2"),
        };
        // What a program asks reads; what changes something, somebody wanted.
        if !parts.method.is_safe() {
            state.service.user_was_active(&endpoint.name);
        }
        Ok(V2Call {
            caller,
            endpoint,
            links: Links { root, api },
        })
    }
}

/// The last variable part of a path, decoded; what cannot be decoded is nobody's id.
pub struct Id(pub String);

impl FromRequestParts<AppState> for Id {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let params = RawPathParams::from_request_parts(parts, state).await;
        let last = params
            .ok()
            .and_then(|params| params.iter().last().map(|(_, id)| id.to_owned()));
        Ok(Id(last.unwrap_or_default()))
    }
}
