//! Blobs as objects of one bucket, under a prefix: AWS S3, Alibaba OSS (by its S3-compatible addresses) and stores like them.
//!
//! Requests are signed with Signature Version 4 over an unsigned payload and sent whole, never in signed chunks, which OSS
//! does not take. They are tried again with growing pauses; what still fails is [`Error::Unavailable`], so that whoever has
//! something to store keeps it and comes back.

use std::{io, ops::Range, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::{BlobKey, Timestamp};
use futures::{StreamExt, TryStreamExt, stream::BoxStream};
use object_store::{
    BackoffConfig, ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path as ObjectPath,
    signer::Signer,
};

mod upload;

#[cfg(test)]
mod tests;

use crate::{BlobMeta, BlobReader, BlobStat, Blobs, Error, Listed};

/// How a bucket is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Options {
    /// Its name.
    pub bucket: String,
    /// What every key begins with, without slashes around it; empty: nothing.
    pub prefix: String,
    /// Where the service is (`https://oss-cn-hangzhou.aliyuncs.com`), without the bucket; `None`: AWS's own of the region.
    pub endpoint: Option<String>,
    /// The region that requests are signed for.
    pub region: String,
    /// The bucket stands in the host's name and not in the path; OSS takes nothing else.
    pub virtual_host: bool,
    /// Who we are.
    pub credentials: S3Credentials,
}

/// Who we are to a bucket. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// The access key.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// Beside a temporary key.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for S3Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Options")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .field("region", &self.region)
            .field("virtual_host", &self.virtual_host)
            .finish_non_exhaustive()
    }
}

/// What a presigned address allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presigned {
    /// To read the blob.
    Get,
    /// To write it.
    Put,
}

/// A connection is given up after this.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// So is an answer of which nothing comes for so long.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// No request is begun again later than this after its first try: whoever waits for it holds a file, a connection, or a slot.
const RETRY_FOR: Duration = Duration::from_secs(20);
const MAX_RETRIES: usize = 4;
/// When to come back to a bucket that is away.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// The longest piece of a [`BlobReader`].
const PIECE_BYTES: usize = 64 * 1024;

/// The blob store of one bucket. Cheap to clone.
#[derive(Clone)]
pub struct S3Blobs {
    store: Arc<AmazonS3>,
    prefix: String,
}

impl S3Blobs {
    /// Nothing is asked of the bucket yet.
    ///
    /// # Errors
    /// [`Error::Bucket`] when the options make no sense.
    pub fn new(options: &S3Options) -> Result<Self, Error> {
        let retries = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: MAX_RETRIES,
            retry_timeout: RETRY_FOR,
        };
        S3Blobs::with_client(options, retries, client())
    }

    fn with_client(options: &S3Options, retries: RetryConfig, client: ClientOptions) -> Result<Self, Error> {
        let plain = options
            .endpoint
            .as_ref()
            .is_some_and(|endpoint| endpoint.starts_with("http://"));
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&options.bucket)
            .with_region(&options.region)
            .with_access_key_id(&options.credentials.access_key)
            .with_secret_access_key(&options.credentials.secret_key)
            .with_virtual_hosted_style_request(options.virtual_host)
            .with_unsigned_payload(true)
            .with_disable_tagging(true)
            .with_disable_bulk_delete(true)
            .with_client_options(client.with_allow_http(plain))
            .with_retry(retries);
        if let Some(token) = &options.credentials.session_token {
            builder = builder.with_token(token);
        }
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(address(endpoint, options));
        }
        let store = builder.build().map_err(|source| Error::Bucket {
            bucket: options.bucket.clone(),
            source: Box::new(source),
        })?;
        Ok(S3Blobs {
            store: Arc::new(store),
            prefix: options.prefix.clone(),
        })
    }

    /// An address by which anybody may read or write a blob, until `expires_in` (at most 7 days) is over.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it cannot be signed.
    pub async fn presign(
        &self,
        what: Presigned,
        key: &BlobKey,
        expires_in: Duration,
    ) -> Result<String, Error> {
        let method = match what {
            Presigned::Get => http::Method::GET,
            Presigned::Put => http::Method::PUT,
        };
        let url = self.store.signed_url(method, &self.path(key), expires_in).await;
        url.map(String::from).map_err(|e| unavailable(key, e))
    }

    fn path(&self, key: &BlobKey) -> ObjectPath {
        let text = match self.prefix.as_str() {
            "" => key.as_str().to_owned(),
            prefix => format!("{prefix}/{key}"),
        };
        ObjectPath::parse(text)
            .expect("a blob key has neither empty nor relative segments nor control characters")
    }

    fn key_of(&self, path: &ObjectPath) -> Option<BlobKey> {
        let text = match self.prefix.as_str() {
            "" => path.as_ref(),
            prefix => path.as_ref().strip_prefix(prefix)?.strip_prefix('/')?,
        };
        text.parse().ok()
    }
}

fn client() -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(READ_TIMEOUT)
}

/// With a bucket in the host's name, the library wants it there already.
fn address(endpoint: &str, options: &S3Options) -> String {
    let endpoint = endpoint.trim_end_matches('/');
    match endpoint.split_once("://") {
        Some((scheme, host)) if options.virtual_host => format!("{scheme}://{}.{host}", options.bucket),
        _ => endpoint.to_owned(),
    }
}

