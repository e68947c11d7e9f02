//! Files that callers bring: stored under keys of their own, found again by the name they were uploaded under.

use bytes::Bytes;
use darkroom_core::{BlobKey, EndpointName, TenantId, Timestamp};
use darkroom_store::{assets::IfTaken, files::FileRef, jobs::InputBlob};
use futures::stream::BoxStream;
use uuid::Uuid;

use super::{Error, Service, folders::Folder, intake::MAX_NAME_BYTES};

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
        bytes: BoxStream<'_, Result<Bytes, std::io::Error>>,
        max_bytes: u64,
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
        let incoming = self.receive(tenant, name, bytes, max_bytes).await?;
        let reference = FileRef {
            owner: owner(tenant, endpoint),
            name: name.to_owned(),
            tenant: tenant.clone(),
            blob: incoming.key().clone(),
            size: incoming.size(),
            content_type: self.content_type_of(incoming.key(), name).await,
            created_at: self.clock.now(),
        };
        self.keep_incoming(reference, incoming, IfTaken::Replace).await?;
        self.pickers.changed();
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
            true => {
                self.pickers.changed();
                Ok(())
            }
            false => Err(Error::not_found("input file", name)),
        }
    }

    /// The blob of an uploaded file, and when it was uploaded.
    pub(super) async fn uploaded(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        name: &str,
    ) -> Result<Option<(InputBlob, Timestamp)>, Error> {
        let found = self.store.file_ref(&owner(tenant, endpoint), name).await?;
        Ok(found.map(|r| {
            let blob = InputBlob {
                key: r.blob,
                size: r.size,
                content_type: r.content_type,
            };
            (blob, r.created_at)
        }))
    }

    /// A key for a file of a caller: one per upload. Where its bytes turn out to be known, the store refers to the blob that
    /// holds them, in the step that would have named this one.
    pub(super) fn asset_key(&self, tenant: &TenantId, name: &str) -> Result<BlobKey, Error> {
        let unguessable: Uuid = self.ids.uuid_v7();
        let file = darkroom_core::blob_key::safe_segment(name.rsplit('/').next().unwrap_or(name));
        // The last two digits are random: no folder gets all of them.
        let spread = &unguessable.simple().to_string()[30..];
        let key = format!("inputs/{tenant}/{spread}/{unguessable}/{file}");
        key.parse().map_err(|e| Error::Internal(anyhow::Error::new(e)))
    }

    /// Stores bytes of a caller that a row will refer to; the intent is noted first, so that a crash leaves nothing for ever.
    pub(super) async fn put_intended(&self, key: &BlobKey, bytes: Bytes) -> Result<(), Error> {
        self.store.intend_input(key).await?;
        self.blobs.put_bytes(key, bytes).await?;
        Ok(())
    }

    /// Removes blobs that were written for something that was refused then. One that a row refers to all the same stays;
    /// one that cannot be removed now is found by its intent, a day later.
    pub(super) async fn discard(&self, written: Vec<BlobKey>) {
        for key in written {
            if let Err(error) = self.withdraw(&key).await {
                tracing::warn!(error = ?error, "a blob of a refused request is left to the sweeper");
            }
        }
    }

    async fn withdraw(&self, key: &BlobKey) -> Result<(), Error> {
        if self.store.withdraw(key).await? {
            self.blobs.delete(key).await?;
        }
        Ok(())
    }
}

fn owner(tenant: &TenantId, endpoint: &EndpointName) -> String {
    Folder::Input.owner(tenant, endpoint)
}
