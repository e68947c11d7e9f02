//! Who refers to which blob, and the trash that blobs pass through before they are deleted.
//!
//! A blob is written before a row names it, and deleted only some time after the last row that named it went away.

use std::time::Duration;

use async_trait::async_trait;
use darkroom_core::{BlobKey, TenantId, Timestamp};

use crate::Error;

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRef {
    /// What refers to it (`job:<id>`, `upload:<tenant>`, …).
    pub owner: String,
    /// Under which name.
    pub name: String,
    /// Whose it is.
    pub tenant: TenantId,
    /// The blob.
    pub blob: BlobKey,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub content_type: String,
    /// When the reference was made.
    pub created_at: Timestamp,
}

/// What blobs of one tenant and endpoint, and of about one age, take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Whose they are.
    pub tenant: TenantId,
    /// Of which endpoint; `None`: of none, such as uploads by signed address.
    pub endpoint: Option<String>,
    /// How many of [`AGES`] they are older than.
    pub age: usize,
    /// How many.
    pub blobs: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// The ages that usage is told by.
pub const AGES: [Duration; 3] = [
    Duration::from_secs(24 * 3600),
    Duration::from_secs(7 * 24 * 3600),
    Duration::from_secs(30 * 24 * 3600),
];

/// References and trash.
#[async_trait]
pub trait Files: Send + Sync {
    /// Notes that a blob is about to be written, *before* it is: if no reference follows within a day, the sweeper
    /// finds it here. Does not wait for the disk.
    async fn intend(&self, blob: &BlobKey) -> Result<(), Error>;

    /// The same for bytes that a caller brings: refused below the disk reserve, which is kept for what running jobs make.
    async fn intend_input(&self, blob: &BlobKey) -> Result<(), Error>;

    /// Takes an intent back: what would have referred to the blob was refused. `true`: its bytes may be deleted now; `false`:
    /// a reference was made all the same, or it was not intended.
    async fn withdraw(&self, blob: &BlobKey) -> Result<bool, Error>;

    /// Adds or replaces a reference (`owner`, `name`); takes the blob out of the trash in the same transaction.
    async fn put_ref(&self, reference: FileRef) -> Result<(), Error>;

    /// Adds a reference unless its owner has one of that name already: `false`, and nothing changes.
    async fn add_ref(&self, reference: FileRef) -> Result<bool, Error>;

    /// One reference.
    async fn file_ref(&self, owner: &str, name: &str) -> Result<Option<FileRef>, Error>;

    /// All references of an owner, by name.
    async fn refs_of(&self, owner: &str) -> Result<Vec<FileRef>, Error>;

    /// References of an owner whose names come after `after`, by name, at most `limit`.
    async fn refs_page(&self, owner: &str, after: Option<&str>, limit: u32) -> Result<Vec<FileRef>, Error>;

    /// References to a blob (any owner): who may read it.
    async fn refs_to(&self, blob: &BlobKey) -> Result<Vec<FileRef>, Error>;

    /// Drops a reference; the last one puts the blob into the trash. `false` when there was none.
    async fn drop_ref(&self, owner: &str, name: &str) -> Result<bool, Error>;

    /// Drops up to `limit` references of an owner that were made before `before`, and says how many those were.
    async fn drop_refs_before(&self, owner: &str, before: Timestamp, limit: u32) -> Result<u64, Error>;

    /// Blobs that have been in the trash (or intended without a reference) longer than `delay`, at most `limit`.
    async fn trash_due(&self, delay: Duration, limit: u32) -> Result<Vec<BlobKey>, Error>;

    /// Forgets a trashed blob if it is still unreferenced, *before* its bytes are deleted; `false` when somebody took a
    /// reference meanwhile, or said within a day that one will follow, and it must stay.
    async fn empty_trash(&self, blob: &BlobKey) -> Result<bool, Error>;

    /// What the blobs that something refers to take, each counted once, by tenant, endpoint and age at `now`.
    async fn usage(&self, now: Timestamp) -> Result<Vec<Usage>, Error>;

    /// Puts those of the blobs into the trash that nothing refers to, intends, or holds in the trash already: what a
    /// listing of the blob store found and no row knows. Returns how many those were. At most 200 at a time.
    async fn trash_unknown(&self, blobs: Vec<BlobKey>) -> Result<u64, Error>;
}
