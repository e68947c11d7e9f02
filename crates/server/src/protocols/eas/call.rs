//! What every handler of this protocol begins with: who calls, which service, as which consumer, and the query.

use axum::extract::{FromRequestParts, RawPathParams};
use darkroom_core::Endpoint;
use http::{HeaderMap, request::Parts};

use super::{
    codec,
    error::{EasError, Refused},
    query::Query,
};
use crate::{
    auth::{self, Caller, Scope},
    http::Flushed,
    state::{AppState, BaseUrl},
};

/// Header names that clients hard-code or learn from the attributes (`protocols/eas-queue.md` §2).
pub const HEADER_USER: &str = "X-EAS-QueueService-Redis-Uid";
pub const HEADER_GROUP: &str = "X-EAS-QueueService-Redis-Gid";
pub const HEADER_PRIORITY: &str = "X-EAS-QueueService-Priority";
const HEADER_REAR: &str = "X-EAS-QueueService-Access-Rear";

/// The group of callers that name none.
const DEFAULT_GROUP: &str = "eas";
const LOWEST_PRIORITY: i32 = 0;
const HIGHEST_PRIORITY: i32 = 9;

/// A call of somebody who may use the service.
pub struct EasCall {
    /// Who.
    pub caller: Caller,
    /// Which service.
    pub endpoint: std::sync::Arc<Endpoint>,
    /// The consumer's name; empty where none was sent.
    pub uid: String,
    /// The consumer's group.
    pub gid: String,
    /// The priority of a header, if there was one.
    priority: Option<String>,
    /// Asks for the side queue of items that were delivered too often.
    pub rear: bool,
    /// Whether the answer should be protobuf.
    pub protobuf: bool,
    /// The query.
    pub query: Query,
    /// The base of absolute addresses in the answer.
    pub base_url: String,
    /// Tells when what was answered has left us; none where there is no socket.
    pub flushed: Option<Flushed>,
}

impl FromRequestParts<AppState> for EasCall {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Refused> {
        let caller = Caller::from_request_parts(parts, state).await?;
        let refuse = |error: EasError| Refused::new(error, &caller.request_id);
        // Queues are their tenant's, and callers without a token are nobody's.
        if caller.anonymous {
            return Err(refuse(auth::Error::Unauthenticated { presented: false }.into()));
        }
        let name = service_name(parts, state).await;
        let endpoint = state.service.service_named(&name).map_err(|e| refuse(e.into()))?;
        caller
            .may(Scope::Client, &endpoint.name)
            .map_err(|e| refuse(e.into()))?;
        let query = Query::parse(parts.uri.query().unwrap_or_default()).map_err(refuse)?;
        let Ok(BaseUrl(base_url)) = BaseUrl::from_request_parts(parts, state).await;
        let text = |name: &str| header(&parts.headers, name);
        Ok(EasCall {
            uid: text(HEADER_USER).unwrap_or_default(),
            gid: text(HEADER_GROUP)
                .filter(|gid| !gid.is_empty())
                .unwrap_or_else(|| DEFAULT_GROUP.to_owned()),
            priority: text(HEADER_PRIORITY),
            rear: text(HEADER_REAR).is_some_and(|value| value.eq_ignore_ascii_case("true")),
            protobuf: codec::wants_protobuf(&parts.headers),
            caller,
            endpoint,
            query,
            base_url,
            flushed: parts.extensions.get::<Flushed>().cloned(),
        })
    }
}

impl EasCall {
    /// An error as the answer to this call.
    pub fn refuse(&self, error: impl Into<EasError>) -> Refused {
        Refused::new(error, &self.caller.request_id)
    }

    /// The priority of the query or the header.
    pub fn priority(&self) -> Result<Option<i32>, EasError> {
        let given = self.query.get("_priority_").or(self.priority.as_deref());
        let Some(text) = given.filter(|text| !text.is_empty()) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(level) if (LOWEST_PRIORITY..=HIGHEST_PRIORITY).contains(&level) => Ok(Some(level)),
            _ => Err(EasError::invalid(format!(
                "bad priority: use {LOWEST_PRIORITY} (normal) to {HIGHEST_PRIORITY}"
            ))),
        }
    }
}

/// The service that an address names; empty where it names none.
pub async fn service_name(parts: &mut Parts, state: &AppState) -> String {
    let Ok(params) = RawPathParams::from_request_parts(parts, state).await else {
        return String::new();
    };
    let name = params.iter().find(|(key, _)| *key == "service");
    name.map_or_else(String::new, |(_, name)| name.to_owned())
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    Some(value.trim().to_owned())
}
