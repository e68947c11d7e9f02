//! What a SQLite store needs from outside, and what tests replace.

use std::{path::Path, sync::Arc};

use darkroom_core::{Clock, EndpointName, JobState};

/// Submits are refused when less than this is free (512 MB); results are still accepted.
pub const DISK_RESERVE_BYTES: u64 = 512 * 1024 * 1024;

/// Called at a named point of the writer's work; tests kill the process there.
pub type Failpoint = Arc<dyn Fn(&'static str) + Send + Sync>;
/// Called when the database can no longer be trusted to keep what it acknowledged.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;
/// Told of each commit.
pub type OnCommit = Arc<dyn Fn(Committed) + Send + Sync>;
/// Free bytes of the file system that holds a path.
pub type FreeSpace = Arc<dyn Fn(&Path) -> std::io::Result<u64> + Send + Sync>;

/// Syncs the file at a path.
pub type SyncFile = Arc<dyn Fn(&Path) -> std::io::Result<()> + Send + Sync>;

/// A disk of a test.
#[derive(Clone)]
pub struct FakeDisk {
    /// Name of the registered SQLite VFS.
    pub vfs: String,
    /// Syncs a file of it.
    pub sync: SyncFile,
}

/// How much a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// As each verb promises.
    Promised,
    /// Never sync: for tests that show what the promise is worth.
    Never,
}

/// One commit that succeeded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Operations in it.
    pub operations: usize,
    /// The time of the commit itself, with its sync where somebody waited for the disk.
    pub took: std::time::Duration,
    /// Whether somebody waited for the disk.
    pub durable: bool,
    /// What ended in it, whoever ended it.
    pub ended: Vec<Ended>,
}

/// An end that a commit recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// A job reached a final state.
    Job(EndpointName, JobState),
    /// An attempt was lost; its job may be tried again.
    LostAttempt(EndpointName),
}

/// How to open a store.
#[derive(Clone)]
pub struct Options {
    /// Decides leases and stamps rows.
    pub clock: Arc<dyn Clock>,
    /// Submits are refused below this many free bytes.
    pub disk_reserve_bytes: u64,
    /// Reads the free space.
    pub free_space: FreeSpace,
    /// What to do when a commit met an I/O error. After a failed fsync the kernel may have dropped the pages, so
    /// trying again could acknowledge what is not there: by default the process aborts, and recovery reads what is.
    pub fatal: Fatal,
    /// Points: `before_commit`, `commit_reply` (after COMMIT, before replies), `claim`, `record`.
    pub failpoint: Option<Failpoint>,
    /// Told of each commit.
    pub on_commit: Option<OnCommit>,
    /// Submits waiting for the writer; more get [`crate::Error::Busy`].
    pub max_waiting_submits: usize,
    /// Readers at the same time.
    pub readers: usize,
    /// Another disk than the real one, for tests that cut the power.
    pub disk: Option<FakeDisk>,
    /// For tests only.
    pub durability: Durability,
}

impl Options {
    /// The defaults, with the given clock.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Options {
            clock,
            disk_reserve_bytes: DISK_RESERVE_BYTES,
            free_space: Arc::new(free_space),
            fatal: Arc::new(|what| {
                tracing::error!(
                    what,
                    "the store cannot go on: aborting so that recovery reads what is on the disk"
                );
                std::process::abort();
            }),
            failpoint: None,
            on_commit: None,
            max_waiting_submits: 4096,
            readers: 4,
            disk: None,
            durability: Durability::Promised,
        }
    }
}

fn free_space(path: &Path) -> std::io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
