//! A graph that nobody but the asker is interested in: run, and waited for.

use std::time::Duration;

use serde_json::{Map, Value};

use super::{Client, Error};
use crate::wire::{HistoryEntry, PromptRequest};

/// Between two looks whether it has run.
const LOOK_EVERY: Duration = Duration::from_millis(200);

impl Client {
    /// Runs a graph under an id that was never used and returns what became of it. It waits as long as that takes; who
    /// gives up drops it.
    ///
    /// # Errors
    /// [`Error::Rejected`], or when the instance does not answer.
    pub async fn run(&self, graph: &Value, id: &str) -> Result<HistoryEntry, Error> {
        let request = PromptRequest {
            prompt: graph,
            prompt_id: id,
            client_id: id,
            extra_data: Map::new(),
            partial_execution_targets: None,
        };
        // Older versions choose ids of their own.
        let id = self.submit(&request).await?.prompt_id;
        loop {
            if let Some(entry) = self.history(&id).await? {
                return Ok(entry);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
