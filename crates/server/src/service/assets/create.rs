//! Making assets: of bytes that came, and of bytes that are here.

use std::time::Duration;

use darkroom_core::{AssetId, ContentHash, TenantId};
use darkroom_store::assets::{Added, NewAsset};
use serde::{Deserialize, Serialize};

use super::{Asset, AssetError, path};
use crate::service::{Error, Service, uploads::Incoming};

/// What a caller says of a file.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AssetTerms {
    /// Its path, if it is to have one.
    pub file_path: Option<String>,
    /// Its media type; `None`: as its bytes and name tell.
    pub content_type: Option<String>,
    /// How long it is wanted; `None`: until it is deleted.
    pub expires_in: Option<Duration>,
    /// What its bytes are; others are refused.
    #[serde(with = "as_text")]
    pub expected: Option<ContentHash>,
}

/// A hash as protocols write it.
mod as_text {
    use darkroom_core::ContentHash;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(hash: &Option<ContentHash>, to: S) -> Result<S::Ok, S::Error> {
        hash.as_ref().map(ToString::to_string).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ContentHash>, D::Error> {
        let text: Option<String> = Option::deserialize(from)?;
        let hash = text.map(|text| text.parse());
        hash.transpose().map_err(serde::de::Error::custom)
    }
}

/// An asset, and what of it is new.
#[derive(Debug, Clone, PartialEq)]
pub struct Created {
    /// The asset; an older one, where the same bytes have that path already.
    pub asset: Asset,
    /// It was not there before.
    pub new_asset: bool,
    /// Nor were its bytes.
    pub new_bytes: bool,
}

impl From<Added> for Created {
    fn from(added: Added) -> Self {
        Created {
            asset: added.asset.into(),
            new_asset: added.new_asset,
            new_bytes: added.new_bytes,
        }
    }
}

impl Service {
    /// Makes an asset of received bytes ([`Service::receive`]). The same bytes are kept once for each tenant, and have one
    /// asset for each path; it then lasts as long as the longer of both wishes. Callers without a key have each their own.
    ///
    /// # Errors
    /// [`AssetError::HashMismatch`], [`AssetError::BadPath`], or the stores' own; nothing of the bytes is kept then.
    pub async fn create_asset(
        &self,
        tenant: &TenantId,
        incoming: Incoming,
        terms: AssetTerms,
    ) -> Result<Created, AssetError> {
        let added = self.add_asset(tenant, &incoming, terms).await;
        let kept = added.as_ref().ok().map(|added| added.asset.content.blob.clone());
        let settled = self.settle_incoming(incoming, kept.as_ref()).await;
        let mut created = Created::from(added?);
        settled?;
        // Strangers are not told what others have.
        created.new_bytes |= tenant.is_anonymous();
        Ok(created)
    }

    async fn add_asset(
        &self,
        tenant: &TenantId,
        incoming: &Incoming,
        terms: AssetTerms,
    ) -> Result<Added, AssetError> {
        let content = incoming
            .content(tenant)
            .ok_or_else(|| Error::Internal(anyhow::anyhow!("bytes without hashes cannot be an asset")))?;
        let found = match terms.expected {
            Some(ContentHash::Sha256(_)) => ContentHash::Sha256(content.sha256),
            Some(ContentHash::Blake3(_)) | None => ContentHash::Blake3(content.blake3),
        };
        if let Some(expected) = terms.expected.filter(|expected| *expected != found) {
            return Err(AssetError::HashMismatch { expected, found });
        }
        let content_type = match &terms.content_type {
            Some(given) => given.clone(),
            None => {
                let name = terms.file_path.as_deref().unwrap_or_default();
                self.content_type_of(incoming.key(), name).await
            }
        };
        let asset = self.new_asset(tenant, terms, content_type)?;
        Ok(self.store.add_asset(asset, content).await?)
    }

    /// Makes an asset of bytes that the caller's tenant has here already.
    ///
    /// # Errors
    /// [`AssetError::NoSuchBytes`], [`AssetError::BadPath`], or the store's own.
    pub async fn mint_asset(
        &self,
        tenant: &TenantId,
        hash: ContentHash,
        terms: AssetTerms,
    ) -> Result<Created, AssetError> {
        let missing = || AssetError::NoSuchBytes(hash);
        if tenant.is_anonymous() {
            return Err(missing());
        }
        let content_type = match &terms.content_type {
            Some(given) => given.clone(),
            None => match self.store.content(tenant, hash).await? {
                Some(content) => {
                    let name = terms.file_path.as_deref().unwrap_or_default();
                    self.content_type_of(&content.blob, name).await
                }
                None => darkroom_blobs::content_type::UNKNOWN.to_owned(),
            },
        };
        let asset = self.new_asset(tenant, terms, content_type)?;
        let added = self.store.mint_asset(asset, hash).await?;
        Ok(added.ok_or_else(missing)?.into())
    }

    fn new_asset(
        &self,
        tenant: &TenantId,
        terms: AssetTerms,
        content_type: String,
    ) -> Result<NewAsset, AssetError> {
        if terms
            .file_path
            .as_deref()
            .is_some_and(|path| !path::is_good(path))
        {
            return Err(AssetError::BadPath);
        }
        Ok(NewAsset {
            id: AssetId::new(&*self.ids),
            tenant: tenant.clone(),
            file_path: terms.file_path,
            content_type,
            expires_at: terms.expires_in.map(|wish| self.clock.now().plus(wish)),
        })
    }
}
