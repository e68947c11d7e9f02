//! `[fetch]`: what the server itself may fetch (loader inputs) and whom it may tell (webhooks).

use std::time::Duration;

use super::{net::HostOrCidr, reader::Section};
use crate::service::intake::buckets::Opened;

/// `[fetch]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FetchConfig {
    /// Private hosts and networks that may be reached all the same.
    pub allow: Vec<HostOrCidr>,
    /// Hosts and networks that are never reached.
    pub deny: Vec<HostOrCidr>,
    /// No file larger than this.
    pub max_bytes: u64,
    /// No fetch longer than this.
    pub timeout: Duration,
    /// Buckets whose files workflows may name.
    pub buckets: Vec<Opened>,
    /// So much of what was fetched is kept for the next one who asks; 0: nothing.
    pub cache_bytes: u64,
}

/// `has_bucket`: blobs lie in one, so that there are credentials for others.
pub(super) fn read(mut section: Section<'_>, has_bucket: bool) -> FetchConfig {
    if section.has("buckets") && !has_bucket {
        section.problem(
            "buckets",
            "belongs to [blobs] url = \"s3://bucket/prefix\", whose credentials read them",
        );
    }
    let mut hosts = |key| {
        let expected = "a host name, an address, or a network like \"192.168.1.0/24\"";
        let parsed = section.parsed_list(key, expected, |text| text.parse().ok());
        parsed.unwrap_or_default()
    };
    let (allow, deny) = (hosts("allow"), hosts("deny"));
    let config = FetchConfig {
        allow,
        deny,
        max_bytes: section.size("max_bytes").unwrap_or(256_000_000),
        timeout: section
            .positive_duration("timeout")
            .unwrap_or(Duration::from_secs(30)),
        buckets: section
            .parsed_list("buckets", "a bucket, or a bucket and a prefix", |text| {
                text.parse().ok()
            })
            .unwrap_or_default(),
        cache_bytes: section.size("cache").unwrap_or(1_000_000_000),
    };
    if config.max_bytes == 0 {
        section.problem("max_bytes", "must be more than zero");
    }
    section.finish();
    config
}
