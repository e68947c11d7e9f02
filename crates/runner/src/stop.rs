//! Ending a prompt that is on an instance: out of its queue, or interrupted, and looked at again.

use std::time::Duration;

use darkroom_comfy::wire::HistoryEntry;
use darkroom_core::Timestamp;
use futures::future::{BoxFuture, Shared};

use darkroom_comfy::client;

use crate::{instance::Instance, link::StopCause};

/// ComfyUI's interrupt is a flag that can be missed: it is sent again this often until the prompt is over.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Resolves when the attempt should stop; may be asked again and again, also after it did.
pub type Stop<'a> = Shared<BoxFuture<'a, StopCause>>;

/// Why a prompt has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// A caller cancelled the job.
    Cancelled,
    /// Another attempt owns the job.
    Stale,
    /// It ran longer than it may.
    ExecutionTimeout,
}

/// What one try to end a prompt found.
#[derive(Debug)]
pub enum Tried {
    /// It was pending, and is neither pending nor running nor done now.
    Removed,
    /// It is done.
    Done(Box<HistoryEntry>),
    /// It was told, or it is not known (yet).
    Told,
}

/// The tries so far.
pub struct Stopping<'a> {
    /// Why.
    pub why: Why,
    /// After this the instance counts as stuck.
    pub deadline: Timestamp,
    /// The try in flight.
    pub trying: Option<BoxFuture<'a, Result<Tried, client::Error>>>,
    /// When to try again, if none is.
    pub again_at: Timestamp,
}

impl<'a> Stopping<'a> {
    /// Begins: the first try is due at once.
    pub fn new(why: Why, grace: Duration, now: Timestamp) -> Self {
        Stopping {
            why,
            deadline: now.plus(grace),
            trying: None,
            again_at: now,
        }
    }

    /// Starts a try if one is due.
    pub fn poll(&mut self, instance: &'a Instance, prompt_id: &str, now: Timestamp) {
        if self.trying.is_none() && self.again_at <= now {
            let prompt_id = prompt_id.to_owned();
            self.trying = Some(Box::pin(async move { end(instance, &prompt_id).await }));
        }
    }

    /// The try in flight ended without the prompt's end.
    pub fn tried(&mut self, now: Timestamp) {
        self.trying = None;
        self.again_at = now.plus(AGAIN_AFTER);
    }

    /// When to look again.
    pub fn wake_at(&self) -> Timestamp {
        match self.trying {
            Some(_) => self.deadline,
            None => self.deadline.min(self.again_at),
        }
    }
}

async fn end(instance: &Instance, prompt_id: &str) -> Result<Tried, client::Error> {
    let queue = instance.queue().await?;
    if queue.is_running(prompt_id) {
        instance.interrupt(prompt_id).await?;
        return Ok(Tried::Told);
    }
    let was_pending = queue.is_pending(prompt_id);
    if was_pending {
        instance.delete(prompt_id).await?;
    }
    // Deleting says nothing, and the prompt may have begun in between.
    let queue = instance.queue().await?;
    if queue.is_running(prompt_id) {
        instance.interrupt(prompt_id).await?;
        return Ok(Tried::Told);
    }
    if queue.is_pending(prompt_id) {
        return Ok(Tried::Told);
    }
    match instance.history(prompt_id).await? {
        Some(entry) => Ok(Tried::Done(Box::new(entry))),
        None if was_pending => Ok(Tried::Removed),
        None => Ok(Tried::Told),
    }
}
