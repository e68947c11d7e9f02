//! What handlers share, and the small extractors that every protocol needs.

use std::sync::{Arc, PoisonError, RwLock};

use axum::extract::{FromRef, FromRequestParts, RawPathParams};
use darkroom_core::EndpointName;
use http::{HeaderMap, header, request::Parts};
use tokio_util::sync::CancellationToken;

use crate::{
    auth::{AuthState, Keyring},
    config::KeyConfig,
    http::{self as front, BlobAccess, Peer, Readiness},
    metrics::Metrics,
    pages::frontend::Frontends,
    service::{Error, Service},
};

/// The state of the router; cheap to clone, which every layer does for every request.
#[derive(Clone)]
pub struct AppState(Arc<App>);

impl std::ops::Deref for AppState {
    type Target = App;

    fn deref(&self) -> &App {
        &self.0
    }
}

impl From<App> for AppState {
    fn from(app: App) -> AppState {
        AppState(Arc::new(app))
    }
}

/// What [`AppState`] holds.
pub struct App {
    /// What Darkroom can do.
    pub service: Service,
    /// Who callers are.
    pub auth: AuthState,
    /// Cancelled when a stop begins: whoever waits for new work answers now.
    pub stopping: CancellationToken,
    /// Cancelled when the grace of a stop is over: whoever waits for a job's end, or follows it, ends now.
    pub closing: CancellationToken,
    /// Finds the base of absolute addresses.
    pub base_url: front::BaseUrl,
    /// Whether the server takes requests.
    pub readiness: Readiness,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// Files by signed address.
    pub blobs: BlobAccess,
    /// Reads keys anew.
    pub reload: Reload,
    /// ComfyUI's pages.
    pub frontends: Frontends,
}

#[cfg(test)]
impl AppState {
    /// Around a service, without keys, as if it listened there.
    pub fn around(service: Service, address: std::net::SocketAddr) -> Self {
        let config = crate::config::Config::from_text(None, "", &Default::default(), &Default::default());
        let server = config.expect("nothing is a configuration").server;
        let auth = AuthState::new(
            crate::auth::Rules::new(&server, address),
            Keyring::default(),
            service.clock.clone(),
            service.ids.clone(),
        );
        AppState::from(App {
            stopping: CancellationToken::new(),
            closing: CancellationToken::new(),
            base_url: front::BaseUrl::new(&server, address),
            readiness: Readiness::default(),
            metrics: service.metrics.clone(),
            blobs: BlobAccess {
                blobs: service.blobs.clone(),
                signer: darkroom_blobs::signed_url::Signer::new(&[7; 32]),
                clock: service.clock.clone(),
            },
            reload: Reload::new(auth.clone(), vec![]),
            frontends: Frontends::new("/nonexistent".into()),
            auth,
            service,
        })
    }
}

impl FromRef<AppState> for AuthState {
    fn from_ref(state: &AppState) -> AuthState {
        state.auth.clone()
    }
}

impl FromRef<AppState> for Readiness {
    fn from_ref(state: &AppState) -> Readiness {
        state.readiness.clone()
    }
}

impl FromRef<AppState> for Arc<Metrics> {
    fn from_ref(state: &AppState) -> Arc<Metrics> {
        state.metrics.clone()
    }
}

impl FromRef<AppState> for BlobAccess {
    fn from_ref(state: &AppState) -> BlobAccess {
        state.blobs.clone()
    }
}

/// The endpoint a request is for: `/e/{endpoint}/…` or `/api/predict/{service}/…` names it, else the Host selects it, else it is `default`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SelectedEndpoint(pub EndpointName);

/// The name of the endpoint at the root.
const DEFAULT_ENDPOINT: &str = "default";

impl FromRequestParts<AppState> for SelectedEndpoint {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let named = match RawPathParams::from_request_parts(parts, state).await {
            Ok(params) => params
                .iter()
                .find(|(key, _)| matches!(*key, "endpoint" | "service"))
                .map(|(_, name)| name.to_owned()),
            Err(_) => None,
        };
        let name = match named {
            Some(name) => name,
            None => by_host(state, &parts.headers).unwrap_or_else(|| DEFAULT_ENDPOINT.to_owned()),
        };
        // A name that cannot be one is kept out of lookups by an endpoint that cannot exist; the answer is the same.
        let unknown = || EndpointName::no_such();
        Ok(SelectedEndpoint(name.parse().unwrap_or_else(|_| unknown())))
    }
}

/// The endpoint that the Host selects.
pub fn by_host(state: &AppState, headers: &HeaderMap) -> Option<String> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let endpoints = state.service.endpoints();
    let selected = endpoints
        .values()
        .find(|e| e.hosts.iter().any(|h| h.eq_ignore_ascii_case(host)))?;
    Some(selected.name.to_string())
}

/// The base of absolute addresses in answers, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl(pub String);

impl FromRequestParts<AppState> for BaseUrl {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<Peer>().map(|Peer(address)| *address);
        Ok(BaseUrl(state.base_url.of(&parts.headers, peer)))
    }
}

/// Where a request comes from, as far as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub Option<std::net::IpAddr>);

impl FromRequestParts<AppState> for ClientAddress {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Self::Rejection> {
        let peer = parts.extensions.get::<Peer>().map(|Peer(address)| *address);
        Ok(ClientAddress(state.base_url.client(&parts.headers, peer)))
    }
}

/// Reads keys anew after a change.
#[derive(Clone)]
pub struct Reload {
    auth: AuthState,
    configured: Arc<RwLock<Vec<KeyConfig>>>,
}

impl Reload {
    /// With the keys of the configuration file; stored ones are read each time.
    pub fn new(auth: AuthState, configured: Vec<KeyConfig>) -> Self {
        Reload {
            auth,
            configured: Arc::new(RwLock::new(configured)),
        }
    }

    /// Replaces the keys of the configuration file; they count after [`Reload::keys`].
    pub fn set_configured(&self, keys: Vec<KeyConfig>) {
        *self.configured.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Makes the keys of now count.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn keys(&self, service: &Service) -> Result<(), Error> {
        let stored = service.keys().await?;
        let configured = self
            .configured
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let keyring = Keyring::with_apps(
            &configured,
            &stored,
            |app| service.app_secret(app),
            service.endpoints().values().map(AsRef::as_ref),
        );
        let may_work = |key: &str, endpoint: &EndpointName| keyring.may_work(key, endpoint);
        let (agents, workers) = (
            service.agents_without(may_work),
            service.workers_without(may_work),
        );
        self.auth.set_keyring(keyring);
        let reason = "its key does not count any more";
        service.dismiss_agents(agents, reason).await;
        service.dismiss_workers(workers, reason).await;
        Ok(())
    }
}
