//! Keys made through the API or the CLI, and the verbs of the [outbox](crate::outbox).

use async_trait::async_trait;
use darkroom_core::{JobId, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Error;
pub use crate::outbox::{Delivery, Due, Lanes, OutboxRow, Redelivery, WebhookLog};

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

/// What signs requests: the public half, and the secret one as the server encrypted it (a signature needs it back).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppCredential {
    /// The public half, unique.
    pub app_key: String,
    /// The secret, encrypted.
    pub sealed_secret: Vec<u8>,
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
    /// It signs requests, and is never sent.
    pub app: Option<AppCredential>,
}

/// Keys and the outbox.
#[async_trait]
pub trait Access: Send + Sync {
    /// Adds a key; `false` when a live key has that name, or any has that app key.
    async fn add_key(&self, key: KeyRecord) -> Result<bool, Error>;

    /// All keys, also revoked ones, oldest first.
    async fn keys(&self) -> Result<Vec<KeyRecord>, Error>;

    /// Revokes a key by name; `false` when there is no live one.
    async fn revoke_key(&self, name: &str) -> Result<bool, Error>;

    /// Notes that a signed request with this nonce (hashed with its app) was let in; `false` when one was before, until
    /// `until`, from when on such a request is too old anyway. Survives kill -9 when this returns, and nothing that is written
    /// durably later is ever there without it.
    async fn use_nonce(&self, nonce: [u8; 16], until: Timestamp) -> Result<bool, Error>;

    /// Due rows of one kind, oldest first.
    async fn outbox_due(&self, kind: &str, limit: u32) -> Result<Vec<OutboxRow>, Error>;

    /// A delivery was acknowledged: the row goes.
    async fn outbox_done(&self, id: i64) -> Result<(), Error>;

    /// A delivery failed: try again at `due_at`.
    async fn outbox_retry(&self, id: i64, due_at: Timestamp) -> Result<(), Error>;

    /// Due rows of one kind, so that no receiver stands before another: a few of each lane.
    async fn outbox_lanes(&self, kind: &str, lanes: Lanes) -> Result<Due, Error>;

    /// A delivery was tried, with what it came to; its row is put off to `next_at`, or goes. A row that went meanwhile
    /// (the job was retried) does not come back.
    async fn outbox_tried(&self, id: i64, delivery: Delivery) -> Result<(), Error>;

    /// What became of the webhook of a job, and what is still to become of it, as of one moment.
    async fn webhook(&self, job: JobId) -> Result<WebhookLog, Error>;

    /// Queues the webhook of a job's end once more, under the same message id and due at once; `None` when there is no
    /// such job of that tenant (`tenant: None` is an operator).
    async fn redeliver(&self, tenant: Option<&TenantId>, job: JobId) -> Result<Option<Redelivery>, Error>;
}
