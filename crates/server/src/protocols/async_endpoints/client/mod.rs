//! The client side: submit, look, stream, cancel, and the queue's own routes.

use std::sync::Arc;

use axum::{
    Router,
    extract::{FromRequestParts, RawPathParams},
    response::IntoResponse,
    routing::{MethodRouter, any, get, post},
};
use darkroom_core::{Endpoint, EndpointName};
use http::request::Parts;

use super::{
    error::{AsyncError, Refused},
    family::Family,
};
use crate::{
    auth::{Caller, Scope},
    service::{Error, jobs::JobRecord},
    state::{AppState, BaseUrl},
};

mod cancel;
mod comfyui;
mod health;
mod purge;
mod requests;
mod retry;
mod run;
mod runsync;
mod status;
mod stream;
mod submission;
mod view;

use view::Shown;
pub use view::status_body;

/// The routes of one endpoint. Ids may hold anything that a path can, so that a wrong one gets the protocol's 404.
pub fn routes() -> Router<AppState> {
    Router::new()
        .route("/run", only(post(run::handler), "POST"))
        .route("/runsync", only(post(runsync::handler), "POST"))
        // The SDK's own test server takes POST for these two.
        .route(
            "/status/{*id}",
            only(get(status::handler).post(status::handler), "GET"),
        )
        .route(
            "/stream/{*id}",
            only(get(stream::handler).post(stream::handler), "GET"),
        )
        .route("/cancel/{*id}", only(post(cancel::handler), "POST"))
        .route("/retry/{*id}", only(post(retry::handler), "POST"))
        .route("/purge-queue", only(post(purge::handler), "POST"))
        .route("/health", only(get(health::handler), "GET"))
        .route("/requests", only(get(requests::handler), "GET"))
        .route("/{*path}", any(nowhere))
}

fn only(methods: MethodRouter<AppState>, allow: &'static str) -> MethodRouter<AppState> {
    methods.fallback(move |call: ClientCall| async move {
        call.refuse(AsyncError::method_not_allowed(allow)).into_response()
    })
}

async fn nowhere(call: ClientCall) -> Refused {
    call.refuse(AsyncError::no_such_path())
}

/// A call of somebody who may use the endpoint.
pub struct ClientCall {
    /// Who.
    pub caller: Caller,
    /// Which vendor's way.
    pub family: &'static Family,
    /// Which endpoint.
    pub endpoint: Arc<Endpoint>,
    /// The base of absolute addresses in the answer.
    pub base_url: String,
    /// The id in the path; empty where there is none.
    pub id: String,
    /// The query, undecoded.
    query: String,
}

impl FromRequestParts<AppState> for ClientCall {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let refuse = |error: AsyncError| Refused::new(error, &caller.request_id);
        let params = RawPathParams::from_request_parts(parts, state).await.ok();
        let param = |wanted: &str| {
            let found = params.iter().flatten().find(|(key, _)| *key == wanted);
            found.map(|(_, value)| value.to_owned()).unwrap_or_default()
        };
        let name = param("endpoint");
        // A name that cannot be one is kept out of lookups by an endpoint that cannot exist; the answer is the same.
        let name: EndpointName = name.parse().unwrap_or_else(|_| EndpointName::no_such());
        caller.may(Scope::Client, &name).map_err(|e| refuse(e.into()))?;
        let endpoint = state.service.endpoint(&name);
        let endpoint =
            endpoint.map_err(|_| refuse(Error::not_found("endpoint", param("endpoint")).into()))?;
        let Ok(BaseUrl(base_url)) = BaseUrl::from_request_parts(parts, state).await;
        let path = parts.extensions.get::<axum::extract::OriginalUri>();
        let family = Family::of(path.map_or_else(|| parts.uri.path(), |uri| uri.path()));
        Ok(ClientCall {
            family,
            endpoint,
            base_url,
            id: param("id"),
            query: parts.uri.query().unwrap_or_default().to_owned(),
            caller,
        })
    }
}

impl ClientCall {
    /// How jobs are shown to this caller.
    pub fn shown(&self) -> Shown<'_> {
        Shown {
            family: self.family,
            kind: self.endpoint.kind,
            vendor_limits: self.endpoint.limits.vendor_limits,
            base_url: &self.base_url,
        }
    }

    /// An error as the answer to this call.
    pub fn refuse(&self, error: impl Into<AsyncError>) -> Refused {
        Refused::new(error, &self.caller.request_id)
    }

    /// The job of the path, if it is one of the endpoint's that the caller may see.
    ///
    /// # Errors
    /// 404.
    pub async fn job(&self, state: &AppState) -> Result<JobRecord, AsyncError> {
        let unknown = || AsyncError::from(Error::not_found("job", &self.id));
        // The vendor's ids of the two kinds of jobs; ours are the UUID alone, and both spellings mean it.
        let bare = self.id.strip_prefix("sync-").unwrap_or(&self.id);
        let bare = bare.strip_suffix("-u1").unwrap_or(bare);
        let id = bare.parse().map_err(|_| unknown())?;
        match state.service.job(self.caller.visible_tenant(), id).await {
            Ok(job) if job.endpoint == self.endpoint.name => Ok(job),
            Ok(_) | Err(Error::NotFound { .. }) => Err(unknown()),
            Err(error) => Err(error.into()),
        }
    }

    /// A number of the query within bounds.
    ///
    /// # Errors
    /// 400 for anything else.
    pub fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, AsyncError> {
        let found = url::form_urlencoded::parse(self.query.as_bytes()).find(|(key, _)| key == name);
        let Some((_, text)) = found else { return Ok(None) };
        match text.parse() {
            Ok(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(AsyncError::invalid(format!(
                "{name} must be a number of {least} to {most}"
            ))),
        }
    }

    /// A text of the query.
    pub fn text(&self, name: &str) -> Option<String> {
        let found = url::form_urlencoded::parse(self.query.as_bytes()).find(|(key, _)| key == name);
        found.map(|(_, text)| text.into_owned())
    }
}
