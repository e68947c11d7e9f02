//! Publishing: the next version of a workflow, if nothing speaks against it.

use darkroom_core::{BlobKey, Payload};
use darkroom_store::workflows::NewVersion;

use super::{Definition, Outcome, Publication, Publishing, WorkflowKey};
use crate::{
    beside::beside,
    service::{Error, Service},
};

impl Service {
    /// Publishes the next version; durable when this returns. `size`: about how large the request was, in bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown endpoint, or the stores' own.
    pub async fn publish(
        &self,
        publishing: Publishing,
        publication: Publication,
        size: usize,
    ) -> Result<Outcome, Error> {
        let tenant = &publishing.workflow.tenant;
        let (definition, findings) = self.check_publication(tenant, &publication, size).await?;
        let Some(definition) = definition else {
            return Ok(Outcome::Refused(findings));
        };
        let key = publishing.workflow;
        let payload = self.place_definition(&key, definition).await?;
        let written = payload.blob().cloned();
        let version = NewVersion {
            workflow: key,
            endpoint: publication.endpoint,
            note: publishing.note,
            by: publishing.by,
            definition: payload,
            alias: publishing.alias,
            from_draft: publishing.from_draft,
        };
        match self.store.publish(version).await {
            Ok(newly) => Ok(Outcome::Published { newly, findings }),
            Err(error) => {
                self.discard(written.into_iter().collect()).await;
                Err(error.into())
            }
        }
    }

    async fn place_definition(&self, key: &WorkflowKey, definition: Definition) -> Result<Payload, Error> {
        let size = usize::MAX;
        let json = beside(size, move || serde_json::to_vec(&definition)).await;
        let json = json.map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        self.place_input(self.definition_key(key)?, json.into()).await
    }

    /// A key for what a version or a draft holds.
    pub(super) fn definition_key(&self, key: &WorkflowKey) -> Result<BlobKey, Error> {
        let text = format!("workflows/{}/{}/definition.json", key.tenant, self.ids.uuid_v7());
        text.parse().map_err(|e| Error::Internal(anyhow::Error::new(e)))
    }
}
