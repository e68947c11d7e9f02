//! Files that callers bring: stored once under their content, found again by the name they were uploaded under.

use bytes::Bytes;
use darkroom_core::{BlobKey, EndpointName, TenantId, Timestamp};
use darkroom_store::{files::FileRef, jobs::InputBlob};
use uuid::Uuid;

use super::{Error, Service, intake::MAX_NAME_BYTES};

/// A file that graphs can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Its name.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// Media type.
    pub content_type: String,
    /// When it was uploaded.
    pub created_at: Timestamp,
}

impl Service {
    /// Keeps a file under a name that graphs of this endpoint can use from now on. Replaces an older one of that name.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a name that is none, or the stores' own.
    pub async fn upload(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        name: &str,
        bytes: Bytes,
    ) -> Result<(), Error> {
        let bad = name.is_empty()
            || name.len() > MAX_NAME_BYTES
            || name.starts_with('/')
            || name.contains('\\')
            || name.chars().any(char::is_control)
            || name
                .split('/')
                .any(|part| part.is_empty() || part == "." || part == "..");
        if bad {
            return Err(Error::Invalid(
                "the file name is empty, too long, or leaves the input directory".into(),
            ));
        }
        let hash = blake3::hash(&bytes).to_hex();
        let size = bytes.len() as u64;
        let content_type = darkroom_blobs::content_type::of(name, &bytes).to_owned();
        let key = self.put_asset(tenant, &hash, name, bytes).await?;
        self.store
            .put_ref(FileRef {
                owner: owner(tenant, endpoint),
                name: name.to_owned(),
                tenant: tenant.clone(),
                blob: key,
                size,
                content_type,
                created_at: self.clock.now(),
            })
            .await?;
        Ok(())
    }

    /// A tenant's uploads for an endpoint whose names come after `after`, by name.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn uploads(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Upload>, Error> {
        let page = self
            .store
            .refs_page(&owner(tenant, endpoint), after, limit)
            .await?;
        Ok(page
            .into_iter()
            .map(|r| Upload {
                name: r.name,
                size: r.size,
                content_type: r.content_type,
                created_at: r.created_at,
            })
            .collect())
    }

    /// Takes an upload's name away. The bytes stay as long as a job refers to them.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn remove_upload(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        name: &str,
    ) -> Result<(), Error> {
        match self.store.drop_ref(&owner(tenant, endpoint), name).await? {
            true => Ok(()),
            false => Err(Error::not_found("input file", name)),
        }
    }

    /// The blob of an uploaded file.
    pub(super) async fn uploaded(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        name: &str,
    ) -> Result<Option<InputBlob>, Error> {
        let found = self.store.file_ref(&owner(tenant, endpoint), name).await?;
        Ok(found.map(|r| InputBlob {
            key: r.blob,
            size: r.size,
            content_type: r.content_type,
        }))
    }

    /// Stores bytes that a job will refer to; the intent is noted first, so that a crash leaves nothing for ever.
    pub(super) async fn put_asset(
        &self,
        tenant: &TenantId,
        hash: &str,
        name: &str,
        bytes: Bytes,
    ) -> Result<BlobKey, Error> {
        // One key per upload, not per content: a blob shared by jobs would need a lock between a drop and a new use.
        let unguessable: Uuid = self.ids.uuid_v7();
        let file = darkroom_core::blob_key::safe_segment(name.rsplit('/').next().unwrap_or(name));
        let key = format!("inputs/{tenant}/{}/{unguessable}/{file}", &hash[..2]);
        let key: BlobKey = key.parse().map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        self.store.intend(&key).await?;
        self.blobs.put_bytes(&key, bytes).await?;
        Ok(key)
    }
}

fn owner(tenant: &TenantId, endpoint: &EndpointName) -> String {
    format!("input:{tenant}:{endpoint}")
}
