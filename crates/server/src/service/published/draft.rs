//! Drafts: a publication that is kept and not called, with mistakes in it if need be.

use darkroom_comfy::published::Finding;
use darkroom_core::Timestamp;

use super::{Publication, WorkflowKey};
use crate::service::{Error, Service};

impl Service {
    /// Keeps a draft in place of an older one, and says what would be found at its publish.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown endpoint, or the stores' own.
    pub async fn put_draft(
        &self,
        key: &WorkflowKey,
        draft: Publication,
        size: usize,
    ) -> Result<Vec<Finding>, Error> {
        let (_, findings) = self.check_publication(&key.tenant, &draft, size).await?;
        let json = serde_json::to_vec(&draft).map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        let payload = self.place_input(self.definition_key(key)?, json.into()).await?;
        let written = payload.blob().cloned();
        if let Err(error) = self.store.put_draft(key, payload).await {
            self.discard(written.into_iter().collect()).await;
            return Err(error.into());
        }
        Ok(findings)
    }

    /// The draft of a workflow, and when it was written.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it has none.
    pub async fn draft(&self, key: &WorkflowKey) -> Result<(Timestamp, Publication), Error> {
        let none = || Error::not_found("draft of workflow", &key.id);
        let (at, payload) = self.store.draft(key).await?.ok_or_else(none)?;
        let bytes = self.read_payload(&payload).await?.ok_or_else(none)?;
        let draft = serde_json::from_slice(&bytes).map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        Ok((at, draft))
    }

    /// Throws a draft away.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none.
    pub async fn remove_draft(&self, key: &WorkflowKey) -> Result<(), Error> {
        match self.store.remove_draft(key).await? {
            true => Ok(()),
            false => Err(Error::not_found("draft of workflow", &key.id)),
        }
    }
}
