//! Instances as processes of this machine (Linux: recognition reads `/proc`).
//!
//! Each has its own process group, port, directories and log file under `instances/<id>/`. It is known by pid, start
//! time and boot id, and what it starts by two marks in the environment; nothing else is ever signalled.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::InstanceId;

use self::{files::Files, watch::Watched};
use crate::{Error, ExitInfo, Handle, InstanceBackend, Recognition, StartError, StartRequest, Usage};

mod command;
mod environment;
mod files;
mod log;
mod orphans;
mod port;
mod proc_fs;
mod ready;
mod spawn;
mod stop;
#[cfg(test)]
mod tests;
mod watch;

/// Runs instances as processes of this machine. Cheap to clone.
#[derive(Clone)]
pub struct ProcessBackend {
    inner: Arc<Inner>,
}

/// How processes are run.
#[derive(Debug, Clone, Default)]
pub struct ProcessConfig {
    /// The command of endpoints that have none: the embedded engine, with the placeholders of
    /// [`ProcessSpec::command`](darkroom_core::endpoint::ProcessSpec).
    pub engine_command: Vec<String>,
    /// Variables of the server's environment that instances must not see, beside all `DARKROOM_…`: those the
    /// configuration takes secrets from.
    pub hidden_env: Vec<String>,
}

struct Inner {
    dir: PathBuf,
    config: ProcessConfig,
    http: reqwest::Client,
    watched: Mutex<HashMap<InstanceId, Watched>>,
    /// Ports of instances that may not listen yet.
    ports: Mutex<HashMap<InstanceId, u16>>,
}

impl ProcessBackend {
    /// A backend whose instances live under `data_dir/instances`, which is made if it is missing.
    ///
    /// # Errors
    /// [`Error::Files`].
    pub fn open(data_dir: &Path, config: ProcessConfig) -> Result<Self, Error> {
        let dir = data_dir.join("instances");
        let failed = |source| Error::Files {
            path: dir.clone(),
            source,
        };
        match files::make_private_dir(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(failed(error)),
            _ => {}
        }
        // One spelling: instances of an earlier server are known by it, and run in directories of their own.
        let canonical = dir.canonicalize().map_err(failed)?;
        let http = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(1))
            .pool_max_idle_per_host(0)
            .build()
            .map_err(|error| failed(std::io::Error::other(error)))?;
        Ok(ProcessBackend {
            inner: Arc::new(Inner {
                dir: canonical,
                config,
                http,
                watched: Mutex::default(),
                ports: Mutex::default(),
            }),
        })
    }

    fn log_failed(handle: &Handle) -> impl Fn(std::io::Error) -> Error + use<> {
        let path = handle.log_path.clone().unwrap_or_default();
        move |source| Error::Files {
            path: path.clone(),
            source,
        }
    }
}

#[async_trait]
impl InstanceBackend for ProcessBackend {
    async fn start(&self, request: StartRequest) -> Result<Handle, StartError> {
        let inner = Arc::clone(&self.inner);
        run_blocking(move || spawn::spawn(&inner, request)).await
    }

    async fn wait_ready(&self, handle: &Handle, timeout: Duration) -> Result<(), StartError> {
        let answers = ready::wait(&self.inner.http, &handle.base_url, timeout);
        tokio::select! {
            biased;
            exit = self.inner.explain_exit(handle) => Err(StartError::Exited(exit)),
            answered = answers => match answered {
                Ok(()) if self.recognise(handle).await == Recognition::Alive => Ok(()),
                // Something else has its port and answered.
                Ok(()) => Err(StartError::Exited(self.exited(handle).await)),
                Err(last_answer) => Err(StartError::NotReady {
                    timeout,
                    last_answer,
                    last_lines: self.inner.last_lines(handle),
                }),
            },
        }
    }

    async fn recognise(&self, handle: &Handle) -> Recognition {
        match &handle.process {
            Some(process) if proc_fs::is_alive(process) => Recognition::Alive,
            _ => Recognition::Gone,
        }
    }

    async fn exited(&self, handle: &Handle) -> ExitInfo {
        self.inner.explain_exit(handle).await
    }

    async fn stop(&self, handle: &Handle, grace: Duration) -> Result<(), Error> {
        stop::stop(&self.inner, handle, grace).await
    }

    async fn logs(&self, handle: &Handle, tail_bytes: u64) -> Result<Bytes, Error> {
        let Some(path) = handle.log_path.clone() else {
            return Ok(Bytes::new());
        };
        run_blocking(move || log::tail(&path, tail_bytes))
            .await
            .map(Bytes::from)
            .map_err(Self::log_failed(handle))
    }

    async fn trim_logs(&self, handle: &Handle, max_bytes: u64) -> Result<(), Error> {
        let Some(path) = handle.log_path.clone() else {
            return Ok(());
        };
        run_blocking(move || log::trim(&path, max_bytes))
            .await
            .map_err(Self::log_failed(handle))
    }

    async fn remove_files(&self, handle: &Handle) -> Result<(), Error> {
        if self.recognise(handle).await == Recognition::Alive
            || !stop::leftovers(&self.inner, handle).await.is_empty()
        {
            return Err(Error::StillRunning(handle.instance));
        }
        let files = Files::of(&self.inner.dir, handle.instance);
        let path = files.root().to_owned();
        run_blocking(move || files.remove())
            .await
            .map_err(|source| Error::Files { path, source })?;
        self.inner.forget(handle.instance);
        Ok(())
    }

    async fn usage(&self, handle: &Handle) -> Option<Usage> {
        let process = handle.process.clone()?;
        run_blocking(move || {
            if !proc_fs::is_alive(&process) {
                return None;
            }
            let members = proc_fs::group_members(process.pid);
            Some(Usage {
                rss_bytes: members.iter().map(proc_fs::Stat::rss_bytes).sum(),
                cpu: members.iter().map(proc_fs::Stat::cpu).sum(),
                processes: u32::try_from(members.len()).unwrap_or(u32::MAX),
            })
        })
        .await
    }

    async fn find(&self, instance: InstanceId) -> Result<Option<Handle>, Error> {
        let inner = Arc::clone(&self.inner);
        run_blocking(move || {
            orphans::find(&inner, instance).map_err(|source| Error::Files {
                path: Files::of(&inner.dir, instance).root().to_owned(),
                source,
            })
        })
        .await
    }

    async fn orphans(&self, known: &[InstanceId]) -> Result<Vec<Handle>, Error> {
        let (inner, known) = (Arc::clone(&self.inner), known.to_vec());
        run_blocking(move || {
            orphans::orphans(&inner, &known).map_err(|source| Error::Files {
                path: inner.dir.clone(),
                source,
            })
        })
        .await
    }
}

impl Inner {
    /// Takes a port for an instance: `choose` is told which ports others have.
    fn take_port(
        &self,
        instance: InstanceId,
        choose: impl FnOnce(&dyn Fn(u16) -> bool) -> Option<u16>,
    ) -> Option<u16> {
        let mut ports = self.ports();
        let port = choose(&|port| ports.values().any(|taken| *taken == port))?;
        ports.insert(instance, port);
        Some(port)
    }

    fn ports(&self) -> MutexGuard<'_, HashMap<InstanceId, u16>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn run_blocking<T, F>(work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Not started because the runtime is shutting down: so is whoever waits for it.
            Err(_) => std::future::pending().await,
        },
    }
}
