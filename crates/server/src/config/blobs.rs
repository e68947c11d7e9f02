//! `[blobs]`: where payloads and outputs live.

use std::{collections::BTreeMap, time::Duration};

use darkroom_blobs::{S3Credentials, S3Options};
use darkroom_core::BlobKey;
use url::Url;

use super::{
    keys::{Found, read_secret},
    reader::Section,
};

/// `[blobs]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlobsConfig {
    /// Which store.
    pub location: BlobLocation,
    /// How long a signed URL is good for.
    pub url_expiry: Duration,
}

impl BlobsConfig {
    /// The bucket, if they are in one.
    pub fn bucket(&self) -> Option<&S3Options> {
        match &self.location {
            BlobLocation::Local => None,
            BlobLocation::S3(options) => Some(options),
        }
    }
}

/// Which store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BlobLocation {
    /// Files under the data directory.
    Local,
    /// A bucket.
    S3(Box<S3Options>),
}

/// What is signed for where nobody says a region: stores like MinIO take it, and AWS's first region is called so.
const DEFAULT_REGION: &str = "us-east-1";
/// The keys that belong to a bucket.
const OF_BUCKETS: [&str; 12] = [
    "endpoint",
    "region",
    "virtual_host",
    "access_key",
    "access_key_file",
    "access_key_env",
    "secret_key",
    "secret_key_file",
    "secret_key_env",
    "session_token",
    "session_token_file",
    "session_token_env",
];

pub(super) fn read(mut section: Section<'_>, env: &BTreeMap<String, String>) -> BlobsConfig {
    let url = section.secret("url");
    let location = match url.as_ref().map(|url| url.expose()) {
        None | Some("local") => {
            for key in OF_BUCKETS {
                if section.has(key) {
                    section.problem(key, "belongs to url = \"s3://bucket/prefix\"");
                    let _ = section.value(key);
                }
            }
            BlobLocation::Local
        }
        Some(text) => match text.strip_prefix("s3://") {
            Some(rest) => read_bucket(&mut section, rest, env),
            None => {
                section.problem("url", "expected \"local\" or \"s3://bucket/prefix\"");
                BlobLocation::Local
            }
        },
    };
    let url_expiry = section
        .positive_duration("url_expiry")
        .unwrap_or(Duration::from_secs(24 * 3600));
    section.finish();
    BlobsConfig { location, url_expiry }
}

fn read_bucket(section: &mut Section<'_>, rest: &str, env: &BTreeMap<String, String>) -> BlobLocation {
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if bucket.is_empty() || !bucket.chars().all(plain) {
        section.problem("url", "expected the bucket's name behind s3://");
    }
    if !prefix.is_empty() && (prefix.len() > 100 || prefix.parse::<BlobKey>().is_err()) {
        section.problem(
            "url",
            "the prefix has at most 100 bytes and neither empty nor relative parts",
        );
    }
    let endpoint = section.parsed(
        "endpoint",
        "an address like \"https://oss-cn-hangzhou.aliyuncs.com\"",
        |text| {
            let url: Url = text.parse().ok()?;
            let whole = matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none();
            whole.then(|| text.trim_end_matches('/').to_owned())
        },
    );
    // OSS takes nothing else; for others it is what the operator says.
    let is_oss = endpoint
        .as_ref()
        .is_some_and(|endpoint| endpoint.ends_with(".aliyuncs.com"));
    let virtual_host = section.flag("virtual_host").unwrap_or(is_oss);
    let region = section.text("region").unwrap_or_else(|| {
        let of_oss = endpoint.as_ref().filter(|_| is_oss).and_then(|endpoint| {
            let host = endpoint.split("://").nth(1)?;
            Some(host.split('.').next()?.trim_end_matches("-internal").to_owned())
        });
        of_oss.unwrap_or_else(|| DEFAULT_REGION.to_owned())
    });
    BlobLocation::S3(Box::new(S3Options {
        bucket: bucket.to_owned(),
        prefix: prefix.to_owned(),
        endpoint,
        region,
        virtual_host,
        credentials: read_credentials(section, env),
    }))
}

/// From the section, else from the variables that every program of AWS reads.
fn read_credentials(section: &mut Section<'_>, env: &BTreeMap<String, String>) -> S3Credentials {
    let of_env = |name: &str| env.get(name).filter(|value| !value.is_empty()).cloned();
    let named = read_secret(section, env, ["access_key", "access_key_file", "access_key_env"]);
    let secret = read_secret(section, env, ["secret_key", "secret_key_file", "secret_key_env"]);
    let token = read_secret(
        section,
        env,
        ["session_token", "session_token_file", "session_token_env"],
    );
    let (access_key, secret_key, session_token) = match (named, secret) {
        (Found::Yes(access), Found::Yes(secret)) => {
            let token = match token {
                Found::Yes(token) => Some(token.expose().to_owned()),
                Found::No | Found::Wrong => None,
            };
            (
                Some(access.expose().to_owned()),
                Some(secret.expose().to_owned()),
                token,
            )
        }
        (Found::No, Found::No) => (
            of_env("AWS_ACCESS_KEY_ID"),
            of_env("AWS_SECRET_ACCESS_KEY"),
            of_env("AWS_SESSION_TOKEN"),
        ),
        // It was said what is wrong.
        (Found::Wrong, _) | (_, Found::Wrong) => (Some(String::new()), Some(String::new()), None),
        (Found::Yes(_), Found::No) | (Found::No, Found::Yes(_)) => (None, None, None),
    };
    match (access_key, secret_key) {
        (Some(access_key), Some(secret_key)) => S3Credentials {
            access_key,
            secret_key,
            session_token,
        },
        _ => {
            section.problem(
                "access_key",
                "is missing: give access_key and secret_key (or secret_key_file, secret_key_env), or set \
                 AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
            );
            S3Credentials {
                access_key: String::new(),
                secret_key: String::new(),
                session_token: None,
            }
        }
    }
}
