//! What a submit of a graph and a call of a published workflow both say of their job.

use super::{call::Call, error::ApiError};
use crate::service::{
    Error, Service,
    jobs::{ExternalId, JobMeta, OnDuplicate},
};

/// The protocol's name in a job's facts.
const DIALECT: &str = "darkroom";
/// Longest reference, in bytes.
const MAX_REFERENCE_BYTES: usize = 200;

/// As the caller says it.
pub struct Said {
    /// Higher runs first.
    pub priority: i32,
    /// The client's own id: a second submit with it returns the first job.
    pub reference: Option<String>,
    /// Where to tell of the job's end.
    pub webhook: Option<String>,
}

/// As the service wants it.
pub struct JobFacts {
    /// Within what callers may ask for.
    pub priority: i32,
    /// Under which the job is found again.
    pub external_id: Option<ExternalId>,
    /// What travels with the job.
    pub meta: JobMeta,
}

impl Call {
    /// Checks what is said.
    ///
    /// # Errors
    /// For a reference or an address that is none.
    pub fn job_facts(&self, service: &Service, said: Said, base_url: &str) -> Result<JobFacts, ApiError> {
        let fits = |reference: &String| (1..=MAX_REFERENCE_BYTES).contains(&reference.len());
        if !said.reference.as_ref().is_none_or(fits) {
            let text = format!("reference must be 1 to {MAX_REFERENCE_BYTES} bytes");
            return Err(self.fail(Error::Invalid(text)));
        }
        let mut meta = JobMeta {
            dialect: DIALECT.to_owned(),
            request_id: self.caller.request_id.to_string(),
            ..JobMeta::default()
        };
        if let Some(url) = &said.webhook {
            service
                .set_webhook(&mut meta, url, base_url)
                .map_err(|e| self.fail(e))?;
        }
        Ok(JobFacts {
            priority: said.priority.clamp(-100, 100),
            external_id: said.reference.map(|id| ExternalId {
                dialect: DIALECT.to_owned(),
                id,
                on_duplicate: OnDuplicate::Existing,
            }),
            meta,
        })
    }
}
