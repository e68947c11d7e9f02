//! The internal API: what Darkroom can do, in its own words, for every protocol alike.
//!
//! A protocol extracts, calls one operation here, and maps the answer. The service never sees HTTP; it holds the store,
//! the blobs, and the ephemeral hub. Start with [`submit`] (a job's way in) and [`follow`] (its way out).

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLock},
};

use darkroom_blobs::{Blobs, signed_url::Signer};
use darkroom_core::{Clock, Endpoint, EndpointName, Ids, NodeName};
use darkroom_store::Store;

use crate::memory::BodyMemory;

pub mod agents;
pub mod assets;
pub mod attached;
pub mod attempts;
pub mod attention;
pub mod bucket_check;
pub mod clients;
pub mod credentials;
pub mod endpoints;
mod error;
pub mod facts;
pub mod fetch;
pub mod folders;
pub mod follow;
pub mod history;
pub mod holding;
pub mod hub;
pub mod inputs;
pub mod instances;
pub mod intake;
pub mod jobs;
pub mod keys;
pub mod lengths;
pub mod line;
pub mod missing;
pub mod models;
pub mod object_info;
pub mod objects;
pub mod outputs;
pub mod outputs_zip;
mod payload;
pub mod pickers;
pub mod pictures;
pub mod placement;
pub mod preflight;
pub mod prompt_ids;
pub mod published;
pub mod pull;
pub mod queues;
pub mod replay;
pub mod resources;
pub mod run_progress;
pub mod scripts;
mod signed_objects;
pub mod signed_uploads;
pub mod streams;
pub mod submit;
#[cfg(test)]
pub mod testing;
pub mod uploads;
pub mod userdata;
pub mod view;
pub mod waiting;
pub mod watch;
pub mod webhooks;
pub mod workers;

pub use error::Error;

/// Endpoints by name, each to be kept by whoever works with it.
pub type Endpoints = BTreeMap<EndpointName, Arc<Endpoint>>;

/// Endpoints as the service keeps them.
pub fn shared(endpoints: BTreeMap<EndpointName, Endpoint>) -> Endpoints {
    let shared = |(name, endpoint)| (name, Arc::new(endpoint));
    endpoints.into_iter().map(shared).collect()
}

/// Everything an operation needs; cheap to clone.
#[derive(Clone)]
pub struct Service(Arc<Parts>);

/// What the service is made of.
pub struct Parts {
    /// Durable state.
    pub(crate) store: Arc<dyn Store>,
    /// Bytes.
    pub(crate) blobs: Arc<dyn Blobs>,
    /// Ephemeral events.
    pub(crate) hub: hub::Hub,
    /// Time.
    pub(crate) clock: Arc<dyn Clock>,
    /// Ids and randomness.
    pub(crate) ids: Arc<dyn Ids>,
    /// Signs URLs of our own.
    pub(crate) signer: Signer,
    /// Encrypts credentials that are stored.
    pub(crate) vault: credentials::Vault,
    /// Fetches what callers name, under the operator's rules.
    pub(crate) fetcher: fetch::Fetcher,
    /// Tells of jobs' ends.
    pub(crate) webhooks: webhooks::Webhooks,
    /// Bounds the memory of requests.
    pub(crate) memory: BodyMemory,
    /// What endpoints' instances can do.
    pub(crate) object_infos: object_info::Cache,
    /// The same as clients of ComfyUI's own API read it.
    pub(crate) pickers: pickers::Pickers,
    /// What instances told beside it.
    pub(crate) facts: facts::Known,
    /// Buckets that workflows may name files of.
    pub(crate) buckets: intake::buckets::Buckets,
    /// Files that were fetched and may be used again.
    pub(crate) fetched: intake::Cached,
    /// Pictures that were looked at before a job loads them.
    pub(crate) looks: intake::Looks,
    /// Bounds the pictures that are worked on at a time.
    pub(crate) pictures: pictures::Turns,
    /// This server.
    pub(crate) node: NodeName,
    /// Endpoints by name; replaced as a whole on reload.
    pub(crate) endpoints: RwLock<Arc<Endpoints>>,
    /// How signed URLs and the like behave.
    pub(crate) settings: Settings,
    /// Counts.
    pub(crate) metrics: Arc<crate::metrics::Metrics>,
    /// The planner's eyes, once the control loop runs.
    pub(crate) planner: std::sync::OnceLock<Arc<dyn waiting::PlannerView>>,
    /// When people last did something at endpoints' pages.
    pub(crate) attention: attention::Attention,
    /// What is configured, and who changes what is attached to it.
    pub(crate) attached: attached::Attached,
    /// Callers that wait for an instance.
    pub(crate) holding: holding::Holding,
    /// Held for reading by who is about to refer to a blob that may be in the trash, for writing by who deletes one.
    pub(crate) deletions: tokio::sync::RwLock<()>,
    /// What connections of queues leave to do.
    pub(crate) chores: queues::Chores,
    /// Who holds a socket open.
    pub(crate) clients: clients::Clients,
    /// How many jobs of each endpoint have not ended.
    pub(crate) lengths: tokio::sync::watch::Sender<lengths::Lengths>,
    /// Callers' open streams of events.
    pub(crate) streams: streams::Streams,
    /// Instances on other machines that come by themselves.
    pub(crate) agents: agents::Agents,
    /// Workers that take jobs by long polls.
    pub(crate) pull: pull::PullWorkers,
    /// Objects that workers keep.
    pub(crate) objects: objects::Objects,
    /// Resource configs of published workflows.
    pub(crate) pools: RwLock<Arc<BTreeMap<String, published::Pool>>>,
    /// Versions of published workflows that were called lately.
    pub(crate) published: published::Cache,
    /// Named points at which tests end the process.
    pub(crate) failpoint: Option<darkroom_blobs::Failpoint>,
}

/// Settings of the service.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long a signed URL of an output is good.
    pub url_expiry: std::time::Duration,
}

impl std::ops::Deref for Service {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Service {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Self {
        Service(Arc::new(parts))
    }

    /// All endpoints as configured now.
    pub fn endpoints(&self) -> Arc<Endpoints> {
        self.endpoints
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the endpoints (reload); running jobs are not touched.
    pub fn set_endpoints(&self, endpoints: Endpoints) {
        *self.endpoints.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(endpoints);
        self.forget_abilities();
    }

    /// Resource configs as configured now.
    pub fn pools(&self) -> Arc<BTreeMap<String, published::Pool>> {
        self.pools.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the resource configs (reload).
    pub fn set_pools(&self, pools: BTreeMap<String, published::Pool>) {
        *self.pools.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pools);
    }

    /// One endpoint.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn endpoint(&self, name: &EndpointName) -> Result<Arc<Endpoint>, Error> {
        self.endpoints()
            .get(name)
            .cloned()
            .ok_or_else(|| Error::not_found("endpoint", name))
    }

    /// The server's time.
    pub fn now(&self) -> darkroom_core::Timestamp {
        self.clock.now()
    }

    fn reach(&self, failpoint: &'static str) {
        if let Some(hook) = &self.failpoint {
            hook(failpoint);
        }
    }
}
