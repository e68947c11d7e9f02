//! Ids on the wire.

use darkroom_core::JobId;

use crate::service::{jobs::JobRecord, prompt_ids::prompt_id};

/// The id that callers know a job by: its prompt id where that is a UUID, as every id here is, else its own.
pub fn job_id(job: &JobRecord) -> String {
    let named = prompt_id(job);
    match named.parse::<JobId>() {
        Ok(_) => named,
        Err(_) => job.id.to_string(),
    }
}
