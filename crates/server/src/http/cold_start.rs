//! `x-cold-start`: whether the job of an answer waited, or waits, for an instance to start.

/// The header, for every protocol that answers about a job.
pub fn cold_start_header(cold: bool) -> [(&'static str, &'static str); 1] {
    [("x-cold-start", if cold { "true" } else { "false" })]
}
