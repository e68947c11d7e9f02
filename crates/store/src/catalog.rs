//! Endpoints made through the API, instances, what they know (object_info), and small settings.

use async_trait::async_trait;
use darkroom_core::{EndpointName, InstanceId, InstanceState, NodeName, Timestamp};

use crate::Error;

/// A stored instance.
#[derive(Debug, Clone, PartialEq)]
pub struct InstanceRecord {
    /// Its id.
    pub id: InstanceId,
    /// Its endpoint.
    pub endpoint: EndpointName,
    /// The server that owns its process.
    pub home: NodeName,
    /// Where it is.
    pub state: InstanceState,
    /// When it entered that state.
    pub state_since: Timestamp,
    /// When it was created.
    pub created_at: Timestamp,
    /// The device it was given.
    pub gpu: Option<String>,
    /// The box it runs on (`core::Endpoint::boxes`).
    pub box_name: String,
    /// The backend's handle, opaque JSON; set once it was spawned.
    pub handle: Option<String>,
    /// Why it was started.
    pub start_reason: String,
    /// Why it is in its state (stop reason, last log lines of a failed start).
    pub state_reason: String,
    /// Attempts that ended on it; counted where they end.
    pub jobs_done: u32,
    /// Start-up by phase: (`spawned`, `listening`, `ready`) and when.
    pub phases: Vec<(String, Timestamp)>,
}

/// A change of an instance: a compare-and-set on the state that was seen.
#[derive(Debug, Clone, Default)]
pub struct InstanceChange {
    /// The new state.
    pub state: Option<InstanceState>,
    /// Why.
    pub reason: Option<String>,
    /// The handle.
    pub handle: Option<String>,
    /// A phase of the start-up that was reached now.
    pub phase: Option<String>,
}

/// What a box of an endpoint can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BoxInfo {
    /// The box (`core::Endpoint::boxes`).
    pub box_name: String,
    /// Its `/object_info`, as it was told.
    pub json: Vec<u8>,
    /// When it was learned last.
    pub learned_at: Timestamp,
}

/// Endpoints, instances, object_info, settings.
#[async_trait]
pub trait Catalog: Send + Sync {
    /// Adds an instance in state `starting`.
    async fn add_instance(&self, instance: InstanceRecord) -> Result<(), Error>;

    /// Applies a change if the instance is still in state `seen`; `false` when it is not (or is gone).
    async fn change_instance(
        &self,
        id: InstanceId,
        seen: InstanceState,
        change: InstanceChange,
    ) -> Result<bool, Error>;

    /// One instance.
    async fn instance(&self, id: InstanceId) -> Result<Option<InstanceRecord>, Error>;

    /// Instances that are not gone, oldest first; with `include_gone`, also the newest 200 that are.
    async fn instances(&self, include_gone: bool) -> Result<Vec<InstanceRecord>, Error>;

    /// Forgets instances that have been gone since before `before`, at most 200; returns them so that their files can go.
    async fn sweep_instances(&self, before: Timestamp) -> Result<Vec<InstanceRecord>, Error>;

    /// Keeps what a box of an endpoint can do (its `/object_info` JSON). Does not wait for the disk: its instance tells it
    /// again.
    async fn put_object_info(
        &self,
        endpoint: &EndpointName,
        box_name: &str,
        json: Vec<u8>,
    ) -> Result<(), Error>;

    /// What the boxes of an endpoint can do, by name.
    async fn object_infos(&self, endpoint: &EndpointName) -> Result<Vec<BoxInfo>, Error>;

    /// Forgets what a box can do; `false` when nothing was known.
    async fn remove_object_info(&self, endpoint: &EndpointName, box_name: &str) -> Result<bool, Error>;

    /// Endpoints made through the API: (name, JSON that the server wrote).
    async fn endpoints(&self) -> Result<Vec<(EndpointName, String)>, Error>;

    /// Stores or replaces one.
    async fn put_endpoint(&self, name: &EndpointName, json: String) -> Result<(), Error>;

    /// Removes one; `false` when there was none.
    async fn remove_endpoint(&self, name: &EndpointName) -> Result<bool, Error>;

    /// A small setting by name.
    async fn setting(&self, name: &str) -> Result<Option<String>, Error>;

    /// Stores a setting.
    async fn put_setting(&self, name: &str, value: &str) -> Result<(), Error>;

    /// The settings whose names begin with `prefix`, by name.
    async fn settings_under(&self, prefix: &str) -> Result<Vec<(String, String)>, Error>;

    /// Stores settings, all or none.
    async fn put_settings(&self, settings: Vec<(String, String)>) -> Result<(), Error>;

    /// Appends a scaling decision for the operator (JSON), keeping the newest 1,000 per endpoint. Does not wait for the disk.
    async fn add_decision(&self, endpoint: &EndpointName, json: String) -> Result<(), Error>;

    /// The newest decisions of an endpoint, newest first.
    async fn decisions(&self, endpoint: &EndpointName, limit: u32)
    -> Result<Vec<(Timestamp, String)>, Error>;
}
