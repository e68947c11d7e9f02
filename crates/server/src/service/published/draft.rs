//! Drafts: a publication that is kept and not called, with mistakes in it if need be.

use darkroom_comfy::published::Finding;
use darkroom_core::Timestamp;

use super::{Actor, Denied, Publication, WorkflowKey};
use crate::{
    beside::beside,
    service::{Error, Service},
};

impl Service {
    /// Keeps a draft in place of an older one, and says what would be found at its publish.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown endpoint, [`Denied`], or the stores' own.
    pub async fn put_draft(
        &self,
        actor: &Actor,
        key: &WorkflowKey,
        draft: Publication,
        size: usize,
    ) -> Result<Vec<Finding>, Denied> {
        self.own_or_new(actor, key, &draft.endpoint).await?;
        let checked = self.check_publication(&key.tenant, &draft, size).await?;
        let endpoint = draft.endpoint.clone();
        let payload = self.place_as_json(key, draft, size).await?;
        let written = payload.blob().cloned();
        if let Err(error) = self.store.put_draft(key, &endpoint, payload).await {
            self.discard(written.into_iter().collect()).await;
            return Err(Error::from(error).into());
        }
        Ok(checked.findings)
    }

    /// The draft of a workflow, and when it was written.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it has none, [`Denied`].
    pub async fn draft(&self, actor: &Actor, key: &WorkflowKey) -> Result<(Timestamp, Publication), Denied> {
        self.own_workflow(actor, key).await?;
        let none = || Error::not_found("draft of workflow", &key.id);
        let (at, payload) = self
            .store
            .draft(key)
            .await
            .map_err(Error::from)?
            .ok_or_else(none)?;
        let bytes = self.read_payload(&payload).await?.ok_or_else(none)?;
        let parsed = beside(bytes.len(), move || serde_json::from_slice(&bytes)).await;
        let draft: Publication = parsed.map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        // One from before its endpoint was noted beside it.
        actor.may_change(None, Some(&draft.endpoint))?;
        Ok((at, draft))
    }

    /// Throws a draft away.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, [`Denied`].
    pub async fn remove_draft(&self, actor: &Actor, key: &WorkflowKey) -> Result<(), Denied> {
        self.own_workflow(actor, key).await?;
        match self.store.remove_draft(key).await.map_err(Error::from)? {
            true => Ok(()),
            false => Err(Error::not_found("draft of workflow", &key.id).into()),
        }
    }
}
