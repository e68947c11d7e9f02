//! Ending an instance and everything it started, and nothing else.

use std::{sync::Arc, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal},
};

use super::{Inner, environment, proc_fs};
use crate::{Error, Handle};

/// How long the kernel may take to end a killed process: freeing much GPU memory takes a while.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);
/// How often the processes left behind are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Ends an instance: politely, after `grace` by force.
pub(super) async fn stop(inner: &Arc<Inner>, handle: &Handle, grace: Duration) -> Result<(), Error> {
    let asked = tokio::time::timeout(grace, async {
        signal_group(handle, Signal::TERM)?;
        inner.wait_exit(handle).await;
        // The first process of the group is gone; others of it may still be busy ending.
        while !leftovers(inner, handle).await.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    })
    .await;
    if let Ok(done) = asked {
        return done;
    }
    tracing::info!(instance.id = %handle.instance, "instance did not end when asked, killing it");
    let killed = tokio::time::timeout(KILL_TIMEOUT, async {
        signal_group(handle, Signal::KILL)?;
        inner.wait_exit(handle).await;
        loop {
            let left = leftovers(inner, handle).await;
            if left.is_empty() {
                return Ok(());
            }
            let (inner, handle) = (Arc::clone(inner), handle.clone());
            super::run_blocking(move || kill_marked(&inner, &handle, &left)).await;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
    .await;
    killed.unwrap_or(Err(Error::StillRunning(handle.instance)))
}

/// Processes that carry the instance's marks: those it started, also outside its group, also when it is gone.
pub(super) async fn leftovers(inner: &Arc<Inner>, handle: &Handle) -> Vec<u32> {
    let (inner, instance) = (Arc::clone(inner), handle.instance);
    super::run_blocking(move || proc_fs::with_environment(&environment::marks(instance, &inner.dir))).await
}

/// Signals the group while its first process is the one we know: a group keeps its number as long as that lives.
fn signal_group(handle: &Handle, signal: Signal) -> Result<(), Error> {
    let Some(process) = handle.process.as_ref().filter(|p| proc_fs::is_alive(p)) else {
        return Ok(());
    };
    let Some(group) = i32::try_from(process.pid).ok().and_then(Pid::from_raw) else {
        return Ok(());
    };
    match kill_process_group(group, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(Error::Signal {
            instance: handle.instance,
            source: error.into(),
        }),
    }
}

fn kill_marked(inner: &Inner, handle: &Handle, pids: &[u32]) {
    let marks = environment::marks(handle.instance, &inner.dir);
    for pid in pids {
        let Some(number) = i32::try_from(*pid).ok().and_then(Pid::from_raw) else {
            continue;
        };
        // The descriptor first, then the marks again: so the number cannot have changed hands.
        let Ok(pidfd) = pidfd_open(number, PidfdFlags::empty()) else {
            continue;
        };
        if proc_fs::has_environment(*pid, &marks) {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
    }
}
