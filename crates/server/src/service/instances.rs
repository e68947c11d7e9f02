//! Instances as an operator sees them. Their processes are the control loop's; this reads rows only.

use darkroom_core::{InstanceId, InstanceState};
pub use darkroom_store::catalog::InstanceRecord;

use super::{Error, Service};

/// Why an instance is in its state, for callers who do not operate it: not what it printed before it failed.
pub fn reason_for_clients(instance: &InstanceRecord) -> &str {
    match instance.state {
        InstanceState::Failed => "it failed; its operator can see why",
        InstanceState::Stopped => "stopped",
        // What was printed comes after the first line.
        InstanceState::Starting
        | InstanceState::Ready
        | InstanceState::Draining
        | InstanceState::Stopping => instance.state_reason.lines().next().unwrap_or_default(),
    }
}

impl Service {
    /// Instances that are not gone, oldest first; with `include_gone`, also the newest that are.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn instances(&self, include_gone: bool) -> Result<Vec<InstanceRecord>, Error> {
        Ok(self.store.instances(include_gone).await?)
    }

    /// One instance.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn instance(&self, id: InstanceId) -> Result<InstanceRecord, Error> {
        self.store
            .instance(id)
            .await?
            .ok_or_else(|| Error::not_found("instance", id))
    }
}
