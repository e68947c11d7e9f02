//! What goes on beside a slot while its instance lives: learning what it can do, watching its memory and its log.

use std::{sync::atomic::Ordering, time::Duration};

use darkroom_comfy::{
    client::{Client, ClientConfig},
    session::is_worker_death,
};
use darkroom_instances::Handle;
use tokio::sync::watch;

use super::Task;

/// How often the log of a busy instance is looked at for the death of its worker thread.
const LOG_EVERY: Duration = Duration::from_secs(2);
/// How much of it; a traceback is a few kilobytes.
const LOG_TAIL_BYTES: u64 = 32 * 1024;
/// How often the memory and the log of a running instance are measured.
const USAGE_EVERY: Duration = Duration::from_secs(10);
/// A log that grows beyond this loses its older half: weeks of progress bars must not fill the disk.
const LOG_MAX_BYTES: u64 = 64 << 20;

impl Task {
    /// All of it; never resolves.
    pub(super) async fn beside(&self, handle: &Handle, evidence: &watch::Sender<Option<String>>) {
        tokio::join!(
            self.learn(handle),
            self.watch_usage(handle),
            self.watch_log(handle, evidence)
        );
    }

    /// Learns what the instance can do, beside its first jobs; then never resolves again.
    async fn learn(&self, handle: &Handle) {
        let service = &self.control.service;
        if !self.endpoint.runs_embedded_engine() {
            match object_info(&handle.base_url).await {
                Ok(json) => {
                    if let Err(error) = service.learn_object_info(&self.endpoint.name, json).await {
                        tracing::warn!(instance.id = %self.id, error = ?error, "object_info could not be kept");
                    }
                }
                Err(error) => tracing::warn!(instance.id = %self.id, %error, "object_info could not be read"),
            }
        }
        std::future::pending().await
    }

    async fn watch_usage(&self, handle: &Handle) {
        loop {
            if let Some(usage) = self.control.backend.usage(handle).await {
                self.rss_bytes.store(usage.rss_bytes, Ordering::Relaxed);
            }
            if let Err(error) = self.control.backend.trim_logs(handle, LOG_MAX_BYTES).await {
                tracing::warn!(instance.id = %self.id, error = ?error, "a log could not be shortened");
            }
            tokio::time::sleep(USAGE_EVERY).await;
        }
    }

    /// A worker thread that dies leaves HTTP alive and its prompt in the queue for ever (`comfyui/behaviour.md` §1); only
    /// what the instance printed tells.
    async fn watch_log(&self, handle: &Handle, evidence: &watch::Sender<Option<String>>) {
        loop {
            tokio::time::sleep(LOG_EVERY).await;
            if self.activity.busy() == 0 {
                continue;
            }
            let Ok(tail) = self.control.backend.logs(handle, LOG_TAIL_BYTES).await else {
                continue;
            };
            let tail = String::from_utf8_lossy(&tail);
            if let Some(line) = tail.lines().find(|line| is_worker_death(line)) {
                let line: String = line.chars().take(200).collect();
                evidence.send_replace(Some(format!("its worker thread died: {line}")));
                return std::future::pending().await;
            }
        }
    }
}

async fn object_info(base_url: &str) -> anyhow::Result<Vec<u8>> {
    let client = Client::new(ClientConfig::new(base_url.parse()?))?;
    Ok(serde_json::to_vec(&client.object_info().await?)?)
}
