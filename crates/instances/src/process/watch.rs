//! Noticing that an instance is gone: our children are waited for, those of an earlier server are watched by pidfd.

use std::{
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::{Arc, PoisonError},
    time::Duration,
};

use darkroom_core::InstanceId;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{io::unix::AsyncFd, process::Child, sync::watch};

use super::{Inner, environment, log, proc_fs};
use crate::{Exit, ExitInfo, Handle, ProcessIdentity};

/// How often a process is looked at where the kernel cannot tell us of its end (before Linux 5.3).
const POLL_EVERY: Duration = Duration::from_millis(200);

/// A process whose end will be noticed.
#[derive(Clone)]
pub(super) struct Watched {
    /// How it ended, once it did.
    exit: watch::Receiver<Option<Exit>>,
    /// What must not appear in reasons.
    secrets: Arc<[String]>,
}

impl Inner {
    /// Waits for a child of ours, from now on, also when nobody asks: it must not stay a zombie. The task ends with
    /// the process; a server that leaves its instances running drops it, which does not touch the process.
    pub(super) fn watch_child(&self, instance: InstanceId, mut child: Child, secrets: Vec<String>) {
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            let how = child.wait().await.map_or(Exit::Unknown, how_it_ended);
            sender.send_replace(Some(how));
        });
        self.watched().insert(
            instance,
            Watched {
                exit,
                secrets: secrets.into(),
            },
        );
    }

    /// Waits until the process of a handle is gone.
    pub(super) async fn wait_exit(&self, handle: &Handle) -> Exit {
        let Some(watched) = self.watch(handle) else {
            return Exit::Unknown;
        };
        let mut exit = watched.exit;
        exit.wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|how| *how)
            .unwrap_or(Exit::Unknown)
    }

    /// How it ended, in words.
    pub(super) async fn explain_exit(&self, handle: &Handle) -> ExitInfo {
        ExitInfo {
            how: self.wait_exit(handle).await,
            last_lines: self.last_lines(handle),
        }
    }

    /// The last lines of its log, without secrets.
    pub(super) fn last_lines(&self, handle: &Handle) -> String {
        let secrets = self
            .watched()
            .get(&handle.instance)
            .map(|w| Arc::clone(&w.secrets));
        handle.log_path.as_deref().map_or_else(String::new, |path| {
            log::last_lines(path, secrets.as_deref().unwrap_or_default())
        })
    }

    /// Watches the process of a handle unless it is watched already; `None` when it was gone before.
    pub(super) fn watch(&self, handle: &Handle) -> Option<Watched> {
        let mut all = self.watched();
        if let Some(watched) = all.get(&handle.instance) {
            return Some(watched.clone());
        }
        let process = handle.process.clone()?;
        let pid = Pid::from_raw(i32::try_from(process.pid).ok()?)?;
        // First the descriptor, then the look whether it is the right process: so its number cannot change hands.
        let pidfd = pidfd_open(pid, PidfdFlags::empty());
        if !proc_fs::is_alive(&process) {
            return None;
        }
        let environment = proc_fs::environment(process.pid);
        let secrets = environment::secrets(environment.iter().filter_map(|entry| entry.split_once('=')));
        let (sender, exit) = watch::channel(None);
        tokio::spawn(async move {
            #[expect(
                deprecated,
                reason = "its replacement is unsafe for types that may swap their descriptor; an OwnedFd does not"
            )]
            let pidfd = pidfd.ok().and_then(|fd| AsyncFd::new(fd).ok());
            match pidfd {
                Some(pidfd) if pidfd.readable().await.is_ok() => {}
                _ => poll_until_gone(&process).await,
            }
            sender.send_replace(Some(Exit::Unknown));
        });
        let watched = Watched {
            exit,
            secrets: secrets.into(),
        };
        all.insert(handle.instance, watched.clone());
        Some(watched)
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, std::collections::HashMap<InstanceId, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops what is remembered of an instance that is gone.
    pub(super) fn forget(&self, instance: InstanceId) {
        self.watched().remove(&instance);
        self.ports().remove(&instance);
    }
}

async fn poll_until_gone(process: &ProcessIdentity) {
    while proc_fs::is_alive(process) {
        tokio::time::sleep(POLL_EVERY).await;
    }
}

fn how_it_ended(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown,
    }
}
