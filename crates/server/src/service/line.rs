//! What an operator does to an endpoint's line: hold it, let it go on, move a job, clear it. Durable when it is answered.

use darkroom_core::{EndpointName, JobId, TenantId};
use darkroom_store::jobs::Moved;
pub use darkroom_store::jobs::Place;

use super::{Error, Service};

impl Service {
    /// Keeps the endpoint's waiting jobs waiting; what runs goes on. Jobs are still accepted. `false`: it was paused before.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an endpoint that is not configured.
    pub async fn pause(&self, endpoint: &EndpointName) -> Result<bool, Error> {
        self.endpoint(endpoint)?;
        Ok(self.store.pause(endpoint).await?)
    }

    /// Lets the endpoint's jobs run again. `false`: it was not paused.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an endpoint that is not configured.
    pub async fn resume(&self, endpoint: &EndpointName) -> Result<bool, Error> {
        self.endpoint(endpoint)?;
        Ok(self.store.resume(endpoint).await?)
    }

    /// Moves a waiting job in its endpoint's line; `tenant: None` is an operator.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] when it, or the job that it should stand before, does not wait.
    pub async fn move_job(&self, tenant: Option<&TenantId>, job: JobId, place: Place) -> Result<(), Error> {
        match self.store.move_job(tenant, job, place).await? {
            None => Err(Error::not_found("job", job)),
            Some(Moved::Now) => Ok(()),
            Some(Moved::NotWaiting(state)) => Err(Error::Invalid(format!(
                "job {job} does not wait: it is {}",
                state.as_str()
            ))),
            Some(Moved::NoSuchPlace) => Err(Error::Invalid(
                "the job that it should stand before does not wait in the same line".to_owned(),
            )),
        }
    }

    /// Cancels all jobs that wait at the endpoint now, of one tenant or of all (an operator), and says how many. What runs
    /// goes on, and what is accepted meanwhile stays.
    ///
    /// # Errors
    /// When the store fails; what was cancelled until then stays so.
    pub async fn clear(&self, endpoint: &EndpointName, tenant: Option<&TenantId>) -> Result<u64, Error> {
        let until = self.clock.now();
        let mut cleared = 0;
        loop {
            let swept = self.store.clear(endpoint, tenant, until).await?;
            cleared += swept.rows;
            if !swept.more {
                return Ok(cleared);
            }
        }
    }
}
