//! What differs between the two vendors, as data.

/// One vendor's way.
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// The first segment of its paths.
    pub prefix: &'static str,
    /// How its jobs are marked.
    pub dialect: &'static str,
    /// Largest body of `run`, in bytes, with `vendor_limits`.
    pub run_body_bytes: usize,
    /// Largest body of `runsync`, in bytes, with `vendor_limits`.
    pub sync_body_bytes: usize,
    /// Largest output that is put into an answer, in bytes, with `vendor_limits`.
    pub output_bytes: u64,
    /// How long a job is kept after its end, in milliseconds, with `vendor_limits`.
    pub kept_ms: u64,
    /// The same of one whose caller waited (`runsync`).
    pub sync_kept_ms: u64,
}

const MB: usize = 1_000_000;

/// `protocols/runpod.md` §2; limits of `protocols/async-endpoints.md` §2.4.
pub static RUNPOD: Family = Family {
    prefix: "/v2",
    dialect: "runpod",
    run_body_bytes: 10 * MB,
    sync_body_bytes: 20 * MB,
    output_bytes: 20 * MB as u64,
    kept_ms: 30 * 60 * 1000,
    sync_kept_ms: 60 * 1000,
};

/// `protocols/async-endpoints.md` §2; the vendor tells no limit of bodies, and the figures of its twin count
/// for outputs and for how long they are kept; it knows no `runsync`.
pub static PPIO: Family = Family {
    prefix: "/v1",
    dialect: "ppio",
    run_body_bytes: 10 * MB,
    sync_body_bytes: 20 * MB,
    output_bytes: 4 << 20,
    kept_ms: 6 * 3600 * 1000,
    sync_kept_ms: 6 * 3600 * 1000,
};

/// Both.
pub static ALL: [&Family; 2] = [&PPIO, &RUNPOD];

impl Family {
    /// How long a job is kept after its end, in milliseconds, where the vendor's own limits count.
    pub fn keeps_for_ms(&self, sync: bool) -> u64 {
        if sync { self.sync_kept_ms } else { self.kept_ms }
    }

    /// The family of a path.
    pub fn of(path: &str) -> &'static Family {
        let second = path
            .strip_prefix(RUNPOD.prefix)
            .is_some_and(|rest| rest.starts_with('/'));
        if second { &RUNPOD } else { &PPIO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_tell_the_family() {
        assert_eq!(Family::of("/v1/v2/run"), &PPIO);
        assert_eq!(Family::of("/v2/v1/run"), &RUNPOD);
    }
}