#[async_trait]
impl Blobs for S3Blobs {
    async fn put_bytes(&self, key: &BlobKey, bytes: Bytes) -> Result<BlobMeta, Error> {
        let length = bytes.len() as u64;
        let body = futures::stream::once(std::future::ready(Ok(bytes))).boxed();
        upload::stream(&*self.store, self.path(key), key, body, length).await
    }

    async fn put_file(&self, key: &BlobKey, path: &Path) -> Result<BlobMeta, Error> {
        upload::file(&*self.store, self.path(key), key, path).await
    }

    async fn put_stream(
        &self,
        key: &BlobKey,
        body: BoxStream<'_, Result<Bytes, io::Error>>,
        max_bytes: u64,
    ) -> Result<BlobMeta, Error> {
        upload::stream(&*self.store, self.path(key), key, body, max_bytes).await
    }

    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>, Error> {
        if let Some(range) = &range
            && range.is_empty()
        {
            return self.open_nothing(key, range.start).await;
        }
        let options = GetOptions {
            range: range.clone().map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let result = match self.store.get_opts(&self.path(key), options).await {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            // A range behind the end is an error to S3 and nothing to us.
            Err(error) => {
                return match (range, self.stat(key).await) {
                    (Some(range), Ok(Some(stat))) if range.start >= stat.size => {
                        self.open_nothing(key, stat.size).await
                    }
                    (Some(_), Ok(None)) => Ok(None),
                    _ => Err(unavailable(key, error)),
                };
            }
        };
        let (size, modified, range) = (result.meta.size, modified(&result.meta), result.range.clone());
        let stream = result
            .into_stream()
            .map_err(io::Error::from)
            .map_ok(|bytes| futures::stream::iter(pieces(bytes)))
            .try_flatten()
            .boxed();
        Ok(Some(BlobReader {
            size,
            modified,
            range,
            stream,
        }))
    }

    async fn read(&self, key: &BlobKey, max_bytes: u64) -> Result<Option<Bytes>, Error> {
        let Some(reader) = self.open(key, None).await? else {
            return Ok(None);
        };
        if reader.size > max_bytes {
            return Err(Error::TooLarge {
                key: key.clone(),
                max_bytes,
            });
        }
        let pieces: Vec<Bytes> = reader
            .stream
            .try_collect()
            .await
            .map_err(|source| Error::Unavailable {
                retry_after: RETRY_AFTER,
                source: Box::new(source),
            })?;
        Ok(Some(match <[Bytes; 1]>::try_from(pieces) {
            Ok([whole]) => whole,
            Err(pieces) => pieces.concat().into(),
        }))
    }

    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobStat>, Error> {
        match self.store.head(&self.path(key)).await {
            Ok(meta) => Ok(Some(BlobStat {
                size: meta.size,
                modified: modified(&meta),
            })),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(unavailable(key, error)),
        }
    }

    async fn delete(&self, key: &BlobKey) -> Result<(), Error> {
        match self.store.delete(&self.path(key)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(unavailable(key, error)),
        }
    }

    async fn list(&self, after: Option<&BlobKey>, limit: usize) -> Result<Vec<Listed>, Error> {
        let prefix = (!self.prefix.is_empty())
            .then(|| ObjectPath::parse(&self.prefix).expect("a configured prefix was checked"));
        let objects = match after {
            Some(after) => self.store.list_with_offset(prefix.as_ref(), &self.path(after)),
            None => self.store.list(prefix.as_ref()),
        };
        // Whatever else lies in the bucket is none of ours.
        let ours = objects.try_filter_map(|meta| {
            let listed = self.key_of(&meta.location).map(|key| Listed {
                key,
                size: meta.size,
                modified: modified(&meta),
            });
            std::future::ready(Ok(listed))
        });
        let page: Result<Vec<Listed>, object_store::Error> = ours.take(limit).try_collect().await;
        page.map_err(|source| Error::Unavailable {
            retry_after: RETRY_AFTER,
            source: Box::new(source),
        })
    }
}

impl S3Blobs {
    /// A part without bytes, which cannot be asked for.
    async fn open_nothing(&self, key: &BlobKey, at: u64) -> Result<Option<BlobReader>, Error> {
        Ok(self.stat(key).await?.map(|stat| BlobReader {
            size: stat.size,
            modified: stat.modified,
            range: at.min(stat.size)..at.min(stat.size),
            stream: futures::stream::empty().boxed(),
        }))
    }
}

fn pieces(bytes: Bytes) -> impl Iterator<Item = Result<Bytes, io::Error>> {
    let count = bytes.len().div_ceil(PIECE_BYTES);
    (0..count).map(move |n| {
        let end = bytes.len().min((n + 1) * PIECE_BYTES);
        Ok(bytes.slice(n * PIECE_BYTES..end))
    })
}

fn modified(meta: &ObjectMeta) -> Timestamp {
    Timestamp::from_millis(meta.last_modified.timestamp_millis())
}

/// Whatever a bucket refuses may be put right: credentials, the bucket itself, the network. So all of it is tried again.
fn unavailable(key: &BlobKey, error: object_store::Error) -> Error {
    tracing::warn!(blob.key = %key, error = %said(&error), "the bucket did not do what was asked");
    Error::Unavailable {
        retry_after: RETRY_AFTER,
        source: Box::new(error),
    }
}

/// Its words without the addresses in them, which may be signed.
fn said(error: &object_store::Error) -> String {
    let text = error.to_string();
    text.split("?X-Amz").next().unwrap_or_default().to_owned()
}
