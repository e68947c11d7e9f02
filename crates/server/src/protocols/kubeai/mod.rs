//! The KubeAI-style proxy `/openai/api/*` (`protocols/kubeai.md` §8 to §10): ComfyUI's own API, with the endpoint named by
//! `model`.
//!
//! A request is looked into as far as it takes to know its endpoint, and goes on untouched as one below `/e/{endpoint}/api`.
//! `GET system_stats` alone wakes an instance, and waits for it.

mod error;
mod model;

use axum::{
    body::Body,
    extract::{FromRequestParts, Request},
    response::{IntoResponse, Response},
};
use darkroom_core::{EndpointName, endpoint::Kind};
use http::{Method, StatusCode, Uri};

use self::error::Refused;
use crate::{
    auth::{Caller, Scope},
    memory::{BodyMemory, Held},
    metrics::Active,
    state::{AppState, by_host},
};

/// For bodies that are looked into, in bytes; one upload of the largest size fits into its half for reading. They wait here
/// for their turn at the server's own budget, which never waits for this one.
const BODY_MEMORY: u64 = 256 << 20;
/// What lies below `/api` and is another protocol's.
const OTHERS: [&str; 3] = ["serverless", "predict", "v2"];

/// Leads requests to the routes they mean.
#[derive(Clone)]
pub struct Proxy {
    state: AppState,
    memory: BodyMemory,
}

/// What a request that was led on takes until it is answered: the memory of its body, and its place in the numbers.
pub struct Led {
    _held: Held,
    _active: Active,
}

/// What a path asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted<'a> {
    /// The endpoint, where the path begins with `/e/{endpoint}`.
    endpoint: Option<&'a str>,
    /// What follows `/openai/api/`.
    rest: &'a str,
}

impl<'a> Wanted<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let (endpoint, path) = match path.strip_prefix("/e/").and_then(|rest| rest.split_once('/')) {
            Some((endpoint, rest)) => (Some(endpoint), rest),
            None => (None, path.strip_prefix('/')?),
        };
        let rest = path.strip_prefix("openai/api/")?;
        Some(Wanted { endpoint, rest })
    }
}

impl Proxy {
    /// One with a budget of its own.
    pub fn new(state: AppState) -> Proxy {
        let memory = BodyMemory::new(BODY_MEMORY);
        Proxy { state, memory }
    }

    /// The request as it goes on; the answer where it does not.
    ///
    /// # Errors
    /// When it is the proxy's to refuse.
    pub async fn lead(&self, request: Request) -> Result<(Request, Option<Led>), Response> {
        let uri = request.uri().clone();
        match Wanted::of(uri.path()) {
            Some(wanted) => {
                let led = self.forward(request, wanted).await;
                let (request, _held, _active) = led.map_err(IntoResponse::into_response)?;
                Ok((request, Some(Led { _held, _active })))
            }
            None => Ok((request, None)),
        }
    }

    /// The request as it goes on, the memory that its body takes, and what counts it.
    async fn forward(
        &self,
        request: Request,
        wanted: Wanted<'_>,
    ) -> Result<(Request, Held, Active), Refused> {
        let (mut parts, body) = request.into_parts();
        let state = &self.state;
        let caller = Caller::from_request_parts(&mut parts, state).await?;
        if OTHERS.contains(&wanted.rest.split('/').next().unwrap_or_default()) {
            return Err(Refused::new(
                StatusCode::NOT_FOUND,
                "there is no such route of ComfyUI",
            ));
        }
        if caller.anonymous && !state.service.endpoints().values().any(|e| e.anonymous) {
            // Nobody's body is read for nothing.
            caller.may_anywhere(Scope::Client)?;
        }
        let by_path = wanted.endpoint.map(str::to_owned);
        let outside = by_path
            .or_else(|| by_host(state, &parts.headers))
            .or_else(|| model::of_header(&parts.headers))
            .or_else(|| model::of_query(parts.uri.query()));
        let (model, body, held) = match outside {
            Some(model) => (model, body, Held::default()),
            None => model::of_body(&parts.headers, body, &self.memory).await?,
        };
        let endpoint = self.endpoint(&caller, &model)?;
        let active = state.metrics.proxied(&endpoint);
        parts.uri = below(&endpoint, wanted.rest, parts.uri.query())?;
        if parts.method == Method::GET && wanted.rest == "system_stats" {
            // It named the endpoint and has done its work: the wait may be long, and others need the memory.
            drop((body, held));
            state.service.wake_and_hold(&endpoint).await?;
            let request = Request::from_parts(parts, Body::empty());
            return Ok((request, Held::default(), active));
        }
        Ok((Request::from_parts(parts, body), held, active))
    }

    fn endpoint(&self, caller: &Caller, model: &str) -> Result<EndpointName, Refused> {
        let endpoints = self.state.service.endpoints();
        let takes_graphs = |name: &EndpointName| endpoints.get(name).is_some_and(|e| e.kind == Kind::Comfyui);
        match model.parse::<EndpointName>() {
            Ok(name) if takes_graphs(&name) => {
                caller.may(Scope::Client, &name)?;
                Ok(name)
            }
            Ok(_) | Err(_) => {
                let theirs = endpoints.keys().filter(|name| takes_graphs(name));
                let theirs = theirs.filter(|name| caller.may(Scope::Client, name).is_ok());
                Err(Refused::unknown_model(model, theirs))
            }
        }
    }
}

fn below(endpoint: &EndpointName, rest: &str, query: Option<&str>) -> Result<Uri, Refused> {
    let query = query.map(|query| format!("?{query}")).unwrap_or_default();
    let uri = format!("/e/{endpoint}/api/{rest}{query}").parse();
    uri.map_err(|_| Refused::new(StatusCode::BAD_REQUEST, "the address cannot be read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_the_proxy_are_told_from_others() {
        let of = |path: &'static str| Wanted::of(path).map(|w| (w.endpoint, w.rest));
        assert_eq!(of("/openai/api/history/1"), Some((None, "history/1")));
        assert_eq!(
            of("/e/sdxl/openai/api/userdata/a%2Fb"),
            Some((Some("sdxl"), "userdata/a%2Fb"))
        );
        for other in [
            "/openai/v1/models",
            "/api/openai/api/x",
            "/e/openai/api/x",
            "/openai/apis",
            "/",
        ] {
            assert_eq!(of(other), None, "{other}");
        }
        let endpoint = "sdxl".parse().unwrap();
        let uri = below(&endpoint, "view", Some("filename=a%20b.png&type=output")).unwrap();
        assert_eq!(uri.to_string(), "/e/sdxl/api/view?filename=a%20b.png&type=output");
    }
}
