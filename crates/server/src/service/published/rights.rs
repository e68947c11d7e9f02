//! Who may see a workflow, and who may change it: one rule for whatever is done with it.
//!
//! - A **version** is seen by who may call or publish on its endpoint, a **workflow** by who sees one of its versions, a
//!   **draft** by who may publish on its endpoint. What is not seen is as unknown as what never was.
//! - A workflow is **changed** (published, drafted, imported, its aliases moved) and taken out as a whole (exported, its
//!   history told) by who may publish on *every* endpoint that its versions and its draft name, and on the one that the change
//!   names: a key of one endpoint never takes over what serves another.

use std::sync::Arc;

use darkroom_core::{
    EndpointName,
    workflow::{AliasName, Version},
};

use super::{AliasRecord, Loaded, Unknown, WorkflowKey, WorkflowRecord};
use crate::service::{Error, Service};

/// Whether something may be done on an endpoint.
pub type MayOn = Arc<dyn Fn(&EndpointName) -> bool + Send + Sync>;

/// Somebody who does something with workflows.
#[derive(Clone)]
pub struct Actor {
    /// The name of their key, for the record.
    pub by: String,
    /// Where they may publish.
    pub publishes: MayOn,
    /// Where they may call.
    pub calls: MayOn,
}

/// Why somebody does not get to change a workflow.
#[derive(Debug, thiserror::Error)]
pub enum Denied {
    /// It has to do with an endpoint that they may not publish on.
    #[error("it runs on the endpoint '{0}', on which this key may not publish")]
    Endpoint(EndpointName),
    /// The id belongs to a workflow that they do not see.
    #[error("this id is taken by a workflow on an endpoint that this key may not use")]
    Taken,
    /// Something else went wrong.
    #[error(transparent)]
    Service(#[from] Error),
}

impl Actor {
    /// Whether they see what runs on this endpoint.
    pub fn sees(&self, endpoint: &EndpointName) -> bool {
        (self.calls)(endpoint) || (self.publishes)(endpoint)
    }

    /// Whether they see a workflow.
    pub fn sees_workflow(&self, record: &WorkflowRecord) -> bool {
        record.endpoints.iter().any(|endpoint| self.sees(endpoint)) || self.sees_draft(record)
    }

    /// Whether they see a workflow's draft.
    pub fn sees_draft(&self, record: &WorkflowRecord) -> bool {
        draft_of(record).is_some_and(|endpoint| (self.publishes)(&endpoint))
    }

    /// The aliases whose versions they see.
    pub fn seen_aliases<'a>(&'a self, record: &'a WorkflowRecord) -> impl Iterator<Item = &'a AliasRecord> {
        record.aliases.iter().filter(|one| self.sees(&one.endpoint))
    }

    /// Goes on only where they may change a workflow so that it also runs on `to`.
    ///
    /// # Errors
    /// [`Denied::Endpoint`].
    pub fn may_change(
        &self,
        record: Option<&WorkflowRecord>,
        to: Option<&EndpointName>,
    ) -> Result<(), Denied> {
        let versions = record
            .into_iter()
            .flat_map(|record| record.endpoints.iter().cloned());
        let all = to.cloned().into_iter().chain(versions);
        let mut all = all.chain(record.and_then(draft_of));
        match all.find(|endpoint| !(self.publishes)(endpoint)) {
            Some(foreign) => Err(Denied::Endpoint(foreign)),
            None => Ok(()),
        }
    }
}

/// The endpoint of a draft, if there is one; of one from before it was noted, a name that only those hold who hold all.
fn draft_of(record: &WorkflowRecord) -> Option<EndpointName> {
    record.draft_at?;
    Some(
        record
            .draft_endpoint
            .clone()
            .unwrap_or_else(EndpointName::no_such),
    )
}

impl Service {
    /// A workflow, to somebody who sees it.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn seen_workflow(&self, actor: &Actor, key: &WorkflowKey) -> Result<WorkflowRecord, Error> {
        let found = self.store.workflow(key).await?;
        let seen = found.filter(|record| actor.sees_workflow(record));
        seen.ok_or_else(|| Error::not_found("workflow", &key.id))
    }

    /// A version that is there, to somebody who sees it; see [`Service::load_workflow`].
    ///
    /// # Errors
    /// [`Unknown`]; what else the workflow has is told of what the asker sees.
    pub async fn seen_version(
        &self,
        actor: &Actor,
        key: &WorkflowKey,
        version: Option<Version>,
        alias: Option<&AliasName>,
    ) -> Result<Loaded, Unknown> {
        match self.load_workflow(key, version, alias).await {
            Ok(loaded) if actor.sees(&loaded.record.endpoint) => return Ok(loaded),
            Err(Unknown::Service(error)) => return Err(Unknown::Service(error)),
            Ok(_) | Err(_) => {}
        }
        let workflow = key.id.to_string();
        let record = match self.seen_workflow(actor, key).await {
            Ok(record) if record.latest.is_some() => record,
            Ok(_) | Err(Error::NotFound { .. }) => return Err(Unknown::Workflow(workflow)),
            Err(error) => return Err(Unknown::Service(error)),
        };
        Err(match version {
            Some(version) => Unknown::Version {
                workflow,
                version: version.to_string(),
            },
            None => Unknown::Alias {
                workflow,
                alias: alias.cloned().unwrap_or_else(AliasName::main).to_string(),
                others: actor
                    .seen_aliases(&record)
                    .map(|one| one.name.to_string())
                    .collect(),
            },
        })
    }

    /// A workflow that is to be changed, or taken out as a whole. To who does not see it, it is not there.
    ///
    /// # Errors
    /// [`Denied`].
    pub(super) async fn own_workflow(
        &self,
        actor: &Actor,
        key: &WorkflowKey,
    ) -> Result<WorkflowRecord, Denied> {
        let record = self.seen_workflow(actor, key).await?;
        actor.may_change(Some(&record), None)?;
        Ok(record)
    }

    /// Before a workflow, which may not be there yet, gets something that runs on `to`.
    ///
    /// # Errors
    /// [`Denied`].
    pub(super) async fn own_or_new(
        &self,
        actor: &Actor,
        key: &WorkflowKey,
        to: &EndpointName,
    ) -> Result<Option<WorkflowRecord>, Denied> {
        let record = self.store.workflow(key).await.map_err(Error::from)?;
        actor.may_change(None, Some(to))?;
        if record.as_ref().is_some_and(|record| !actor.sees_workflow(record)) {
            return Err(Denied::Taken);
        }
        actor.may_change(record.as_ref(), None)?;
        Ok(record)
    }
}
