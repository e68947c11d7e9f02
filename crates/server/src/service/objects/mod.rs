//! Objects that workers keep here where no bucket of the operator's is configured: what `upload_image` and `rp_upload` of
//! their SDKs bring (`protocols/async-endpoints.md` §6, `protocols/runpod.md` §3). Every endpoint has its own; any bucket's
//! name exists.

use bytes::Bytes;
use darkroom_blobs::{BlobReader, content_type, range};
use darkroom_core::{BlobKey, EndpointName, JobId, TenantId, Timestamp, blob_key::safe_segment};
use darkroom_store::files::FileRef;
use futures::stream::BoxStream;
use uuid::Uuid;

use super::{Error, Service, uploads::Incoming};

mod holder;
mod parts;

pub use self::{
    holder::Holder,
    parts::{Joined, PartError},
};
use holder::Secrets;

/// Where the surface is, behind the server's address.
pub const PATH: &str = "/darkroom/s3";
/// What a worker is told its bucket is called, unless it names another.
pub const BUCKET: &str = "outputs";
/// The longest object, or part of one, that comes in one request (S3's own bound).
pub const MAX_OBJECT_BYTES: u64 = 5 << 30;
/// Dropped at a time, so that other writers get between.
const SWEPT_AT_ONCE: u32 = 200;

/// What the service needs for it.
pub struct Objects {
    secrets: Secrets,
    base_url: String,
}

impl Objects {
    /// `base_url`: where everybody who is told an object's address reaches the server.
    pub fn new(server_key: &[u8; 32], base_url: String) -> Self {
        Objects {
            secrets: Secrets::new(server_key),
            base_url,
        }
    }
}

/// How somebody reaches the surface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Where it is.
    pub endpoint_url: String,
    /// The access key.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
}

/// The name of an object.
#[derive(Debug, Clone, Copy)]
pub struct ObjectName<'a> {
    /// Whose workers keep it.
    pub endpoint: &'a EndpointName,
    /// In which bucket.
    pub bucket: &'a str,
    /// Under which key.
    pub key: &'a str,
}

/// An object that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its bytes.
    blob: BlobKey,
    /// Their length.
    pub size: u64,
    /// Its media type.
    pub content_type: String,
    /// When it came.
    pub created_at: Timestamp,
}

impl Object {
    /// Differs whenever the bytes may. It has the form of a multipart upload's, which is no MD5: some clients compare those.
    pub fn tag(&self) -> String {
        tag_of(&self.blob)
    }

    /// Its bytes.
    pub(super) fn blob(&self) -> &BlobKey {
        &self.blob
    }

    /// The media type that it is sent with: whatever a worker says, no page of ours loads it as its own.
    pub fn sent_type(&self) -> &str {
        content_type::as_sent(&self.content_type)
    }

    /// Whether a browser shows it, and under which name it is saved.
    pub fn disposition(&self, file_name: &str) -> String {
        content_type::disposition(&self.content_type, file_name)
    }

    /// `Content-Range` of a part of it.
    pub fn content_range(&self, part: &std::ops::Range<u64>) -> String {
        range::content_range(part, self.size)
    }
}

impl Service {
    /// How a holder reaches the surface.
    pub fn object_access(&self, holder: &Holder) -> Access {
        Access {
            endpoint_url: format!("{}{PATH}", self.objects.base_url),
            access_key: holder.access_key(),
            secret_key: self.objects.secrets.of(holder),
        }
    }

    /// Stores bytes as they come; [`Service::keep_object`] names them.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NotFound`] for an endpoint that is not configured (any more), or the stores' own.
    pub async fn receive_object(
        &self,
        name: ObjectName<'_>,
        bytes: BoxStream<'_, Result<Bytes, std::io::Error>>,
    ) -> Result<Incoming, Error> {
        self.endpoint(name.endpoint)?;
        let key = object_blob(name, self.ids.uuid_v7())?;
        self.receive_output(key, bytes, MAX_OBJECT_BYTES).await
    }

    /// Names received bytes, in place of what had the name before.
    ///
    /// # Errors
    /// The store's own; the bytes go then.
    pub async fn keep_object(
        &self,
        name: ObjectName<'_>,
        content_type: Option<&str>,
        incoming: Incoming,
    ) -> Result<Object, Error> {
        let kept = self.name_object(name, content_type, &incoming).await;
        if kept.is_err() {
            self.forget_incoming(incoming).await;
        }
        kept
    }

