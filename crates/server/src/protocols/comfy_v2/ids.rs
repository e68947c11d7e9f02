//! Ids on the wire. A job's is its prompt id; that of a job's output says which job and which of its outputs.

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

/// An output of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputId {
    /// Which job.
    pub job: JobId,
    /// Which of its outputs, from 0.
    pub index: usize,
}

impl OutputId {
    /// Reads one; `None` for everything else.
    pub fn parse(text: &str) -> Option<Self> {
        let (job, index) = text.split_once('.')?;
        let plain = index == "0" || !index.starts_with('0') && index.bytes().all(|b| b.is_ascii_digit());
        Some(OutputId {
            job: job.parse().ok()?,
            index: index.parse().ok().filter(|_| plain)?,
        })
    }
}

impl std::fmt::Display for OutputId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.job, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_has_one_spelling() {
        let text = "01934a5b-6c7d-7e8f-9012-3456789abcde.10";
        assert_eq!(OutputId::parse(text).unwrap().to_string(), text);
        for other in [
            "01934a5b-6c7d-7e8f-9012-3456789abcde",
            "01934a5b-6c7d-7e8f-9012-3456789abcde.",
            "01934a5b-6c7d-7e8f-9012-3456789abcde.01",
            "01934a5b-6c7d-7e8f-9012-3456789abcde.+1",
            "01934a5b-6c7d-7e8f-9012-3456789abcde.99999999999999999999999",
            "x.1",
            "",
        ] {
            assert_eq!(OutputId::parse(other), None, "{other}");
        }
    }
}
