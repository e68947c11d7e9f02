//! Endpoints as an operator sees them: what waits, what runs, what was decided.

use std::sync::Arc;

use darkroom_core::{
    Endpoint, EndpointName, Timestamp,
    endpoint::{Backend, RemoteServer},
};
use darkroom_store::jobs::QueueCounters;

use super::{Error, Service};

/// An endpoint and its numbers.
#[derive(Debug, Clone)]
pub struct EndpointView {
    /// As configured.
    pub endpoint: Arc<Endpoint>,
    /// What waits and runs.
    pub counters: QueueCounters,
}

impl Service {
    /// All endpoints with their numbers, by name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn endpoint_views(&self) -> Result<Vec<EndpointView>, Error> {
        let mut counters = self.store.counters().await?;
        let view = |endpoint: &Arc<Endpoint>| EndpointView {
            endpoint: endpoint.clone(),
            counters: counters.remove(&endpoint.name).unwrap_or_default(),
        };
        Ok(self.endpoints().values().map(view).collect())
    }

    /// How many jobs of an endpoint have not ended: what ComfyUI calls `queue_remaining`.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn queue_remaining(&self, endpoint: &EndpointName) -> Result<u64, Error> {
        let counters = self.store.counters().await?;
        let of = counters.get(endpoint);
        Ok(of.map_or(0, |of| of.queued + of.running + of.collecting))
    }

    /// Endpoints that are not configured any more and still have jobs that wait or run, with their numbers, by name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn removed_endpoints(&self) -> Result<Vec<(EndpointName, QueueCounters)>, Error> {
        let configured = self.endpoints();
        let counters = self.store.counters().await?;
        let removed = counters.into_iter().filter(|(name, of)| {
            !configured.contains_key(name) && of.queued + of.running + of.collecting > 0
        });
        Ok(removed.collect())
    }

    /// The remote server of an endpoint at an address, as configured now, with its headers.
    pub fn remote_server(&self, endpoint: &EndpointName, url: &str) -> Option<RemoteServer> {
        let endpoints = self.endpoints();
        let Backend::Remote { servers } = &endpoints.get(endpoint)?.backend else {
            return None;
        };
        servers.iter().find(|server| server.url == url).cloned()
    }

    /// The newest scaling decisions of an endpoint, newest first: when, and JSON of `core::scheduler::Decision`.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an endpoint that is not configured.
    pub async fn decisions(
        &self,
        endpoint: &EndpointName,
        limit: u32,
    ) -> Result<Vec<(Timestamp, String)>, Error> {
        self.endpoint(endpoint)?;
        Ok(self.store.decisions(endpoint, limit).await?)
    }
}
