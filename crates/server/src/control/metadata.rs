//! What models say of themselves: asked of an instance that runs, and remembered while the server does.

use std::{sync::PoisonError, time::Duration};

use darkroom_core::EndpointName;
use serde_json::Value;
use tokio::sync::oneshot;

use super::{Control, supervisor::Ask};
use crate::service::models::ModelFile;

/// How long one instance may take; one that starts does not answer at all.
const ANSWER: Duration = Duration::from_secs(5);
/// Files that are remembered; the page asks for those that somebody looks at.
const MOST_REMEMBERED: usize = 1_000;

impl Control {
    /// `None`: no instance that runs knows such a file, or it says nothing. Starts nothing.
    pub(super) async fn metadata_of(&self, endpoint: &EndpointName, file: &ModelFile) -> Option<Value> {
        let key = (endpoint.clone(), file.clone());
        if let Some(known) = self.metadata().get(&key) {
            return Some(known.clone());
        }
        let ways: Vec<_> = {
            let supervised = self.lock_supervised();
            supervised.values().filter_map(|one| one.asks(endpoint)).collect()
        };
        for way in ways {
            let (answer, told) = oneshot::channel();
            let file = file.clone();
            if way.try_send(Ask::ModelMetadata { file, answer }).is_err() {
                continue;
            }
            if let Ok(Ok(Some(told))) = tokio::time::timeout(ANSWER, told).await {
                let mut remembered = self.metadata();
                if remembered.len() == MOST_REMEMBERED {
                    remembered.clear();
                }
                remembered.insert(key, told.clone());
                return Some(told);
            }
        }
        None
    }

    fn metadata(&self) -> std::sync::MutexGuard<'_, super::Remembered> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
