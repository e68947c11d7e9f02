//! A ComfyUI installation that the agent starts itself, watches, and starts again when it ended.
//!
//! What was started is remembered in the agent's data directory: an agent that comes after a kill goes on with the very
//! process that the one before started. Nothing else is ever signalled: processes are known by pid, start time and boot id.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use darkroom_comfy::session::is_worker_death;
use darkroom_core::{EndpointName, Ids, InstanceId, endpoint::ProcessSpec};
use darkroom_instances::{
    Error, Handle, InstanceBackend, ProcessBackend, ProcessConfig, Recognition, Spec, StartError,
    StartRequest,
};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::pace::Pace;

/// What a ComfyUI may take to end.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// How often the log is looked at for the death of the worker thread, which leaves HTTP alive.
const LOG_EVERY: Duration = Duration::from_secs(2);
/// How much of it; a traceback is a few kilobytes.
const LOG_TAIL_BYTES: u64 = 32 * 1024;
/// A log that grows beyond this loses its older half.
const LOG_MAX_BYTES: u64 = 64 << 20;
/// What was started, in the data directory.
const RECORD: &str = "comfyui.json";

/// See the module.
pub struct Installation {
    backend: ProcessBackend,
    spec: ProcessSpec,
    record: PathBuf,
    start_timeout: Duration,
}

/// What is remembered of a start.
#[derive(Serialize, Deserialize)]
struct Started {
    spec: ProcessSpec,
    handle: Handle,
}

/// Why a ComfyUI could not be started.
#[derive(Debug, thiserror::Error)]
enum NotUp {
    #[error("what an agent before started could not be ended")]
    Left(#[source] Error),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("what was started cannot be remembered")]
    Record(#[from] io::Error),
    #[error("it was not waited for")]
    Stopped,
}

impl Installation {
    /// One whose files are kept under `data_dir`, which nobody else uses.
    ///
    /// # Errors
    /// When the directory cannot be used.
    pub fn open(data_dir: &Path, spec: ProcessSpec, start_timeout: Duration) -> Result<Self, Error> {
        Ok(Installation {
            backend: ProcessBackend::open(data_dir, ProcessConfig::default())?,
            spec,
            record: data_dir.join(RECORD),
            start_timeout,
        })
    }

    /// The ComfyUI that an agent before started, if it still runs as it would be started now; else a new one. Tried again
    /// until it answers; `None`: stopped meanwhile.
    pub(crate) async fn up(
        &self,
        endpoint: &EndpointName,
        ids: &dyn Ids,
        stop: &CancellationToken,
    ) -> Option<Handle> {
        let mut pace = Pace::new();
        loop {
            match self.try_up(endpoint, ids, stop).await {
                Ok(handle) => return Some(handle),
                Err(NotUp::Stopped) => return None,
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(error, "ComfyUI does not start; trying again");
                }
            }
            tokio::select! {
                () = pace.wait() => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Leaves nothing behind when it fails.
    async fn try_up(
        &self,
        endpoint: &EndpointName,
        ids: &dyn Ids,
        stop: &CancellationToken,
    ) -> Result<Handle, NotUp> {
        if let Some(before) = self.remembered().await
            && self.ready(&before, stop).await.is_ok()
        {
            tracing::info!(
                pid = pid(&before),
                "going on with the ComfyUI of the agent before"
            );
            return Ok(before);
        }
        self.end_all().await.map_err(NotUp::Left)?;
        let request = StartRequest {
            instance: InstanceId::new(ids),
            endpoint: endpoint.clone(),
            gpu: None,
            spec: Spec::Process(self.spec.clone()),
        };
        let handle = self.backend.start(request).await?;
        let up = async {
            self.remember(&handle).await?;
            self.ready(&handle, stop).await
        };
        if let Err(error) = up.await {
            self.down(&handle).await;
            return Err(error);
        }
        tracing::info!(pid = pid(&handle), "ComfyUI runs");
        Ok(handle)
    }

    async fn ready(&self, handle: &Handle, stop: &CancellationToken) -> Result<(), NotUp> {
        tokio::select! {
            answers = self.backend.wait_ready(handle, self.start_timeout) => Ok(answers?),
            () = stop.cancelled() => Err(NotUp::Stopped),
        }
    }

    /// Waits until it ended, or its worker thread did; says how. What it printed stays on this machine.
    pub(crate) async fn died(&self, handle: &Handle) -> String {
        tokio::select! {
            exit = self.backend.exited(handle) => {
                tracing::warn!(pid = pid(handle), %exit, "ComfyUI ended");
                exit.how.to_string()
            }
            line = self.worker_died(handle) => line,
        }
    }

    /// A worker thread that dies leaves HTTP alive and its prompt in the queue for ever (`comfyui/behaviour.md` §1); only
    /// what the process printed tells.
    async fn worker_died(&self, handle: &Handle) -> String {
        loop {
            tokio::time::sleep(LOG_EVERY).await;
            let _ = self.backend.trim_logs(handle, LOG_MAX_BYTES).await;
            let Ok(tail) = self.backend.logs(handle, LOG_TAIL_BYTES).await else {
                continue;
            };
            let tail = String::from_utf8_lossy(&tail);
            if let Some(line) = tail.lines().find(|line| is_worker_death(line)) {
                let line: String = line.chars().take(200).collect();
                return format!("its worker thread died: {line}");
            }
        }
    }

    /// Ends it and all it started, and removes its files.
    pub(crate) async fn down(&self, handle: &Handle) {
        let ended = async {
            self.backend.stop(handle, STOP_GRACE).await?;
            self.backend.remove_files(handle).await
        };
        if let Err(error) = ended.await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(pid = pid(handle), error, "ComfyUI could not be ended");
        }
    }

    /// Ends whatever agents before this one left.
    async fn end_all(&self) -> Result<(), Error> {
        for left in self.backend.orphans(&[]).await? {
            self.backend.stop(&left, STOP_GRACE).await?;
            self.backend.remove_files(&left).await?;
        }
        Ok(())
    }

    async fn remembered(&self) -> Option<Handle> {
        let path = self.record.clone();
        let read = tokio::task::spawn_blocking(move || fs::read(path)).await;
        let started: Started = serde_json::from_slice(&read.ok()?.ok()?).ok()?;
        let is_alive = self.backend.recognise(&started.handle).await == Recognition::Alive;
        (started.spec == self.spec && is_alive).then_some(started.handle)
    }

    async fn remember(&self, handle: &Handle) -> io::Result<()> {
        let started = Started {
            spec: self.spec.clone(),
            handle: handle.clone(),
        };
        let (path, json) = (self.record.clone(), serde_json::to_vec(&started)?);
        let written = tokio::task::spawn_blocking(move || {
            let half = path.with_extension("new");
            fs::write(&half, json)?;
            fs::rename(half, path)
        });
        written.await.map_err(io::Error::other)?
    }
}

fn pid(handle: &Handle) -> u32 {
    handle.process.as_ref().map_or(0, |process| process.pid)
}
