//! `[blobs]`: where payloads and outputs live.

use std::time::Duration;

use super::reader::Section;

/// `[blobs]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobsConfig {
    /// Which store.
    pub location: BlobLocation,
    /// How long a signed URL is good for.
    pub url_expiry: Duration,
}

/// Which store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobLocation {
    /// Files under the data directory.
    Local,
}

pub(super) fn read(mut section: Section<'_>) -> BlobsConfig {
    if let Some(url) = section.secret("url")
        && url.expose() != "local"
    {
        let message = match url.expose().split_once("://") {
            Some(("s3", _)) => "object stores are not supported by this version; use \"local\"",
            _ => "expected \"local\"",
        };
        section.problem("url", message);
    }
    for key in ["endpoint", "region", "access_key", "secret_key", "virtual_host"] {
        section.not_yet(key);
    }
    let url_expiry = section
        .positive_duration("url_expiry")
        .unwrap_or(Duration::from_secs(24 * 3600));
    section.finish();
    BlobsConfig {
        location: BlobLocation::Local,
        url_expiry,
    }
}