    async fn name_object(
        &self,
        name: ObjectName<'_>,
        content_type: Option<&str>,
        incoming: &Incoming,
    ) -> Result<Object, Error> {
        let content_type = match content_type {
            Some(given) => given.to_owned(),
            None => self.content_type_of(incoming.key(), file_of(name.key)).await,
        };
        let object = Object {
            blob: incoming.key().clone(),
            size: incoming.size(),
            content_type,
            created_at: self.clock.now(),
        };
        let reference = FileRef {
            owner: owner(name.endpoint),
            name: row_name(name),
            tenant: self.tenant_of_object(name).await?,
            blob: object.blob.clone(),
            size: object.size,
            content_type: object.content_type.clone(),
            created_at: object.created_at,
        };
        self.store.put_ref(reference).await?;
        Ok(object)
    }

    /// The SDKs begin a key with the job's id.
    async fn tenant_of_object(&self, name: ObjectName<'_>) -> Result<TenantId, Error> {
        let job = name
            .key
            .split('/')
            .find_map(|segment| segment.parse::<JobId>().ok());
        let record = match job {
            Some(job) => self.store.job(None, job).await?,
            None => None,
        };
        Ok(match record {
            Some(record) if record.endpoint == *name.endpoint => record.tenant,
            _ => TenantId::default_tenant(),
        })
    }

    /// An object, if there is one of this name.
    ///
    /// # Errors
    /// The store's own.
    pub async fn object(&self, name: ObjectName<'_>) -> Result<Option<Object>, Error> {
        let found = self
            .store
            .file_ref(&owner(name.endpoint), &row_name(name))
            .await?;
        Ok(found.map(|reference| Object {
            blob: reference.blob,
            size: reference.size,
            content_type: reference.content_type,
            created_at: reference.created_at,
        }))
    }

    /// An object's bytes, or a part of them.
    ///
    /// # Errors
    /// The blob store's own.
    pub async fn open_object(
        &self,
        object: &Object,
        range: Option<std::ops::Range<u64>>,
    ) -> Result<Option<BlobReader>, Error> {
        Ok(self.blobs.open(&object.blob, range).await?)
    }

    /// Removes an object; one that is not there is removed already.
    ///
    /// # Errors
    /// The store's own.
    pub async fn remove_object(&self, name: ObjectName<'_>) -> Result<(), Error> {
        self.store
            .drop_ref(&owner(name.endpoint), &row_name(name))
            .await?;
        Ok(())
    }

    /// Removes what a worker kept under a job's id, in any bucket.
    ///
    /// # Errors
    /// The store's own.
    pub(super) async fn remove_objects_of(&self, endpoint: &EndpointName, job: JobId) -> Result<(), Error> {
        let (owner, prefix) = (owner(endpoint), format!("{job}/"));
        loop {
            let page = self.store.refs_page(&owner, Some(&prefix), SWEPT_AT_ONCE).await?;
            let mut dropped = false;
            for reference in page.iter().filter(|one| one.name.starts_with(&prefix)) {
                self.store.drop_ref(&owner, &reference.name).await?;
                dropped = true;
            }
            if !dropped {
                return Ok(());
            }
        }
    }

    /// Forgets an endpoint's objects that came before its retention began.
    ///
    /// # Errors
    /// The store's own.
    pub async fn sweep_objects(
        &self,
        endpoint: &EndpointName,
        retention: std::time::Duration,
    ) -> Result<(), Error> {
        self.drop_older(&owner(endpoint), self.clock.now().minus(retention))
            .await
    }

