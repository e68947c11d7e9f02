//! What goes on beside a slot while its instance lives: learning what it can do, watching its memory and its log.

use std::{sync::PoisonError, time::Duration};

use darkroom_comfy::{
    client::{Client, ClientConfig},
    session::is_worker_death,
};
use darkroom_core::endpoint::Backend;
use darkroom_instances::{Handle, Usage};
use futures::FutureExt;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::watch;

use super::{Task, told, web_files};
use crate::service::resources::Resources;

/// How often the log of a busy instance is looked at for the death of its worker thread.
const LOG_EVERY: Duration = Duration::from_secs(2);
/// How much of it; a traceback is a few kilobytes.
const LOG_TAIL_BYTES: u64 = 32 * 1024;
/// How often the memory and the log of a running instance are measured.
const USAGE_EVERY: Duration = Duration::from_secs(10);
/// How often an idle remote server is asked what it can do.
const ABILITIES_EVERY: Duration = Duration::from_secs(60);
/// A log that grows beyond this loses its older half: weeks of progress bars must not fill the disk.
const LOG_MAX_BYTES: u64 = 64 << 20;
/// Scripts of one instance that are copied, in bytes; ComfyUIs with hundreds of node packs have a tenth of it.
const MOST_SCRIPT_BYTES: u64 = 512 << 20;
/// When an instance that did not tell what it can do is asked again, at first and at last.
const ASK_AGAIN: Duration = Duration::from_secs(1);
const ASK_AGAIN_AT_MOST: Duration = Duration::from_secs(60);

impl Task {
    /// All of it; never resolves.
    pub(super) async fn beside(&self, handle: &Handle, evidence: &watch::Sender<Option<String>>) {
        // Of a program that answers HTTP nobody knows what it can do, or what it prints.
        if self.endpoint.is_http_worker() {
            return self.watch_usage(handle).await;
        }
        tokio::join!(
            // Boxed: as one type the nested futures of a life take the compiler minutes to prove `Send`.
            self.learn(handle).boxed(),
            self.watch_usage(handle).boxed(),
            self.answer_asks(handle).boxed(),
            self.watch_log(handle, evidence).boxed()
        );
    }

    /// Learns what the instance can do, beside its first jobs; then never resolves again. A remote server told before it
    /// was ready, and is asked again now and then: its operator may add models while it runs.
    async fn learn(&self, handle: &Handle) {
        if !self.endpoint.runs_embedded_engine() {
            if !handle.remote {
                let what = format!("object_info of the instance {}", self.id);
                insist(&what, || self.tell_abilities(handle)).await;
            }
            let what = format!("what the instance {} tells of itself", self.id);
            insist(&what, || self.learn_facts(handle)).await;
        }
        if !handle.remote {
            std::future::pending::<()>().await;
        }
        loop {
            tokio::time::sleep(ABILITIES_EVERY).await;
            if self.activity.busy() == 0 {
                self.try_abilities(handle).await;
            }
        }
    }

    async fn learn_facts(&self, handle: &Handle) -> anyhow::Result<()> {
        let client = self.client(handle)?;
        let facts = told::facts(&client).await?;
        let scripts: Vec<String> = told::scripts(&facts).map(str::to_owned).collect();
        let service = &self.control.service;
        service.learn_facts(&self.endpoint.name, facts).await?;
        let copied = self.copy_scripts(&client, &scripts).await;
        self.copy_beside(scripts, copied).await;
        Ok(())
    }

    /// Copies what lies beside the scripts of an installation of this machine.
    async fn copy_beside(&self, scripts: Vec<String>, mut copied: u64) {
        let Backend::Process(spec) = &self.endpoint.backend else {
            return;
        };
        let Some(custom_nodes) = spec.custom_nodes() else {
            return;
        };
        let found = tokio::task::spawn_blocking(move || web_files::beside(&scripts, &custom_nodes));
        for file in found.await.unwrap_or_default() {
            let kept = async {
                let size = tokio::fs::metadata(&file.source).await?.len();
                copied = copied.saturating_add(size);
                anyhow::ensure!(copied <= MOST_SCRIPT_BYTES, "the page's files are too many");
                let bytes = tokio::fs::read(&file.source).await?;
                let service = &self.control.service;
                service
                    .keep_page_script(&self.endpoint.name, &file.path, bytes.into())
                    .await?;
                anyhow::Ok(())
            };
            if let Err(error) = kept.await {
                let error = format!("{error:#}");
                tracing::warn!(instance.id = %self.id, path = file.path, error, "a file of the page could not be copied");
            }
        }
    }

