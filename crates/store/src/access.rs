//! Keys made through the API or the CLI, and the outbox of what must leave the process.

use async_trait::async_trait;
use darkroom_core::{JobId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Error;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// Submits, reads, and cancels its tenant's jobs.
    Client,
    /// Publishes workflows and moves aliases.
    Publish,
    /// The worker side of one endpoint.
    Worker,
    /// Everything.
    Admin,
}

/// A stored key. The secret itself is never stored: it is 256 random bits, and its SHA-256 is enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRecord {
    /// Its name, unique.
    pub name: String,
    /// SHA-256 of the secret.
    pub secret_sha256: [u8; 32],
    /// The first characters of the secret, to recognise it by.
    pub prefix: String,
    /// What it may do.
    pub scopes: Vec<Scope>,
    /// Endpoints it may use; `*` is all.
    pub endpoints: Vec<String>,
    /// Whom it belongs to.
    pub tenant: TenantId,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// A message that must leave the process; written in the transaction of the state change that caused it.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxRow {
    /// Its number; grows for ever.
    pub id: i64,
    /// The job it is about.
    pub job: JobId,
    /// The kind of delivery (`webhook`, `sink`).
    pub kind: String,
    /// Where to and what, JSON.
    pub body: String,
    /// Deliveries tried.
    pub tries: u32,
    /// Not before.
    pub due_at: Timestamp,
}

/// Keys and the outbox.
#[async_trait]
pub trait Access: Send + Sync {
    /// Adds a key; `false` when a live key has that name.
    async fn add_key(&self, key: KeyRecord) -> Result<bool, Error>;

    /// All keys, also revoked ones, oldest first.
    async fn keys(&self) -> Result<Vec<KeyRecord>, Error>;

    /// Revokes a key by name; `false` when there is no live one.
    async fn revoke_key(&self, name: &str) -> Result<bool, Error>;

    /// Due rows of one kind, oldest first.
    async fn outbox_due(&self, kind: &str, limit: u32) -> Result<Vec<OutboxRow>, Error>;

    /// A delivery was acknowledged: the row goes.
    async fn outbox_done(&self, id: i64) -> Result<(), Error>;

    /// A delivery failed: try again at `due_at`.
    async fn outbox_retry(&self, id: i64, due_at: Timestamp) -> Result<(), Error>;
}
