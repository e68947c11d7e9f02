//! What became of a prompt.

use std::fmt;
use std::time::Duration;

use crate::wire::{ExecutionError, HistoryEntry};

/// The end of a session. `Lost` is never an end of the prompt's own making: it may be tried again.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Succeeded {
        history: Box<HistoryEntry>,
    },
    /// The graph failed; what it made before is in the history.
    Failed {
        error: Box<ExecutionError>,
        history: Box<HistoryEntry>,
    },
    Interrupted {
        history: Box<HistoryEntry>,
    },
    Lost {
        reason: LostReason,
    },
}

/// The evidence for taking a prompt as lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LostReason {
    /// The worker thread of the instance does not take prompts any more.
    WorkerDead,
    /// The instance knows the prompt neither as queued nor as done.
    Gone,
    Stalled {
        silent: Duration,
    },
    Unreachable {
        since: Duration,
    },
    /// It takes connections and answers nothing, although nothing of ours runs.
    Unanswered {
        since: Duration,
    },
    /// What answers is no ComfyUI.
    Garbage {
        since: Duration,
    },
    /// The caller saw the process or pod end.
    InstanceDied {
        how: String,
    },
}

impl Verdict {
    /// The history entry, if the prompt came to an end.
    pub fn history(&self) -> Option<&HistoryEntry> {
        match self {
            Self::Succeeded { history } | Self::Failed { history, .. } | Self::Interrupted { history } => {
                Some(history)
            }
            Self::Lost { .. } => None,
        }
    }
}

impl fmt::Display for LostReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WorkerDead => f.write_str("the instance answers but its worker thread is dead"),
            Self::Gone => f.write_str("the instance has the prompt neither in its queue nor in its history"),
            Self::Stalled { silent } => write!(f, "no sign of life for {} s", silent.as_secs()),
            Self::Unreachable { since } => {
                write!(f, "the instance refused connections for {} s", since.as_secs())
            }
            Self::Unanswered { since } => {
                write!(
                    f,
                    "the instance takes connections and has answered nothing for {} s",
                    since.as_secs()
                )
            }
            Self::Garbage { since } => {
                write!(
                    f,
                    "the instance has given answers of no ComfyUI for {} s",
                    since.as_secs()
                )
            }
            Self::InstanceDied { how } => write!(f, "the instance ended: {how}"),
        }
    }
}

/// Reads the verdict off a history entry. `announced` says how the messages announced the end, for instances
/// whose entries have no status.
pub(super) fn from_history(entry: HistoryEntry, announced: Option<Announced>) -> Option<Verdict> {
    let succeeded = entry.succeeded().or(match &announced {
        Some(Announced::Success) => Some(true),
        Some(Announced::Error(_) | Announced::Interrupted) => Some(false),
        None => None,
    })?;
    if succeeded {
        return Some(Verdict::Succeeded {
            history: Box::new(entry),
        });
    }
    if let Some(error) = entry.error() {
        return Some(Verdict::Failed {
            error: Box::new(error),
            history: Box::new(entry),
        });
    }
    let history = Box::new(entry);
    Some(match announced {
        _ if history.was_interrupted() => Verdict::Interrupted { history },
        Some(Announced::Interrupted) => Verdict::Interrupted { history },
        Some(Announced::Error(error)) => Verdict::Failed { error, history },
        Some(Announced::Success) | None => Verdict::Failed {
            error: unexplained(),
            history,
        },
    })
}

/// How the messages announced the end of a prompt.
#[derive(Clone, Debug)]
pub(super) enum Announced {
    Success,
    Error(Box<ExecutionError>),
    Interrupted,
}

fn unexplained() -> Box<ExecutionError> {
    let message = "the instance reports a failure without saying which".to_owned();
    Box::new(ExecutionError {
        exception_message: Some(message),
        ..ExecutionError::default()
    })
}
