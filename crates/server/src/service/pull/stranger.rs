//! What comes from a worker that is not known any more: it was given up, and did not hear of it.

use darkroom_core::{EndpointName, JobId};

use super::{External, result::Received};
use crate::service::{Error, Service};

impl Service {
    /// What became of a result whose worker is not known any more. `key` names the credential it comes with.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn result_of_stranger(
        &self,
        endpoint: &EndpointName,
        name: &str,
        key: Option<&str>,
        job: JobId,
    ) -> Result<Received, Error> {
        let record = self.store.job(None, job).await?;
        if record.is_none_or(|record| record.endpoint != *endpoint) {
            return Ok(Received::Unknown);
        }
        for attempt in self.store.attempts(job).await? {
            if attempt.instance.to_string() == name {
                return Ok(Received::TooLate);
            }
            let instance = self.store.instance(attempt.instance).await?;
            let external = instance
                .and_then(|record| record.handle)
                .and_then(|handle| serde_json::from_str::<External>(&handle).ok());
            if external.is_some_and(|it| it.worker == name && it.key.as_deref() == key) {
                return Ok(Received::TooLate);
            }
        }
        Ok(Received::NotTheirs)
    }
}
