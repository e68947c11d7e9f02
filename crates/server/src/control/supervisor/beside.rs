//! What goes on beside a slot while its instance lives: learning what it can do, watching its memory and its log.

use std::{sync::PoisonError, time::Duration};

use darkroom_comfy::{
    client::{Client, ClientConfig},
    session::is_worker_death,
};
use darkroom_instances::{Handle, Usage};
use tokio::sync::watch;

use super::{Task, told};
use crate::service::resources::Resources;

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
            if let Err(error) = self.learn_facts(handle).await {
                tracing::warn!(instance.id = %self.id, error = ?error, "what the instance tells of itself could not be learned");
            }
        }
        std::future::pending().await
    }

    async fn learn_facts(&self, handle: &Handle) -> anyhow::Result<()> {
        let client = Client::new(ClientConfig::new(handle.base_url.parse()?))?;
        let facts = told::facts(&client).await?;
        let service = &self.control.service;
        service.learn_facts(&self.endpoint.name, facts).await?;
        Ok(())
    }

    async fn watch_usage(&self, handle: &Handle) {
        let mut before: Option<(Duration, Usage)> = None;
        loop {
            if let Some(usage) = self.control.backend.usage(handle).await {
                let now = self.control.service.clock.monotonic();
                let cpu_percent = before.map(|(at, before)| {
                    let passed = now.saturating_sub(at).as_secs_f64().max(0.001);
                    usage.cpu.saturating_sub(before.cpu).as_secs_f64() / passed * 100.0
                });
                before = Some((now, usage));
                let used = Resources {
                    rss_bytes: usage.rss_bytes,
                    cpu_percent,
                    processes: usage.processes,
                    gpu: self.control.gpus.look(self.gpu.as_deref(), now).await,
                };
                let mut shown = self.resources.lock().unwrap_or_else(PoisonError::into_inner);
                *shown = Some(used);
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
