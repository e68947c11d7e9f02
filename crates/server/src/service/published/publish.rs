//! Publishing: the next version of a workflow, if nothing speaks against it.

use darkroom_core::{BlobKey, Payload};
use darkroom_store::workflows::{Content, NewVersion};
use serde::Serialize;

use super::{Actor, Denied, Outcome, Publication, Publishing, WorkflowKey, check_texts};
use crate::{
    beside::beside,
    service::{Error, Service},
};

/// The longest version or draft, as it is stored: each call works on a copy of it.
const MAX_DEFINITION_BYTES: usize = 8 << 20;

impl Service {
    /// Publishes the next version; durable when this returns. `size`: about how large the request was, in bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`] for an unknown endpoint, [`Denied`], or the stores' own.
    pub async fn publish(
        &self,
        actor: &Actor,
        publishing: Publishing,
        publication: Publication,
        size: usize,
    ) -> Result<Outcome, Denied> {
        let key = publishing.workflow;
        self.own_or_new(actor, &key, &publication.endpoint).await?;
        check_texts(&[&publishing.note])?;
        let checked = self.check_publication(&key.tenant, &publication, size).await?;
        let (definition, findings) = match checked.good() {
            Ok(good) => good,
            Err(findings) => return Ok(Outcome::Refused(findings)),
        };
        let payload = self.place_as_json(&key, definition, usize::MAX).await?;
        let written = payload.blob().cloned();
        let version = NewVersion {
            workflow: key,
            content: Content {
                endpoint: publication.endpoint,
                note: publishing.note,
                definition: payload,
            },
            by: actor.by.clone(),
            alias: publishing.alias,
            from_draft: publishing.from_draft,
        };
        match self.store.publish(version).await {
            Ok(newly) => Ok(Outcome::Published { newly, findings }),
            Err(error) => {
                self.discard(written.into_iter().collect()).await;
                Err(Error::from(error).into())
            }
        }
    }

    /// What a version or a draft holds, where it is stored; `size`: about how large it is, in bytes.
    pub(super) async fn place_as_json<T: Serialize + Send + 'static>(
        &self,
        key: &WorkflowKey,
        holds: T,
        size: usize,
    ) -> Result<Payload, Error> {
        let json = beside(size, move || serde_json::to_vec(&holds)).await;
        let json = json.map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        if json.len() > MAX_DEFINITION_BYTES {
            return Err(Error::TooLarge {
                what: "the workflow (files belong into inputs)",
                limit_bytes: MAX_DEFINITION_BYTES as u64,
            });
        }
        self.place_input(self.definition_key(key)?, json.into()).await
    }

    fn definition_key(&self, key: &WorkflowKey) -> Result<BlobKey, Error> {
        let text = format!("workflows/{}/{}/definition.json", key.tenant, self.ids.uuid_v7());
        text.parse().map_err(|e| Error::Internal(anyhow::Error::new(e)))
    }
}
