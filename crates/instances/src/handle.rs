//! What must be remembered of a started instance to find it again.

use std::path::PathBuf;

use darkroom_core::{EndpointName, InstanceId};
use serde::{Deserialize, Serialize};

/// A started instance, as kept in its database row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// Which.
    pub instance: InstanceId,
    /// The endpoint it serves.
    pub endpoint: EndpointName,
    /// Where its ComfyUI answers, without a slash at the end: `http://127.0.0.1:20123`.
    pub base_url: String,
    /// Its directories, when this machine can reach them.
    #[serde(default)]
    pub dirs: Option<Dirs>,
    /// What it prints, when that is a file of this machine.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// The process, when it is one of this machine; `None` also while it is being spawned.
    #[serde(default)]
    pub process: Option<ProcessIdentity>,
    /// Somebody else runs it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub remote: bool,
}

/// The directories of one instance; no other has the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dirs {
    /// Files a graph may load.
    pub input: PathBuf,
    /// Files a graph saved.
    pub output: PathBuf,
    /// Previews; ComfyUI empties it when it starts.
    pub temp: PathBuf,
    /// ComfyUI's settings and its database.
    pub user: PathBuf,
    /// The working directory, unless the endpoint names one.
    pub work: PathBuf,
}

/// What tells a process from every other that ever has its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Process id, and the id of the process group it leads.
    pub pid: u32,
    /// When it started, in clock ticks since the boot (field 22 of `/proc/PID/stat`).
    pub start_time_ticks: u64,
    /// Which boot of the machine that was.
    pub boot_id: String,
}
