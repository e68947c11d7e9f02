//! One slot of one instance: keeps the socket open, takes one attempt after the other.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use darkroom_comfy::{client, session::Failure};
use darkroom_core::{Clock, Ids};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    attempt::{self, After},
    backoff::Backoff,
    collect::{memory::OutputMemory, unmentioned::OutputWatch},
    config::{InstanceAccess, SlotConfig, SlotEnd},
    even_time::EvenTime,
    follow::death,
    gather::Shelf,
    inputs::UploadMemory,
    instance::{self, Instance},
    line::{Heard, Line},
    link::{Assignment, AttemptLink},
};

/// See the module. ComfyUI runs one prompt at a time, so an instance has one slot.
pub struct Slot {
    desk: Desk,
}

/// All that an attempt works with; lives as long as the instance.
pub struct Desk {
    pub(crate) instance: Instance,
    pub(crate) line: Line,
    pub(crate) link: Arc<dyn AttemptLink>,
    pub(crate) ids: Arc<dyn Ids>,
    pub(crate) time: EvenTime,
    pub(crate) config: SlotConfig,
    pub(crate) shelf: Shelf,
    pub(crate) uploads: UploadMemory,
    pub(crate) evidence: watch::Receiver<Option<String>>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
    pub(crate) collecting: Arc<Semaphore>,
}

impl Slot {
    /// A slot that has not spoken to its instance yet.
    ///
    /// # Errors
    /// The instance's address or headers are unusable.
    pub fn new(
        access: InstanceAccess,
        link: Arc<dyn AttemptLink>,
        clock: Arc<dyn Clock>,
        ids: Arc<dyn Ids>,
        config: SlotConfig,
    ) -> Result<Self, instance::Error> {
        let collecting = Arc::new(Semaphore::new(config.max_collecting));
        Ok(Slot {
            desk: Desk {
                instance: Instance::new(access, config.timeouts.clone())?,
                line: Line::default(),
                link,
                ids,
                time: EvenTime::new(clock),
                config,
                shelf: Shelf {
                    memory: Arc::new(Mutex::new(OutputMemory::default())),
                    watch: None,
                },
                uploads: UploadMemory::default(),
                evidence: watch::channel(None).1,
                shutdown: CancellationToken::new(),
                tasks: TaskTracker::new(),
                collecting,
            },
        })
    }

    /// Lets the instance's owner say, once it is sure, how the instance died (its process ended, its output says that
    /// the worker thread did). What runs is lost at once then, without waiting for timeouts.
    #[must_use]
    pub fn with_evidence(mut self, evidence: watch::Receiver<Option<String>>) -> Self {
        self.desk.evidence = evidence;
        self
    }

    /// The attempts of this slot whose outputs wait for the blob store. They outlive `run`: they need neither the
    /// instance nor its directories, only a runtime.
    pub fn collecting(&self) -> TaskTracker {
        self.desk.tasks.clone()
    }

    /// Runs until the link has no more work, `shutdown`, or the instance is of no use any more.
    ///
    /// Outputs that wait for the blob store do so on their own; see [`Slot::collecting`].
    ///
    /// On `shutdown` it returns at once: a running prompt goes on at the instance, its attempt stays as the store has it,
    /// and an assignment with `resume` takes it up again.
    pub async fn run(mut self, shutdown: CancellationToken) -> SlotEnd {
        self.desk.shutdown = shutdown;
        let end = self.desk.work().await;
        if let SlotEnd::InstanceBroken { reason } = &end {
            tracing::warn!(instance.id = %self.desk.instance.id, reason, "an instance is broken");
        }
        end
    }
}

impl Desk {
    /// Forgets what was known of the instance's files: it began anew.
    pub(crate) fn forget(&mut self) {
        self.uploads = UploadMemory::default();
        self.shelf.memory = Arc::new(Mutex::new(OutputMemory::default()));
    }

    async fn work(&mut self) -> SlotEnd {
        self.begin_watch().await;
        loop {
            let assignment = match self.next().await {
                Ok(Some(assignment)) => assignment,
                Ok(None) => return SlotEnd::Closed,
                Err(reason) => return SlotEnd::InstanceBroken { reason },
            };
            match attempt::run(self, assignment).await {
                After::Next => {}
                After::Broken(reason) => return SlotEnd::InstanceBroken { reason },
                After::Shutdown => return SlotEnd::Closed,
            }
        }
    }

    /// The next attempt, with the socket kept open while waiting for it.
    async fn next(&mut self) -> Result<Option<Assignment>, String> {
        let shutdown = self.shutdown.clone();
        // The socket first: what is claimed should run at once, and an instance that is gone should claim nothing.
        tokio::select! {
            opened = self.open() => opened?,
            () = shutdown.cancelled() => return Ok(None),
        }
        let link = Arc::clone(&self.link);
        // One call for the whole wait: dropping it could drop an attempt that was just claimed.
        let mut next = link.next();
        loop {
            tokio::select! {
                assignment = next.as_mut() => return Ok(assignment),
                heard = self.line.hear() => if matches!(heard, Heard::Closed) {
                    tokio::select! {
                        opened = self.open() => opened?,
                        assignment = next.as_mut() => return Ok(assignment),
                        () = shutdown.cancelled() => return Ok(None),
                    }
                },
                how = death(&mut self.evidence) => return Err(how),
                () = shutdown.cancelled() => return Ok(None),
            }
        }
    }

    /// Opens the socket, if it is not.
    async fn open(&mut self) -> Result<(), String> {
        if self.line.is_open() {
            return Ok(());
        }
        let began = self.time.now();
        let mut backoff = Backoff::new(Duration::from_millis(20), Duration::from_secs(1));
        loop {
            let connected = tokio::select! {
                connected = self.instance.connect() => connected,
                how = death(&mut self.evidence) => return Err(how),
            };
            match connected {
                Ok(socket) => {
                    self.line.opened(socket);
                    return Ok(());
                }
                Err(error) if self.time.now() >= began.plus(self.patience(&error)) => {
                    return Err(format!("no socket to the instance: {error}"));
                }
                Err(_) => tokio::time::sleep(backoff.next()).await,
            }
        }
    }

    /// A refused connection is nobody there; no answer may be a node that holds the interpreter.
    fn patience(&self, error: &client::Error) -> Duration {
        match error.failure() {
            Failure::Refused => self.config.unreachable_after,
            Failure::NoAnswer | Failure::Garbage => {
                self.config.unreachable_after.max(self.config.unanswered_after)
            }
        }
    }

    async fn begin_watch(&mut self) {
        let Some(dirs) = self.instance.dirs() else { return };
        let output = dirs.output.clone();
        match tokio::task::spawn_blocking(move || OutputWatch::begin(&output)).await {
            Ok(Ok(watch)) => self.shelf.watch = Some(Arc::new(Mutex::new(watch))),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the output directory of an instance cannot be read; files that history does not mention are not collected");
            }
            Err(_) => {}
        }
    }
}
