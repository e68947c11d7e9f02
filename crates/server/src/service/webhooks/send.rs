//! One try to deliver a webhook: the status of the job now, signed, posted, and written down.

use std::time::Duration;

use darkroom_core::{TenantId, delivery};
use darkroom_store::access::{Delivery, OutboxRow};
use serde::Deserialize;

use crate::service::{Error, Service, fetch, jobs::JobRecord};

/// What a status takes beside the job's result.
const SMALL_BODY_BYTES: u64 = 64 << 10;
/// A row that cannot be tried just now is held back for this long.
const AGAIN: Duration = Duration::from_secs(5);

/// What the store wrote into the row.
#[derive(Debug, Deserialize)]
struct Told {
    url: String,
    #[serde(default)]
    message: String,
}

/// What a try came to.
struct Answer {
    status: Option<u16>,
    problem: Option<String>,
    /// No other try can do better.
    is_final: bool,
}

impl Service {
    /// Tries once. What our own store does not let us try is due again after a moment.
    pub(super) async fn send_webhook(&self, row: OutboxRow) {
        let sent = match serde_json::from_str::<Told>(&row.body) {
            Ok(told) => self.try_webhook(&row, &told).await,
            Err(error) => Err(Error::Internal(anyhow::Error::new(error))),
        };
        if let Err(error) = sent {
            tracing::warn!(job.id = %row.job, error = ?error, "a webhook could not be tried; it waits");
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn try_webhook(&self, row: &OutboxRow, told: &Told) -> Result<(), Error> {
        let Some(job) = self.store.job(None, row.job).await? else {
            return Ok(self.store.outbox_done(row.id).await?);
        };
        let message = match told.message.as_str() {
            // Rows that older versions wrote.
            "" => format!("msg_{}_{}", row.job, row.id),
            message => message.to_owned(),
        };
        let result_bytes = job.result.as_ref().map_or(0, darkroom_core::Payload::size);
        // The status is a JSON tree first, and then a text.
        let held = self
            .webhooks
            .memory
            .hold(2 * result_bytes + SMALL_BODY_BYTES)
            .await?;
        let (at, began) = (self.now(), self.clock.monotonic());
        let answer = match self.status_body(&job).await {
            Ok(body) => self.post_webhook(&job.tenant, &told.url, &message, body).await,
            Err(error) => {
                tracing::warn!(job.id = %row.job, error = ?error, "the status of a job could not be made");
                Answer {
                    status: None,
                    problem: Some("the status of the job could not be read".to_owned()),
                    is_final: false,
                }
            }
        };
        drop(held);
        let tries = row.tries + 1;
        let again = delivery::again_after(tries).filter(|_| answer.problem.is_some() && !answer.is_final);
        let outcome = match (&answer.problem, again) {
            (None, _) => "acknowledged",
            (Some(_), Some(_)) => "failed",
            (Some(_), None) => "gave_up",
        };
        self.metrics.webhook(outcome);
        tracing::info!(
            job.id = %row.job, receiver = fetch::host_shown(&told.url), tries, status = answer.status, outcome,
            problem = answer.problem.as_deref(), "a webhook was tried"
        );
        self.reach("webhook_sent");
        let delivery = Delivery {
            job: row.job,
            message,
            at,
            took: self.clock.monotonic().saturating_sub(began),
            status: answer.status,
            problem: answer.problem,
            next_at: again.map(|delay| self.now().plus(delay)),
        };
        Ok(self.store.outbox_tried(row.id, delivery).await?)
    }

    /// The job as the protocol that took its submit shows it.
    async fn status_body(&self, job: &JobRecord) -> Result<bytes::Bytes, Error> {
        let missing = || Error::Internal(anyhow::anyhow!("no protocol says how a job is shown"));
        let body = self
            .webhooks
            .bodies
            .get()
            .ok_or_else(missing)?
            .of(&job.meta.dialect);
        let value = body(self.clone(), job.clone()).await?;
        let text = serde_json::to_vec(&value).map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        Ok(text.into())
    }

    async fn post_webhook(&self, tenant: &TenantId, url: &str, message: &str, body: bytes::Bytes) -> Answer {
        let headers = self.webhooks.keys.headers(tenant, message, self.now(), &body);
        match self.fetcher.post(url, &headers, body).await {
            Ok(status) => Answer {
                status: Some(status.as_u16()),
                problem: (!status.is_success()).then(|| format!("answered {}", status.as_u16())),
                // The receiver says that it is gone for good.
                is_final: status.as_u16() == 410,
            },
            Err(error) => Answer {
                status: None,
                is_final: matches!(error, fetch::Error::BadUrl(_)),
                problem: Some(error.to_string()),
            },
        }
    }
}
