//! Instances as an operator sees them. Their processes are the control loop's; this reads rows only.

use darkroom_core::InstanceId;
pub use darkroom_store::catalog::InstanceRecord;

use super::{Error, Service};

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
