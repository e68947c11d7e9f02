//! Chores that nobody waits for: retention of finished jobs, the trash, files of instances that are gone.

use std::{collections::BTreeMap, time::Duration};

use darkroom_core::{EndpointName, endpoint::Limits};
use tokio_util::sync::CancellationToken;

use super::{Control, strays};
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
        tokio::join!(
            self.do_chores(&shutdown),
            strays::look_for_strays(&self.service, &shutdown)
        );
    }

    async fn do_chores(&self, shutdown: &CancellationToken) {
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
        self.service.sweep_signed_uploads().await?;
        self.service.sweep_parts().await?;
        self.service.sweep_assets().await?;
        self.service.sweep_resumed().await?;
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

/// Removes finished jobs beyond their own time and beyond their endpoint's retention, a batch at a time, so that other writers get between. Jobs of
/// endpoints that are not configured any more are kept as long as the default says.
///
/// # Errors
/// When the store fails.
pub async fn sweep_jobs(service: &Service) -> anyhow::Result<()> {
    while service.store.sweep_expired().await?.more {
        tokio::task::yield_now().await;
    }
    let mut retention: BTreeMap<EndpointName, Duration> = service
        .endpoints()
        .values()
        .map(|endpoint| (endpoint.name.clone(), endpoint.limits.retention))
        .collect();
    for known in service.store.counters().await?.into_keys() {
        retention
            .entry(known)
            .or_insert_with(|| Limits::default().retention);
    }
    for (endpoint, retention) in retention {
        while service.store.sweep_finished(&endpoint, retention).await?.more {
            tokio::task::yield_now().await;
        }
        service.sweep_objects(&endpoint, retention).await?;
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

#[cfg(test)]
mod tests {
    use darkroom_core::JobState;

    use super::*;
    use crate::service::{
        intake::Fetch,
        jobs::{Cancelled, JobMeta},
        submit::ComfySubmit,
        testing::Bench,
    };

    #[tokio::test]
    async fn jobs_of_a_removed_endpoint_expire_are_cancelled_and_are_swept() {
        let bench = Bench::configured(
            "[endpoints.gone]\ncommand = [\"/nobody\", \"{port}\"]\nscaling = { max_instances = 0 }\n[endpoints.gone.limits]\nqueue_ttl = \"1h\"\n[endpoints.stays]\n",
        );
        let service = &bench.service;
        let submit = async || {
            let submit = ComfySubmit {
                tenant: "t".parse().unwrap(),
                endpoint: "gone".parse().unwrap(),
                graph: serde_json::json!({"1": {"class_type": "Anything", "inputs": {}}}),
                extra_data: serde_json::Map::new(),
                targets: None,
                priority: 0,
                external_id: None,
                randomise_seeds: false,
                fetch: Fetch::Now,
                meta: JobMeta::default(),
                size_bytes: 0,
                memory: crate::memory::Held::default(),
            };
            service.submit_comfy(submit).await.unwrap().job
        };
        let (expires, cancelled) = (submit().await, submit().await);
        bench.remove_endpoint("gone");
        let removed = service.removed_endpoints().await.unwrap();
        assert_eq!(removed.len(), 1);
        assert_eq!((removed[0].0.as_str(), removed[0].1.queued), ("gone", 2));
        assert_eq!(service.cancel(None, cancelled).await.unwrap(), Cancelled::Now);
        bench.clock.advance(Duration::from_secs(3601));
        service.store.expire().await.unwrap();
        assert_eq!(service.job(None, expires).await.unwrap().state, JobState::Expired);
        assert!(service.removed_endpoints().await.unwrap().is_empty());

        sweep_jobs(service).await.unwrap();
        service
            .job(None, expires)
            .await
            .expect("kept as long as the default says");
        bench.clock.advance(Limits::default().retention);
        sweep_jobs(service).await.unwrap();
        assert!(service.job(None, expires).await.is_err());
        assert!(service.job(None, cancelled).await.is_err());
    }
}
