//! Webhooks: whoever submitted a job with an address is told there of its end, in the words of the protocol that took the
//! submit, at least once, under one message id.
//!
//! The final transition writes an outbox row; [`keeper`](self) delivers it. `sign` is the convention of the signatures,
//! `send` one try, [`StatusBodies`] the place where protocols say how they show a job.

use std::{collections::BTreeMap, sync::Arc};

use darkroom_core::{JobId, TenantId, Timestamp};
pub use darkroom_store::access::{Delivery, Redelivery};
use futures::future::BoxFuture;
use serde_json::Value;

use super::{Error, Service, fetch, jobs::JobMeta, jobs::JobRecord};
use crate::config::Secret;

mod keeper;
mod send;
mod sign;
#[cfg(test)]
mod tests;

pub use sign::SigningKeys;

/// An address longer than this is refused, in bytes.
const MAX_URL_BYTES: usize = 2048;
/// The name under `JobMeta::options` of the base of absolute addresses, as the submit's caller reached us.
const BASE_URL: &str = "base_url";

/// How one protocol shows the status of a job: the JSON that its own status route answers with.
pub type StatusBody =
    Arc<dyn Fn(Service, JobRecord) -> BoxFuture<'static, Result<Value, Error>> + Send + Sync>;

/// The protocols' ways to show a job, by the dialect that submitted it. The service does not know protocols; whoever wires
/// them hands these over ([`Service::set_status_bodies`]).
#[derive(Clone)]
pub struct StatusBodies {
    by_dialect: BTreeMap<&'static str, StatusBody>,
    otherwise: StatusBody,
}

impl StatusBodies {
    /// With the way for dialects that name none of their own.
    pub fn new(otherwise: StatusBody) -> Self {
        StatusBodies {
            by_dialect: BTreeMap::new(),
            otherwise,
        }
    }

    /// Adds a dialect's own way.
    #[must_use]
    pub fn with(mut self, dialect: &'static str, body: StatusBody) -> Self {
        self.by_dialect.insert(dialect, body);
        self
    }

    fn of(&self, dialect: &str) -> StatusBody {
        self.by_dialect.get(dialect).unwrap_or(&self.otherwise).clone()
    }
}

/// The address that wants to be told of a job's end, and what became of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookView {
    /// Where to, without its query.
    pub url: Option<String>,
    /// Tries so far, oldest first.
    pub deliveries: Vec<Delivery>,
    /// When the next try is due; `None`: none is.
    pub next_at: Option<Timestamp>,
}

impl Service {
    /// Sets how protocols show jobs; once, before anything is delivered.
    pub fn set_status_bodies(&self, bodies: StatusBodies) {
        let _ = self.webhooks.bodies.set(bodies);
    }

    /// Writes into a submit's facts whom to tell of the job's end. `base_url` is the base of absolute addresses in what is
    /// told, as the caller reached us; no slash at its end.
    ///
    /// # Errors
    /// As [`Service::check_webhook`].
    pub fn set_webhook(&self, meta: &mut JobMeta, url: &str, base_url: &str) -> Result<(), Error> {
        self.check_webhook(url)?;
        meta.webhook = Some(url.to_owned());
        if !meta.options.is_object() {
            meta.options = Value::Object(serde_json::Map::new());
        }
        meta.options[BASE_URL] = base_url.into();
        Ok(())
    }

    /// Whether an address may be told of something; names are looked up, and checked, when something is delivered.
    ///
    /// # Errors
    /// [`Error::Invalid`] for one that can never be: no http(s) URL, too long, credentials in it, or a private address that
    /// `[fetch] allow` does not open.
    pub fn check_webhook(&self, url: &str) -> Result<(), Error> {
        let refused = if url.len() > MAX_URL_BYTES {
            format!("the address is longer than {MAX_URL_BYTES} bytes")
        } else if let Err(error) = self.fetcher.check(url) {
            error.to_string()
        } else {
            return Ok(());
        };
        Err(Error::Invalid(format!("webhook: {refused}")))
    }

    /// What became of a job's webhook.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn webhook(&self, job: &JobRecord) -> Result<WebhookView, Error> {
        let log = self.store.webhook(job.id).await?;
        Ok(WebhookView {
            url: job.meta.webhook.as_deref().map(fetch::shown),
            deliveries: log.tries,
            next_at: log.waiting.map(|row| row.due_at),
        })
    }

    /// Tells of a job's end once more, under the same message id; one that waits for its next try is tried at once.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Invalid`] while it has not ended, or when it has no webhook.
    pub async fn redeliver(&self, tenant: Option<&TenantId>, job: JobId) -> Result<(), Error> {
        match self.store.redeliver(tenant, job).await? {
            None => Err(Error::not_found("job", job)),
            Some(Redelivery::Queued) => Ok(()),
            Some(Redelivery::NotEnded) => Err(Error::Invalid(format!("job {job} has not ended"))),
            Some(Redelivery::NoWebhook) => Err(Error::Invalid(format!(
                "job {job} was submitted without a webhook"
            ))),
        }
    }

    /// What the receivers of a tenant check signatures with.
    pub fn webhook_secret(&self, tenant: &TenantId) -> Secret {
        self.webhooks.keys.secret(tenant)
    }
}

/// What webhooks are made with.
pub struct Webhooks {
    keys: SigningKeys,
    bodies: std::sync::OnceLock<StatusBodies>,
    memory: crate::memory::Budget,
}

/// Bodies that are on their way at a time hold at most so many bytes; results are a few kilobytes, the largest megabytes.
const BODY_MEMORY: u64 = 64 << 20;

impl Webhooks {
    /// With the server's key.
    pub fn new(server_key: &[u8; 32]) -> Self {
        Webhooks {
            keys: SigningKeys::new(server_key),
            bodies: std::sync::OnceLock::new(),
            memory: crate::memory::Budget::new(BODY_MEMORY),
        }
    }
}