    /// Copies what custom nodes bring to the page. One that cannot be had is left out: the page is whole but for it.
    /// How many bytes they have.
    async fn copy_scripts(&self, client: &Client, scripts: &[String]) -> u64 {
        let mut copied = 0;
        for path in scripts {
            match self.copy_script(client, path).await {
                Ok(bytes) => copied += bytes,
                Err(error) => {
                    let error = format!("{error:#}");
                    tracing::warn!(instance.id = %self.id, path, error, "a script of the page could not be copied");
                }
            }
            if copied > MOST_SCRIPT_BYTES {
                tracing::warn!(instance.id = %self.id, "its scripts of the page are too many; the rest is left out");
                break;
            }
        }
        copied
    }

    /// How large it was.
    async fn copy_script(&self, client: &Client, path: &str) -> anyhow::Result<u64> {
        let Some(script) = told::script(client, path).await? else {
            return Ok(0);
        };
        let bytes = script.len() as u64;
        let service = &self.control.service;
        service
            .keep_page_script(&self.endpoint.name, path, script)
            .await?;
        Ok(bytes)
    }

    async fn try_abilities(&self, handle: &Handle) {
        if let Err(error) = self.tell_abilities(handle).await {
            tracing::warn!(instance.id = %self.id, error = ?error, "object_info could not be learned");
        }
    }

    /// Asks the instance what it can do, and keeps it as its box's.
    pub(super) async fn tell_abilities(&self, handle: &Handle) -> anyhow::Result<()> {
        let json = serde_json::to_vec(&self.client(handle)?.object_info().await?)?;
        let service = &self.control.service;
        service
            .learn_object_info(&self.endpoint.name, &self.box_name, json)
            .await?;
        Ok(())
    }

    pub(super) fn client(&self, handle: &Handle) -> anyhow::Result<Client> {
        let access = ClientConfig::new(handle.base_url.parse()?);
        let config = ClientConfig {
            headers: self.header_map(handle),
            ..access
        };
        Ok(Client::new(config)?)
    }

    /// What must be sent with every request to it.
    pub(super) fn header_map(&self, handle: &Handle) -> HeaderMap {
        header_map(self.headers(handle))
    }

    pub(super) async fn watch_usage(&self, handle: &Handle) {
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

/// Those that can be sent.
fn header_map(pairs: Vec<(String, String)>) -> HeaderMap {
    let pairs = pairs.into_iter().filter_map(|(name, value)| {
        let mut value = HeaderValue::try_from(value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::try_from(name).ok()?, value))
    });
    pairs.collect()
}

/// Tries until it succeeds, later each time: an instance that is busy loading may be slow to answer, and without what it
/// tells graphs are not checked before they are queued.
async fn insist<Asked>(what: &str, attempt: impl Fn() -> Asked)
where
    Asked: Future<Output = anyhow::Result<()>>,
{
    let mut pause = ASK_AGAIN;
    while let Err(error) = attempt().await {
        tracing::warn!(
            ?error,
            "{what} could not be learned, asking again in {} s",
            pause.as_secs()
        );
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(ASK_AGAIN_AT_MOST);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_learned_is_asked_for_again() {
        let asked = AtomicU32::new(0);
        insist("it", || {
            let nth = asked.fetch_add(1, Ordering::Relaxed);
            std::future::ready(if nth < 8 {
                Err(anyhow::anyhow!("busy"))
            } else {
                Ok(())
            })
        })
        .await;
        assert_eq!(asked.into_inner(), 9);
    }
}
