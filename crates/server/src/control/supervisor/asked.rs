//! What is asked of a ComfyUI that runs, beside its prompts: to give memory back, and what its models say of themselves.

use darkroom_instances::Handle;
use serde_json::Value;
use tokio::sync::oneshot;

use super::Task;
use crate::service::{models::ModelFile, resources::Free};

/// Asks that wait for one instance; beyond that nobody is answered.
pub(super) const MOST_ASKS: usize = 64;

/// One of them.
#[derive(Debug)]
pub enum Ask {
    /// To give memory back; nobody confirms it.
    Free(Free),
    /// What a model's file says of itself.
    ModelMetadata {
        /// Which.
        file: ModelFile,
        /// `None`: it says nothing, or is not there.
        answer: oneshot::Sender<Option<Value>>,
    },
}

impl Task {
    /// Passes on what is asked, one after the other; never resolves. What was asked before the instance answered is asked then.
    pub(super) async fn answer_asks(&self, handle: &Handle) {
        let mut asked = self.asked.lock().await;
        while let Some(ask) = asked.recv().await {
            if let Err(error) = self.pass_on(handle, ask).await {
                tracing::warn!(instance.id = %self.id, error = ?error, "an instance could not be asked");
            }
        }
        std::future::pending().await
    }

    async fn pass_on(&self, handle: &Handle, ask: Ask) -> anyhow::Result<()> {
        let client = self.client(handle)?;
        match ask {
            Ask::Free(what) => client.free(what.unload_models, what.free_memory).await?,
            // Who asked may have left.
            Ask::ModelMetadata { answer, .. } if answer.is_closed() => {}
            Ask::ModelMetadata { file, answer } => {
                let told = client.model_metadata(&file.folder, &file.name).await?;
                let _ = answer.send(told);
            }
        }
        Ok(())
    }
}
