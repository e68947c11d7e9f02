//! What every call begins with: its body, and whether it is signed by an app that we know.

use axum::extract::{FromRequestParts, Request};
use bytes::Bytes;
use http::{header, request::Parts};
use serde::de::DeserializeOwned;

use super::{
    MAX_BODY_BYTES,
    error::{Refused, Rejected, Trouble},
};
use crate::{
    auth::{
        AppCaller, Caller, Scope,
        signed::{SignatureError, Signed},
    },
    beside::beside,
    http::{RequestId, drain_body, read_body},
    memory::Held,
    service::{
        Error,
        jobs::JobRecord,
        published::{CalledAs, called_as},
    },
    state::{AppState, BaseUrl},
};

/// The path as the client sent it, where that is not the one that is routed.
#[derive(Debug, Clone)]
pub struct AsSent(pub String);

/// A call of an app that we know.
pub struct SpeedpixCall {
    /// Who.
    pub caller: Caller,
    /// What it sent.
    pub body: Bytes,
    /// The memory for the work on it.
    pub held: Held,
    /// The base of absolute addresses in the answer.
    pub base_url: String,
    /// Resource configs that it asks for (not signed: whether the app may use them is asked later).
    pub resources: Vec<String>,
}

impl SpeedpixCall {
    /// Verifies and reads a request: its body only when its signature is right.
    ///
    /// # Errors
    /// As the gateway refuses it.
    pub async fn read(state: &AppState, request: Request) -> Result<Self, Rejected> {
        let (mut parts, body) = request.into_parts();
        let request_id = RequestId::of(&parts.extensions);
        let AppCaller { caller, verified } = match identified(state, &parts, &request_id) {
            Ok(app) => app,
            Err(rejected) => {
                if !parts.headers.contains_key(header::EXPECT) {
                    drain_body(body).await;
                }
                return Err(rejected);
            }
        };
        let (body, held) = read_body(&parts.headers, body, MAX_BODY_BYTES, &state.service.memory)
            .await
            .map_err(|error| Rejected::body(&error, &request_id))?;
        if let Some(verified) = verified {
            let wrong = |error: SignatureError| Rejected::auth(error.into(), &request_id);
            state.auth.admit(&verified, &body).await.map_err(wrong)?;
            let first = state
                .service
                .use_nonce(verified.nonce.hash(), verified.good_until)
                .await;
            match first {
                Ok(true) => {}
                Ok(false) => return Err(wrong(SignatureError::NonceUsed)),
                // A question that is repeated does no harm, and 5xx would end the task for the SDK.
                Err(error) if is_question(parts.uri.path()) => {
                    tracing::warn!(error = ?error, "a nonce could not be kept");
                }
                Err(error) => return Err(Rejected::passing(&error, &request_id)),
            }
        }
        let Ok(BaseUrl(base_url)) = BaseUrl::from_request_parts(&mut parts, state).await;
        let resources = parts
            .headers
            .get("x-sp-resource-config-id")
            .and_then(|value| value.to_str().ok());
        let resources = resources.unwrap_or_default().split(',').map(str::trim);
        Ok(SpeedpixCall {
            caller,
            body,
            held,
            base_url,
            resources: resources.filter(|id| !id.is_empty()).map(str::to_owned).collect(),
        })
    }

    /// An answer that says what is wrong.
    pub fn refuse(&self, trouble: impl Into<Trouble>) -> Refused {
        Refused::new(trouble.into(), &self.caller.request_id)
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn json<T: DeserializeOwned + Send + 'static>(&self) -> Result<T, Refused> {
        let body = match self.body.is_empty() {
            true => Bytes::from_static(b"{}"),
            false => self.body.clone(),
        };
        let parsed = beside(body.len(), move || serde_json::from_slice(&body)).await;
        parsed.map_err(|error| self.refuse(Error::Invalid(format!("the body cannot be read: {error}"))))
    }

    /// The task of an id. One of another tenant, or of an endpoint that the app may not use, is as unknown as one that never was.
    ///
    /// # Errors
    /// An envelope for what is not there; 5xx for what passes (an envelope would end the task for the SDK).
    pub async fn task(&self, state: &AppState, id: &str) -> Result<(JobRecord, CalledAs), Refused> {
        let unknown = || self.refuse(Trouble::unknown_task(id));
        let job = id.parse().map_err(|_| unknown())?;
        let job = match state.service.job(self.caller.visible_tenant(), job).await {
            Ok(job) => job,
            Err(Error::NotFound { .. }) => return Err(unknown()),
            Err(error) => return Err(Refused::passing(error, &self.caller.request_id)),
        };
        let called = called_as(&job).ok_or_else(unknown)?;
        match self.caller.may(Scope::Client, &job.endpoint) {
            Ok(()) => Ok((job, called)),
            Err(_) => Err(unknown()),
        }
    }
}

/// Whether a call only asks.
fn is_question(path: &str) -> bool {
    path.ends_with("comfy_get_progress") || path.ends_with("comfy_get_result")
}

fn identified(state: &AppState, parts: &Parts, request_id: &RequestId) -> Result<AppCaller, Rejected> {
    let sent = parts.extensions.get::<AsSent>();
    let signed = Signed {
        method: parts.method.as_str(),
        path: sent.map_or(parts.uri.path(), |AsSent(path)| path.as_str()),
        query: parts.uri.query(),
        headers: &parts.headers,
    };
    let identified = state.auth.identify_app(&signed, &parts.uri, request_id.clone());
    identified.map_err(|error| Rejected::auth(error, request_id))
}
