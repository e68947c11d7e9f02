//! Finding assets again, and letting them go.

use bytes::Bytes;
use darkroom_core::{
    AssetId, AssetRef, BlobKey, ContentHash, Digest, EndpointName, JobId, TenantId, Timestamp,
    output::OutputBody,
};

use super::{Asset, AssetBody};
use crate::service::{Error, Service};

/// Removed at a time, so that other writers get between.
const SWEPT_AT_ONCE: u32 = 200;

impl Service {
    /// A tenant's asset: one that it brought, or what one of its finished jobs made.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn asset(&self, tenant: &TenantId, id: AssetRef) -> Result<Option<Asset>, Error> {
        match id {
            AssetRef::Brought(id) => Ok(self.store.asset(tenant, id).await?.map(Asset::from)),
            AssetRef::Made { job, position } => self.made_asset(tenant, None, job, position).await,
        }
    }

    /// The same for a job of an endpoint, which has nothing that jobs of other endpoints made.
    pub(super) async fn asset_for(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        id: AssetRef,
    ) -> Result<Option<Asset>, Error> {
        match id {
            AssetRef::Brought(_) => self.asset(tenant, id).await,
            AssetRef::Made { job, position } => self.made_asset(tenant, Some(endpoint), job, position).await,
        }
    }

    async fn made_asset(
        &self,
        tenant: &TenantId,
        endpoint: Option<&EndpointName>,
        job: JobId,
        position: u32,
    ) -> Result<Option<Asset>, Error> {
        let record = match self.job(Some(tenant), job).await {
            Ok(record) => record,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        if endpoint.is_some_and(|endpoint| record.endpoint != *endpoint) {
            return Ok(None);
        }
        let place = usize::try_from(position).unwrap_or(usize::MAX);
        let Some(output) = record.outputs.get(place) else {
            return Ok(None);
        };
        let name = output.raw.get("filename").and_then(|name| name.as_str());
        let common = Asset {
            id: AssetRef::Made { job, position },
            blake3: None,
            sha256: None,
            size: 0,
            content_type: "text/plain; charset=utf-8".to_owned(),
            file_path: name.map(str::to_owned),
            created_at: record.finished_at.unwrap_or(record.created_at),
            expires_at: record.delete_at,
            job: Some(job),
            body: AssetBody::Text(Bytes::new()),
        };
        Ok(Some(match &output.body {
            OutputBody::File {
                key,
                size,
                content_type,
                blake3,
            } => Asset {
                blake3: Digest::from_hex(blake3),
                size: *size,
                content_type: content_type.clone(),
                file_path: common.file_path.or_else(|| Some(key.file_name().to_owned())),
                body: AssetBody::Blob(key.clone()),
                ..common
            },
            OutputBody::Text { text } => Asset {
                blake3: Some(Digest::new(*blake3::hash(text.as_bytes()).as_bytes())),
                size: text.len() as u64,
                file_path: Some(format!("text_{position}.txt")),
                body: AssetBody::Text(Bytes::copy_from_slice(text.as_bytes())),
                ..common
            },
        }))
    }

    /// Whether a tenant has these bytes here. If so, [`Service::mint_asset`] finds them for an hour at least, whatever is
    /// deleted meanwhile: so long stays in the trash what is dropped.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn has_bytes(&self, tenant: &TenantId, hash: ContentHash) -> Result<bool, Error> {
        if tenant.is_anonymous() {
            return Ok(false);
        }
        Ok(self.store.content(tenant, hash).await?.is_some())
    }

    /// What a tenant brought, newest first, from behind `before` on. Callers without a key have no list.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn assets(
        &self,
        tenant: &TenantId,
        before: Option<AssetId>,
        limit: u32,
    ) -> Result<Vec<Asset>, Error> {
        if tenant.is_anonymous() {
            return Ok(Vec::new());
        }
        let page = self.store.assets(tenant, before, limit).await?;
        Ok(page.into_iter().map(Asset::from).collect())
    }

    /// Lets an asset last until then at least (`None`: until it is deleted).
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn extend_asset(
        &self,
        tenant: &TenantId,
        id: AssetId,
        until: Option<Timestamp>,
    ) -> Result<Asset, Error> {
        let extended = self.store.extend_asset(tenant, id, until).await?;
        extended
            .map(Asset::from)
            .ok_or_else(|| Error::not_found("asset", id))
    }

    /// Forgets an asset. Its bytes stay as long as another one, an upload or a job has them.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] for what a job made, which goes with its job.
    pub async fn delete_asset(&self, tenant: &TenantId, id: AssetRef) -> Result<(), Error> {
        let AssetRef::Brought(brought) = id else {
            return match self.asset(tenant, id).await? {
                Some(_) => Err(Error::Invalid(format!(
                    "asset {id} was made by a job, and goes with it"
                ))),
                None => Err(Error::not_found("asset", id)),
            };
        };
        match self.store.remove_asset(tenant, brought).await? {
            true => Ok(()),
            false => Err(Error::not_found("asset", id)),
        }
    }

    /// Forgets assets whose time is over.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn sweep_assets(&self) -> Result<(), Error> {
        while self.store.sweep_assets(SWEPT_AT_ONCE).await? == u64::from(SWEPT_AT_ONCE) {
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// The newest asset that a graph's name for a file means, and when it was brought.
    pub(in crate::service) async fn asset_named(
        &self,
        tenant: &TenantId,
        name: &str,
    ) -> Result<Option<(Asset, Timestamp)>, Error> {
        if tenant.is_anonymous() {
            return Ok(None);
        }
        let mut newest = None;
        for path in super::path::brought_as(name) {
            if let Some(found) = self.store.newest_asset(tenant, &path).await? {
                let brought_at = found.brought_at;
                if newest.as_ref().is_none_or(|(_, at)| *at < brought_at) {
                    newest = Some((Asset::from(found), brought_at));
                }
            }
        }
        Ok(newest)
    }
}

impl Asset {
    /// The blob that holds it; `None` for texts.
    pub fn blob(&self) -> Option<&BlobKey> {
        match &self.body {
            AssetBody::Blob(key) => Some(key),
            AssetBody::Text(_) => None,
        }
    }
}
