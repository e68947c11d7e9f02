//! A graph that nobody but the asker is interested in: run, waited for, and taken back when that takes too long.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Client, Error};
use crate::wire::{HistoryEntry, PromptRequest};

/// Between two looks whether it has run.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Client {
    /// Runs a graph under an id that was never used and returns what became of it. It waits as long as that takes, also
    /// while the instance is too busy to answer; who gives up drops it, and may [`empty`](Client::empty) the instance.
    ///
    /// # Errors
    /// [`Error::Rejected`], or when the instance cannot be reached.
    pub async fn run(&self, graph: &Value, id: &str) -> Result<HistoryEntry, Error> {
        let request = PromptRequest {
            prompt: graph,
            prompt_id: id,
            client_id: id,
            extra_data: Map::new(),
            partial_execution_targets: None,
        };
        match self.submit(&request).await {
            // Older versions choose ids of their own.
            Ok(reply) => self.ended(&reply.prompt_id).await,
            // It may have been queued nevertheless.
            Err(error) if is_slow(&error) => self.ended(id).await,
            Err(error) => Err(error),
        }
    }

    /// Waits for the end of a prompt, as [`run`](Client::run) does.
    ///
    /// # Errors
    /// When the instance cannot be reached.
    pub async fn ended(&self, id: &str) -> Result<HistoryEntry, Error> {
        loop {
            match self.history(id).await {
                Ok(Some(entry)) => return Ok(entry),
                Ok(None) => {}
                Err(error) if is_slow(&error) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes out whatever waits, interrupts what runs, and waits until nothing does either; who gives up drops it. For an
    /// instance of which all prompts are the asker's, whichever ids its version gave them.
    ///
    /// # Errors
    /// When the instance cannot be reached.
    pub async fn empty(&self) -> Result<(), Error> {
        loop {
            match self.emptied().await {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(error) if is_slow(&error) => {}
                Err(error) => return Err(error),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn emptied(&self) -> Result<bool, Error> {
        let queue = self.queue().await?;
        let waiting: Vec<&str> = queue.pending.iter().map(|item| item.prompt_id.as_str()).collect();
        if !waiting.is_empty() {
            self.delete_queued(&waiting).await?;
        }
        for item in &queue.running {
            self.interrupt(&item.prompt_id).await?;
        }
        Ok(waiting.is_empty() && queue.running.is_empty())
    }
}

/// A busy instance holds Python's interpreter while it loads a model: it answers later (`comfyui/behaviour.md` §1).
fn is_slow(error: &Error) -> bool {
    matches!(error, Error::Timeout { .. } | Error::Transport { .. })
}
