//! Prompt ids: the name that a job has in ComfyUI's own words. Every protocol that speaks of ComfyUI's prompts knows a job
//! by the same one: the caller's own name where it gave one, else the job's id.

use darkroom_core::{EndpointName, JobId, TenantId};

use super::{Error, Service, jobs::JobRecord};

/// The external-id namespace of names that callers gave.
pub const DIALECT: &str = "prompt_id";

/// The id that callers know a job by.
pub fn prompt_id(job: &JobRecord) -> String {
    name_of(job.id, job.external_id.as_ref())
}

/// The same of a job of which only the names are known.
pub fn name_of(job: JobId, external_id: Option<&(String, String)>) -> String {
    match external_id {
        Some((dialect, id)) if dialect == DIALECT => id.clone(),
        _ => job.to_string(),
    }
}

impl Service {
    /// The tenant's job of the endpoint with that prompt id; the newest, where a name was used again.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn find_prompt(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        prompt_id: &str,
    ) -> Result<Option<JobRecord>, Error> {
        if let Some(named) = self.job_named(tenant, endpoint, DIALECT, prompt_id).await? {
            return Ok(Some(named));
        }
        let Ok(id) = prompt_id.parse::<JobId>() else {
            return Ok(None);
        };
        match self.job(Some(tenant), id).await {
            Ok(job) => Ok(Some(job).filter(|job| job.endpoint == *endpoint)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
