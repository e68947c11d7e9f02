//! Starting, recognising, watching and ending the instances that run jobs, or only using those that others run.
//!
//! An instance outlives the server that started it: after a crash the next server recognises it by its [`Handle`] and
//! goes on using it; what it does not recognise it leaves alone. This crate deliberately does not know when to start
//! or stop (the planner), how often to try again (the planner), what an instance is asked to do (the runner), or where
//! handles are kept (the store).
//!
//! Start with [`InstanceBackend`], then [`ProcessBackend`] and [`RemoteBackend`].

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::{
    EndpointName, InstanceId,
    endpoint::{ProcessSpec, RemoteServer},
};

mod backends;
#[cfg(test)]
mod conformance;
mod error;
mod handle;
mod process;
mod remote;

pub use backends::Backends;
pub use error::{Error, StartError};
pub use handle::{Dirs, Handle, ProcessIdentity};
pub use process::{ProcessBackend, ProcessConfig};
pub use remote::{RemoteBackend, Servers};

/// A way to run instances.
#[async_trait]
pub trait InstanceBackend: Send + Sync {
    /// Starts an instance; it does not answer yet. Once this began, [`InstanceBackend::find`] finds what it started,
    /// also when the caller or the whole server dies before it returns.
    ///
    /// # Errors
    /// [`StartError`] when nothing could be started; then nothing is left running.
    async fn start(&self, request: StartRequest) -> Result<Handle, StartError>;

    /// Waits until the instance answers `GET /system_stats`, or exits, or `timeout` is over. Does not stop it.
    ///
    /// # Errors
    /// [`StartError::Exited`] or [`StartError::NotReady`], with the last lines of its log.
    async fn wait_ready(&self, handle: &Handle, timeout: Duration) -> Result<(), StartError>;

    /// Whether the instance of a handle, perhaps started by an earlier server, is running.
    async fn recognise(&self, handle: &Handle) -> Recognition;

    /// Waits until the instance is gone; at once when it is.
    async fn exited(&self, handle: &Handle) -> ExitInfo;

    /// Asks the instance and all it started to end, and after `grace` ends them by force. Returns when they are gone;
    /// touches nothing it does not recognise. What somebody else runs is let go, and runs on.
    ///
    /// # Errors
    /// [`Error::StillRunning`] when even force did not end it, [`Error::Signal`].
    async fn stop(&self, handle: &Handle, grace: Duration) -> Result<(), Error>;

    /// The last `tail_bytes` of what the instance printed, as it printed it.
    ///
    /// # Errors
    /// [`Error::Files`].
    async fn logs(&self, handle: &Handle, tail_bytes: u64) -> Result<Bytes, Error>;

    /// Shortens the log to its newer half when it is longer than `max_bytes`, while the instance keeps writing.
    ///
    /// # Errors
    /// [`Error::Files`].
    async fn trim_logs(&self, handle: &Handle, max_bytes: u64) -> Result<(), Error>;

    /// Removes the directories and the log of an instance that is gone.
    ///
    /// # Errors
    /// [`Error::StillRunning`] when it is not gone, [`Error::Files`].
    async fn remove_files(&self, handle: &Handle) -> Result<(), Error>;

    /// What the instance and all it started use now; `None` when it is gone, or runs elsewhere.
    async fn usage(&self, handle: &Handle) -> Option<Usage>;

    /// What was started under this id, when the row of the instance holds no handle because the server died between
    /// starting it and storing that.
    ///
    /// # Errors
    /// [`Error::Files`].
    async fn find(&self, instance: InstanceId) -> Result<Option<Handle>, Error>;

    /// What is left, running or not, of instances that are not among `known`: to be stopped, and their files removed.
    ///
    /// # Errors
    /// [`Error::Files`].
    async fn orphans(&self, known: &[InstanceId]) -> Result<Vec<Handle>, Error>;
}

/// What to start.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// The id of the new instance.
    pub instance: InstanceId,
    /// The endpoint it serves.
    pub endpoint: EndpointName,
    /// Its `CUDA_VISIBLE_DEVICES`; `None`: as the server's own.
    pub gpu: Option<String>,
    /// How it is run.
    pub spec: Spec,
}

/// How an instance is run.
#[derive(Debug, Clone)]
pub enum Spec {
    /// As a process of this machine.
    Process(ProcessSpec),
    /// Somebody else runs it.
    Remote(RemoteServer),
}

/// Whether an instance is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recognition {
    /// The very one of the handle is running.
    Alive,
    /// It is not, whatever may have its process id now.
    Gone,
}

/// How an instance ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitInfo {
    /// How.
    pub how: Exit,
    /// The last lines it printed, at most 20 and 2 KiB, without control characters and secrets of its environment.
    pub last_lines: String,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// It cannot be reached; it may run on. Why is the last line.
    Unreachable,
    /// Not known: it was started by an earlier server, and only its parent is told.
    Unknown,
}

/// What an instance uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory of all its processes in bytes; memory they share is counted for each.
    pub rss_bytes: u64,
    /// Processor time its running processes have used.
    pub cpu: Duration,
    /// How many processes it is.
    pub processes: u32,
}

impl std::fmt::Display for Exit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with code {code}"),
            // The kernel's out-of-memory killer is what most often sends this one.
            Exit::Signal(9) => f.write_str("was killed (signal 9; out of memory?)"),
            Exit::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Exit::Unreachable => f.write_str("cannot be reached"),
            Exit::Unknown => f.write_str("exited"),
        }
    }
}

impl std::fmt::Display for ExitInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.how.fmt(f)?;
        if self.how == Exit::Unreachable {
            return write!(f, ": {}", self.last_lines);
        }
        error::write_last_lines(f, &self.last_lines)
    }
}