    async fn drop_older(&self, owner: &str, before: Timestamp) -> Result<(), Error> {
        while self.store.drop_refs_before(owner, before, SWEPT_AT_ONCE).await? > 0 {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}

fn owner(endpoint: &EndpointName) -> String {
    format!("objects:{endpoint}")
}

/// The key first, so that objects of one job lie together; a bucket's name holds no `|`.
fn row_name(name: ObjectName<'_>) -> String {
    format!("{}|{}", name.key, name.bucket)
}

fn object_blob(name: ObjectName<'_>, id: Uuid) -> Result<BlobKey, Error> {
    let file = safe_segment(file_of(name.key));
    let key = format!("objects/{}/{id}/{file}", name.endpoint);
    key.parse().map_err(|e| Error::Internal(anyhow::Error::new(e)))
}

fn tag_of(blob: &BlobKey) -> String {
    let id = blob.as_str().rsplit('/').nth(1).unwrap_or_default();
    format!("{}-1", id.replace('-', ""))
}

fn file_of(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::StreamExt;

    use super::*;
    use crate::service::testing::Bench;

    const WORKERS: &str = "[endpoints.w]\nkind = \"worker\"\n";

    async fn received(bench: &Bench, name: ObjectName<'_>, bytes: &'static [u8]) -> Incoming {
        let stream = futures::stream::iter([Ok(Bytes::from_static(bytes))]).boxed();
        bench.service.receive_object(name, stream).await.unwrap()
    }

    #[tokio::test]
    async fn objects_go_with_their_endpoints_retention_and_what_replaced_them_stays() {
        let bench = Bench::configured(WORKERS);
        let service = &bench.service;
        let endpoint = "w".parse().unwrap();
        let [old, new] = ["old", "new"].map(|key| ObjectName {
            endpoint: &endpoint,
            bucket: "b",
            key,
        });
        for name in [old, new] {
            let incoming = received(&bench, name, b"first").await;
            service.keep_object(name, None, incoming).await.unwrap();
        }
        bench.clock.advance(Duration::from_secs(3600));
        let incoming = received(&bench, new, b"second").await;
        service
            .keep_object(new, Some("text/plain"), incoming)
            .await
            .unwrap();
        service
            .sweep_objects(&endpoint, Duration::from_secs(60))
            .await
            .unwrap();
        assert_eq!(service.object(old).await.unwrap(), None);
        let kept = service.object(new).await.unwrap().unwrap();
        assert_eq!((kept.size, kept.content_type.as_str()), (6, "text/plain"));
        let trash = service.store.trash_due(Duration::ZERO, 9).await.unwrap();
        assert_eq!(trash.len(), 2, "what was swept, and what was replaced");
    }

    #[tokio::test]
    async fn what_was_kept_for_a_job_goes_with_it_in_every_bucket() {
        let bench = Bench::configured(WORKERS);
        let service = &bench.service;
        let endpoint: EndpointName = "w".parse().unwrap();
        let job = JobId::from_uuid(bench.service.ids.uuid_v7());
        let keys = [
            format!("{job}/a.png"),
            format!("{job}/a/b.png"),
            "other.png".to_owned(),
        ];
        for (key, bucket) in keys.iter().flat_map(|key| [(key, "one"), (key, "two")]) {
            let name = ObjectName {
                endpoint: &endpoint,
                bucket,
                key,
            };
            let incoming = received(&bench, name, b"x").await;
            service.keep_object(name, None, incoming).await.unwrap();
        }
        service.remove_objects_of(&endpoint, job).await.unwrap();
        let left = service.store.refs_of("objects:w").await.unwrap();
        let left: Vec<&str> = left.iter().map(|reference| reference.name.as_str()).collect();
        assert_eq!(left, ["other.png|one", "other.png|two"]);
    }

    #[tokio::test]
    async fn parts_that_nobody_joined_go_after_two_days() {
        let bench = Bench::configured(WORKERS);
        let service = &bench.service;
        let endpoint = "w".parse().unwrap();
        let name = ObjectName {
            endpoint: &endpoint,
            bucket: "b",
            key: "k",
        };
        let upload = service.begin_object(name, None);
        let part = received(&bench, name, b"part").await;
        let tag = service.keep_part(name, &upload, 1, part).await.unwrap();
        service.sweep_parts().await.unwrap();
        bench.clock.advance(Duration::from_secs(49 * 3600));
        service.sweep_parts().await.unwrap();
        let late = service.join_parts(name, &upload, &[(1, tag)]).await;
        assert!(matches!(late, Err(PartError::NoUpload)), "{late:?}");
        assert_eq!(service.store.trash_due(Duration::ZERO, 9).await.unwrap().len(), 1);
        // A part of an upload that is none leaves nothing.
        let stray = received(&bench, name, b"stray").await;
        assert!(service.keep_part(name, "0.0.0", 1, stray).await.is_err());
        assert_eq!(bench.blob_keys().await.len(), 1);
    }

    #[tokio::test]
    async fn an_endpoint_that_is_gone_takes_nothing_more() {
        let bench = Bench::configured(WORKERS);
        let endpoint = "w".parse().unwrap();
        bench.remove_endpoint("w");
        let name = ObjectName {
            endpoint: &endpoint,
            bucket: "b",
            key: "k",
        };
        let stream = futures::stream::iter([Ok(Bytes::from_static(b"x"))]).boxed();
        let refused = bench.service.receive_object(name, stream).await;
        assert!(matches!(refused, Err(Error::NotFound { .. })), "{refused:?}");
    }
}
