//! What can go wrong with an instance. The texts are the reasons an operator reads.

use std::{fmt, io, path::PathBuf, time::Duration};

use darkroom_core::InstanceId;

use crate::ExitInfo;

/// Why an instance did not come up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its program cannot be run.
    #[error("cannot run '{program}': {source}")]
    Program {
        /// The first word of its command.
        program: String,
        /// The system's error.
        source: io::Error,
    },
    /// Its command cannot be used.
    #[error("the command of the endpoint {0}")]
    Command(String),
    /// Its directories cannot be made.
    #[error("cannot prepare {}: {source}", path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// An instance of this id was started before.
    #[error("instance {0} was started before")]
    Exists(InstanceId),
    /// No free port was found.
    #[error("no free port for the instance")]
    NoPort,
    /// It ended before it answered.
    #[error("{} before it was ready{}", .0.how, LastLines(&.0.last_lines))]
    Exited(ExitInfo),
    /// It did not answer in time.
    #[error("not ready after {timeout:?}: {last_answer}{}", LastLines(.last_lines))]
    NotReady {
        /// How long it had.
        timeout: Duration,
        /// What its port said last.
        last_answer: String,
        /// The last lines it printed.
        last_lines: String,
    },
}

/// A failed operation on an instance.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is running, although it should not be.
    #[error("instance {0} is still running")]
    StillRunning(InstanceId),
    /// It could not be signalled.
    #[error("cannot signal instance {instance}")]
    Signal {
        /// Which.
        instance: InstanceId,
        /// The system's error.
        source: io::Error,
    },
    /// Its files cannot be read or removed.
    #[error("cannot use {}", path.display())]
    Files {
        /// Which.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// Appends the last lines of a log to a reason, when there are any.
pub(crate) fn write_last_lines(f: &mut fmt::Formatter<'_>, lines: &str) -> fmt::Result {
    if lines.is_empty() {
        Ok(())
    } else {
        write!(f, "; its last lines:\n{lines}")
    }
}

struct LastLines<'a>(&'a str);

impl fmt::Display for LastLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_last_lines(f, self.0)
    }
}
