//! Files by what they hold: the same bytes are kept once for each tenant, whichever way they came, and can be had by id.

use async_trait::async_trait;
use darkroom_core::{AssetId, BlobKey, ContentHash, Digest, TenantId, Timestamp};

use crate::{Error, files::FileRef};

/// Bytes that a tenant brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// Whose.
    pub tenant: TenantId,
    /// Their BLAKE3.
    pub blake3: Digest,
    /// Their SHA-256.
    pub sha256: Digest,
    /// Their length.
    pub size: u64,
    /// Where they are.
    pub blob: BlobKey,
}

/// A file that is to be had by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAsset {
    /// Its id, unless the same bytes were brought for the same path before.
    pub id: AssetId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its path, if it has one.
    pub file_path: Option<String>,
    /// Its media type.
    pub content_type: String,
    /// When it goes; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// One that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetRecord {
    /// Its id.
    pub id: AssetId,
    /// Its bytes.
    pub content: Content,
    /// Its path, if it has one.
    pub file_path: Option<String>,
    /// Its media type.
    pub content_type: String,
    /// When it was brought first.
    pub created_at: Timestamp,
    /// When it was brought last.
    pub brought_at: Timestamp,
    /// When it goes; `None`: never.
    pub expires_at: Option<Timestamp>,
}

/// What became of a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The one that is kept: an older one, where the same bytes have that path already.
    pub asset: AssetRecord,
    /// It was not there before.
    pub new_asset: bool,
    /// Nor were its bytes.
    pub new_bytes: bool,
}

/// An asset on its way in, a piece at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetUpload {
    /// Its id, which is not the asset's.
    pub id: AssetId,
    /// Whose it will be.
    pub tenant: TenantId,
    /// What its caller said of the file, as the caller of the store wrote it down.
    pub terms: serde_json::Value,
    /// How many bytes are here.
    pub received: u64,
    /// In how many pieces.
    pub pieces: u32,
    /// When it is given up.
    pub expires_at: Timestamp,
}

/// A piece of one, written before this is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub size: u64,
    /// Its bytes.
    pub blob: BlobKey,
}

/// What a name that is taken means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfTaken {
    /// What had it before goes.
    Replace,
    /// It stays.
    Keep,
}

/// Files by what they hold. A verb that is given bytes which are known already refers to the blob that holds them, not to the
/// one it was given, which its caller then removes.
#[async_trait]
pub trait Assets: Send + Sync {
    /// Adds an asset. Of the same bytes with the same path there is one, which then lasts as long as the longer of both; but
    /// of the anonymous tenant's each is its own.
    async fn add_asset(&self, asset: NewAsset, content: Content) -> Result<Added, Error>;

    /// The same over bytes that are there; `None`: they are not. Bytes that something referred to when
    /// [`Assets::content`] found them are there for as long as the trash keeps what is dropped, at least.
    async fn mint_asset(&self, asset: NewAsset, hash: ContentHash) -> Result<Option<Added>, Error>;

    /// Gives bytes a name ([`crate::Files::put_ref`], [`crate::Files::add_ref`]) and says which blob has it now; `None`: the
    /// name is taken, and nothing changed. The reference's blob and size are the content's.
    async fn keep_content(
        &self,
        reference: FileRef,
        content: Content,
        if_taken: IfTaken,
    ) -> Result<Option<BlobKey>, Error>;

    /// A tenant's bytes by hash, if something refers to them.
    async fn content(&self, tenant: &TenantId, hash: ContentHash) -> Result<Option<Content>, Error>;

    /// What is known of a blob's bytes.
    async fn content_of(&self, blob: &BlobKey) -> Result<Option<Content>, Error>;

    /// A tenant's asset that has not expired.
    async fn asset(&self, tenant: &TenantId, id: AssetId) -> Result<Option<AssetRecord>, Error>;

    /// The one of a path that was brought last.
    async fn newest_asset(&self, tenant: &TenantId, file_path: &str) -> Result<Option<AssetRecord>, Error>;

    /// A tenant's assets, newest first, from behind `before` on.
    async fn assets(
        &self,
        tenant: &TenantId,
        before: Option<AssetId>,
        limit: u32,
    ) -> Result<Vec<AssetRecord>, Error>;

    /// Lets an asset last until then at least (`None`: for ever); `None`: there is no such asset.
    async fn extend_asset(
        &self,
        tenant: &TenantId,
        id: AssetId,
        until: Option<Timestamp>,
    ) -> Result<Option<AssetRecord>, Error>;

    /// Removes an asset; `false`: there is none. Its bytes stay as long as anything refers to them.
    async fn remove_asset(&self, tenant: &TenantId, id: AssetId) -> Result<bool, Error>;

    /// Begins an upload.
    async fn begin_upload(&self, upload: AssetUpload) -> Result<(), Error>;

    /// A tenant's upload that was not given up.
    async fn asset_upload(&self, tenant: &TenantId, id: AssetId) -> Result<Option<AssetUpload>, Error>;

    /// Adds a piece that begins where the ones before it end, and puts the end off. Says how the upload stands then: unchanged
    /// where the piece begins elsewhere; `None`: there is no such upload.
    async fn add_piece(
        &self,
        tenant: &TenantId,
        id: AssetId,
        piece: Piece,
        expires_at: Timestamp,
    ) -> Result<Option<AssetUpload>, Error>;

    /// The pieces of an upload, in order.
    async fn upload_pieces(&self, id: AssetId) -> Result<Vec<Piece>, Error>;

    /// Ends an upload and drops its pieces; `false`: there is none.
    async fn end_upload(&self, tenant: &TenantId, id: AssetId) -> Result<bool, Error>;

    /// Ends up to `limit` uploads that were given up, and says how many those were.
    async fn sweep_uploads(&self, limit: u32) -> Result<u64, Error>;

    /// Removes up to `limit` assets that have expired, and says how many those were.
    async fn sweep_assets(&self, limit: u32) -> Result<u64, Error>;
}
