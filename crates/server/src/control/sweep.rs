//! Chores that nobody waits for: retention of finished jobs, the trash, files of instances that are gone.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Control;
use crate::service::Service;

/// How often the chores are looked after.
const EVERY: Duration = Duration::from_secs(60);
/// A blob stays in the trash this long: whoever took its name a moment ago can still read it.
const TRASH_DELAY: Duration = Duration::from_secs(3600);
/// The log and directories of an instance that is gone are kept this long, for whoever asks why.
const KEEP_GONE_INSTANCES: Duration = Duration::from_secs(3600);

impl Control {
    /// Sweeps until `shutdown`.
    pub async fn sweep(&self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            if let Err(error) = self.sweep_once(TRASH_DELAY, KEEP_GONE_INSTANCES).await {
                tracing::error!(error = ?error, "sweeping failed; trying again in a minute");
            }
        }
    }

    async fn sweep_once(&self, trash_delay: Duration, keep_gone: Duration) -> anyhow::Result<()> {
        sweep_jobs(&self.service).await?;
        empty_trash(&self.service, trash_delay).await?;
        let before = self.service.clock.now().minus(keep_gone);
        for gone in self.service.store.sweep_instances(before).await? {
            let handle = gone
                .handle
                .as_deref()
                .and_then(|json| serde_json::from_str(json).ok());
            let Some(handle) = handle else { continue };
            if let Err(error) = self.backend.remove_files(&handle).await {
                tracing::warn!(instance.id = %gone.id, error = ?error, "files of an instance could not be removed");
            }
        }
        Ok(())
    }
}

/// Removes finished jobs beyond their endpoint's retention, a batch at a time, so that other writers get between.
///
/// # Errors
/// When the store fails.
pub async fn sweep_jobs(service: &Service) -> Result<(), darkroom_store::Error> {
    for endpoint in service.endpoints().values() {
        while service
            .store
            .sweep_finished(&endpoint.name, endpoint.limits.retention)
            .await?
            .more
        {
            tokio::task::yield_now().await;
        }
    }
    Ok(())
}

/// Deletes blobs that nothing has referred to for `delay`.
///
/// # Errors
/// When a store fails.
pub async fn empty_trash(service: &Service, delay: Duration) -> anyhow::Result<()> {
    loop {
        let due = service.store.trash_due(delay, 200).await?;
        if due.is_empty() {
            return Ok(());
        }
        for blob in due {
            service.delete_trashed(&blob).await?;
        }
    }
}
