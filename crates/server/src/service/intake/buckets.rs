//! Files in buckets, by `s3://` or `oss://`: read with the server's own credentials, so only where the operator opened them, and
//! never what the server keeps there itself.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use bytes::Bytes;
use darkroom_blobs::{Blobs, S3Blobs, S3Options};
use darkroom_core::{BlobKey, TenantId};
use tokio::time::Instant;

use super::Fetching;
use crate::{
    memory::Held,
    service::{Error, Service},
};

/// In an opened prefix, for the name of the caller's tenant.
pub const TENANT: &str = "{tenant}";

/// The buckets that workflows may name files of.
#[derive(Default)]
pub struct Buckets {
    /// Where the server keeps its own, whose credentials count for all; `None`: in no bucket.
    own: Option<S3Options>,
    open: Vec<Opened>,
    clients: Mutex<HashMap<String, S3Blobs>>,
}

/// A bucket, or what lies below a prefix of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// Its name.
    pub bucket: String,
    /// Without slashes around it; empty: all of it. May hold [`TENANT`].
    pub prefix: String,
}

impl std::str::FromStr for Opened {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (bucket, prefix) = text.split_once('/').unwrap_or((text, ""));
        let prefix = prefix.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let good = !bucket.is_empty()
            && bucket.chars().all(plain)
            && (prefix.is_empty() || prefix.parse::<BlobKey>().is_ok());
        good.then(|| Opened {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
        .ok_or(())
    }
}

/// A file in a bucket.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Object {
    bucket: String,
    key: BlobKey,
}

impl Buckets {
    /// `own`: where the server's own blobs are, and with which credentials.
    pub fn new(own: Option<S3Options>, open: Vec<Opened>) -> Self {
        Buckets {
            own,
            open,
            clients: Mutex::default(),
        }
    }

    /// The file that a text names, if this tenant may have it.
    pub(super) fn object(&self, tenant: &TenantId, text: &str) -> Option<Object> {
        let (scheme, rest) = text.split_once("://")?;
        let (bucket, key) = rest.split_once('/')?;
        let is_bucket = scheme.eq_ignore_ascii_case("s3") || scheme.eq_ignore_ascii_case("oss");
        let key: BlobKey = key.parse().ok().filter(|_| is_bucket)?;
        let below = |prefix: &str| {
            let rest = key.as_str().strip_prefix(prefix);
            prefix.is_empty() || rest.is_some_and(|rest| rest.starts_with('/'))
        };
        let own = self.own.as_ref()?;
        if own.bucket == bucket && below(&own.prefix) {
            return None;
        }
        let opened = self.open.iter().filter(|open| open.bucket == bucket);
        let mut prefixes = opened.map(|open| open.prefix.replace(TENANT, tenant.as_str()));
        prefixes.any(|prefix| below(&prefix)).then(|| Object {
            bucket: bucket.to_owned(),
            key,
        })
    }

    fn client(&self, bucket: &str) -> Result<S3Blobs, Error> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(bucket) {
            return Ok(client.clone());
        }
        let own = self.own.as_ref();
        let options = own.map(|own| S3Options {
            bucket: bucket.to_owned(),
            prefix: String::new(),
            ..own.clone()
        });
        let options = options.ok_or_else(|| Error::Internal(anyhow::anyhow!("there is no bucket")))?;
        let client = S3Blobs::new(&options)?;
        clients.insert(bucket.to_owned(), client.clone());
        Ok(client)
    }
}

impl Service {
    /// The bytes of a file in a bucket, and the memory for them; within the bounds of its graph.
    pub(super) async fn read_object(
        &self,
        object: &Object,
        within: &mut Fetching,
    ) -> Result<(Bytes, Held), Error> {
        let client = self.buckets.client(&object.bucket)?;
        let missing = || Error::input_unavailable(format!("there is no {} in {}", object.key, object.bucket));
        let (limit, left, timeout) = (
            self.fetcher.max_bytes(),
            within.bytes_left(),
            self.fetcher.timeout(),
        );
        let until = within.deadline().min(Instant::now() + timeout);
        let read = async {
            let stat = client.stat(&object.key).await?.ok_or_else(missing)?;
            if stat.size > limit {
                let why = format!("{} is larger than {limit} bytes", object.key);
                return Err(Error::input_unavailable(why));
            }
            if stat.size > left {
                let why = format!("the files of one request together are larger than {limit} bytes");
                return Err(Error::input_unavailable(why));
            }
            let held = self.memory.read(stat.size).await?;
            let bytes = client.read(&object.key, stat.size).await?.ok_or_else(missing)?;
            Ok((bytes, held))
        };
        let late = |_| {
            let text = format!("{} did not come in time (each file has {timeout:?})", object.key);
            Error::input_unavailable(text)
        };
        let (bytes, held) = tokio::time::timeout_at(until, read).await.map_err(late)??;
        within.took(bytes.len() as u64);
        Ok((bytes, held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(own_prefix: &str, open: &[&str]) -> Buckets {
        let own = S3Options {
            bucket: "own".to_owned(),
            prefix: own_prefix.to_owned(),
            endpoint: None,
            region: "us-east-1".to_owned(),
            virtual_host: false,
            credentials: darkroom_blobs::S3Credentials {
                access_key: "a".to_owned(),
                secret_key: "s".to_owned(),
                session_token: None,
            },
        };
        Buckets::new(Some(own), open.iter().map(|one| one.parse().unwrap()).collect())
    }

    #[test]
    fn only_what_was_opened_is_read_and_never_what_is_kept() {
        let may = |buckets: &Buckets, text: &str| buckets.object(&"alice".parse().unwrap(), text).is_some();
        let some = buckets("keep", &["own", "other/in", "mine/{tenant}/in"]);
        for good in [
            "s3://own/a.png",
            "OSS://own/a.png",
            "s3://own/keepsake/a.png",
            "s3://other/in/图 1.png",
            "oss://mine/alice/in/a.png",
        ] {
            assert!(may(&some, good), "{good}");
        }
        for bad in [
            "s3://own/keep/outputs/a.png",
            "s3://own/x/../keep/a.png",
            "s3://own//keep/a.png",
            "s3://own/",
            "s3://own",
            "s3://other/a.png",
            "s3://other/inside/a.png",
            "s3://mine/bob/in/a.png",
            "s3://mine/{tenant}/in/a.png",
            "s3://unknown/a.png",
            "gs://own/a.png",
        ] {
            assert!(!may(&some, bad), "{bad}");
        }
        // Where all of a bucket is the server's, nothing of it is anybody else's.
        assert!(!may(&buckets("", &["own"]), "s3://own/a.png"));
        assert!(!may(&Buckets::default(), "s3://own/a.png"));
        for bad in ["", "/x", "a b", "own/../x", "own//x"] {
            assert!(bad.parse::<Opened>().is_err(), "{bad}");
        }
    }
}
