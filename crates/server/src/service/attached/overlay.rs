//! What is attached, laid over what is configured. Both change one at a time, so that neither undoes the other.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use darkroom_core::{Endpoint, EndpointName, endpoint::ProcessSpec};
use tokio_util::task::TaskTracker;

use super::stored::Stored;
use crate::service::{Error, Service, shared};

/// The endpoint that there is without any configuration.
const IMPLIED: &str = "default";

/// What the configuration says, before anything is laid over it.
#[derive(Debug, Default)]
pub struct Attached {
    configured: RwLock<Configured>,
    /// Who changes what is configured or attached holds it until the endpoints are what both say.
    changing: tokio::sync::Mutex<()>,
    /// Changes on their way, also those whose caller left.
    changes: TaskTracker,
}

impl Attached {
    pub(super) async fn changing(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.changing.lock().await
    }
}

#[derive(Debug, Default, Clone)]
struct Configured {
    endpoints: Arc<BTreeMap<EndpointName, Endpoint>>,
    /// Nobody wrote `default`: it is there because there is nothing else.
    default_is_implied: bool,
    /// What this build's engine can do: the `object_info` of every endpoint that runs it.
    engine_object_info: Option<Arc<[u8]>>,
}

impl Configured {
    /// Whether it has the last word on a name.
    fn holds(&self, name: &EndpointName) -> bool {
        let implied = self.default_is_implied && name.as_str() == IMPLIED;
        self.endpoints.contains_key(name) && !implied
    }
}

impl Service {
    /// Takes over what is configured, with what is attached laid over it. `engine_object_info`: what this build's engine can
    /// do.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn configure(
        &self,
        endpoints: BTreeMap<EndpointName, Endpoint>,
        default_is_implied: bool,
        engine_object_info: Option<&[u8]>,
    ) -> Result<(), Error> {
        let _changing = self.attached.changing().await;
        let configured = Configured {
            endpoints: Arc::new(endpoints),
            default_is_implied,
            engine_object_info: engine_object_info.map(Arc::from),
        };
        *self
            .attached
            .configured
            .write()
            .unwrap_or_else(PoisonError::into_inner) = configured;
        self.lay_over().await
    }

    /// Waits for changes of what is attached that are on their way: the server stops.
    pub async fn attached_is_settled(&self) {
        self.attached.changes.close();
        self.attached.changes.wait().await;
    }

    /// A change that is not given up when its caller leaves.
    pub(super) async fn to_its_end<T: Send + 'static>(
        &self,
        change: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let done = self.attached.changes.spawn(change).await;
        done.map_err(|error| Error::Internal(error.into()))?
    }

    /// Whether the configuration has the last word on an endpoint.
    pub(super) fn is_configured(&self, endpoint: &EndpointName) -> bool {
        self.configured().holds(endpoint)
    }

    fn configured(&self) -> Configured {
        let configured = self.attached.configured.read();
        configured.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) async fn stored(&self, endpoint: &EndpointName) -> Result<Option<Stored>, Error> {
        let all = self.store.endpoints().await?;
        let json = all.into_iter().find(|(name, _)| name == endpoint);
        let unreadable = || {
            Error::Invalid(format!(
                "what is attached to endpoint '{endpoint}' was written by another version and cannot be read"
            ))
        };
        json.map(|(_, json)| Stored::parse(&json).ok_or_else(unreadable))
            .transpose()
    }

    pub(super) async fn keep(&self, endpoint: &EndpointName, stored: &Stored) -> Result<(), Error> {
        let json = serde_json::to_string(stored).map_err(|e| Error::Internal(e.into()))?;
        Ok(self.store.put_endpoint(endpoint, json).await?)
    }

    /// Makes the endpoints what is configured and attached; who calls it holds [`Attached::changing`].
    pub(super) async fn lay_over(&self) -> Result<(), Error> {
        let configured = self.configured();
        let mut endpoints = BTreeMap::clone(&configured.endpoints);
        for (name, json) in self.store.endpoints().await? {
            if configured.holds(&name) {
                tracing::warn!(endpoint.name = %name, "the configuration has the last word: what was attached to the endpoint is left out");
                continue;
            }
            let read = Stored::parse(&json).ok_or_else(|| Error::Invalid("it cannot be read".to_owned()));
            match read.and_then(|stored| stored.endpoint(&name)) {
                Ok(endpoint) => {
                    endpoints.insert(name, endpoint);
                }
                Err(error) => {
                    tracing::error!(endpoint.name = %name, %error, "an attached endpoint is left out");
                }
            }
        }
        self.set_endpoints(shared(endpoints));
        match &configured.engine_object_info {
            Some(json) => self.learn_engine(json).await,
            None => Ok(()),
        }
    }

    /// Every endpoint on the embedded engine can do what this build's engine can.
    async fn learn_engine(&self, object_info: &[u8]) -> Result<(), Error> {
        let engine = ProcessSpec::default().box_name();
        for endpoint in self.endpoints().values().filter(|e| e.runs_embedded_engine()) {
            self.learn_object_info(&endpoint.name, &engine, object_info.to_vec())
                .await?;
        }
        Ok(())
    }
}
