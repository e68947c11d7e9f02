//! What a slot is told about its instance, and how patient it is.

use std::{path::PathBuf, time::Duration};

use darkroom_comfy::client::Timeouts;
use darkroom_core::InstanceId;

pub use crate::collect::places::Dirs;

/// How to reach one ComfyUI.
#[derive(Debug, Clone)]
pub struct InstanceAccess {
    /// The instance, as an attempt's row names it.
    pub instance: InstanceId,
    /// `http://host:port`, without a trailing slash.
    pub base_url: String,
    /// Sent with every request and with the WebSocket's handshake.
    pub headers: Vec<(String, String)>,
    /// Under which its one socket is opened. Stable for the instance's life and stored: ComfyUI sends events only there.
    pub client_id: String,
    /// Its directories, if they are on this machine and nobody else's.
    pub dirs: Option<Dirs>,
}

/// Waiting times and places of a slot.
#[derive(Debug, Clone)]
pub struct SlotConfig {
    /// Where files wait for the blob store; may be shared by slots, emptied with [`crate::clear_spool`] before the first
    /// slot runs.
    pub spool_dir: PathBuf,
    /// How long storing outputs may hold the slot before they are copied and the slot goes on.
    pub slot_hold: Duration,
    /// How long outputs may wait for the blob store before the attempt is given back.
    pub collect_timeout: Duration,
    /// Attempts that may wait for the blob store at once; the next one holds the slot.
    pub max_collecting: usize,
    /// Connections refused for this long: the instance is gone.
    pub unreachable_after: Duration,
    /// Nothing is answered for this long although nothing of ours runs: the instance is of no use.
    pub unanswered_after: Duration,
    /// What answers is no ComfyUI for this long: the same.
    pub garbage_after: Duration,
    /// Bounds in time of single requests.
    pub timeouts: Timeouts,
    /// Pending while nothing runs for this long: the instance's worker thread is dead.
    pub worker_dead_after: Duration,
    /// Silence of an instance that sends a file.
    pub download_patience: Duration,
    /// After `POST /free`: ComfyUI frees memory between prompts and does not say when it is done.
    pub free_pause: Duration,
}

impl SlotConfig {
    /// The usual values.
    pub fn new(spool_dir: impl Into<PathBuf>) -> Self {
        SlotConfig {
            spool_dir: spool_dir.into(),
            slot_hold: Duration::from_secs(5),
            collect_timeout: Duration::from_secs(3600),
            max_collecting: 8,
            unreachable_after: Duration::from_secs(5),
            unanswered_after: Duration::from_secs(60),
            garbage_after: Duration::from_secs(20),
            timeouts: Timeouts::default(),
            worker_dead_after: Duration::from_secs(10),
            download_patience: Duration::from_secs(60),
            free_pause: Duration::from_millis(500),
        }
    }
}

/// Why a slot stopped taking attempts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotEnd {
    /// It was asked to: no more work, or a shutdown. A running prompt goes on at the instance and can be adopted.
    Closed,
    /// The instance is of no use any more and should be replaced.
    InstanceBroken {
        /// The evidence, for the operator.
        reason: String,
    },
}
