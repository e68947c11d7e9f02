//! Finding workflows and versions, and reading what a version holds.

use std::sync::Arc;

use darkroom_core::{
    TenantId,
    workflow::{AliasName, Version, WorkflowId},
};

use super::{
    Actor, Definition, Loaded, Resolved, Unknown, VersionRecord, Wanted, WorkflowKey, WorkflowRecord,
};
use crate::{
    beside::beside,
    service::{Error, Service},
};

/// Workflows looked at in one read.
const PAGE: u32 = 500;

impl Service {
    /// A page of a tenant's workflows, by id, of those that somebody sees, and the last id of the page where there may be
    /// more. Others are passed over without a trace.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn workflows(
        &self,
        actor: &Actor,
        tenant: &TenantId,
        after: Option<&WorkflowId>,
        limit: u32,
    ) -> Result<(Vec<WorkflowRecord>, Option<WorkflowId>), Error> {
        let limit = limit as usize;
        let mut seen: Vec<WorkflowRecord> = Vec::new();
        let mut after = after.cloned();
        loop {
            let page = self.store.workflows(tenant, after.as_ref(), PAGE).await?;
            let is_last = page.len() < PAGE as usize;
            after = page.last().map(|record| record.key.id.clone());
            seen.extend(page.into_iter().filter(|record| actor.sees_workflow(record)));
            if seen.len() > limit || is_last {
                break;
            }
        }
        let more = seen.len() > limit;
        seen.truncate(limit);
        let next = seen.last().map(|record| record.key.id.clone()).filter(|_| more);
        Ok((seen, next))
    }

    /// A page of a workflow's versions before `before`, newest first, as far as somebody sees them, and the last version of
    /// the page where there may be more.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn workflow_versions(
        &self,
        actor: &Actor,
        key: &WorkflowKey,
        before: Option<Version>,
        limit: u32,
    ) -> Result<(Vec<VersionRecord>, Option<Version>), Error> {
        let mut page = self.store.versions(key, before, limit).await?;
        let last = page.last().map(|record| record.version);
        let next = last.filter(|last| last.number() > 1 && page.len() >= limit as usize);
        page.retain(|record| actor.sees(&record.endpoint));
        Ok((page, next))
    }

    /// The version that is meant: an explicit one wins over an alias, and who names none means `main`.
    ///
    /// # Errors
    /// [`Unknown`].
    pub async fn load_workflow(
        &self,
        key: &WorkflowKey,
        version: Option<Version>,
        alias: Option<&AliasName>,
    ) -> Result<Loaded, Unknown> {
        let wanted = match (version, alias) {
            (Some(version), _) => Wanted::Version(version),
            (None, Some(alias)) => Wanted::Alias(alias.clone()),
            (None, None) => Wanted::Alias(AliasName::main()),
        };
        let resolved = self.store.resolve(key, &wanted).await.map_err(Error::from)?;
        match (resolved, wanted) {
            (Resolved::Found(version), _) => self.load_version(key, version).await,
            (Resolved::NoVersion, Wanted::Version(version)) => Err(Unknown::Version {
                workflow: key.id.to_string(),
                version: version.to_string(),
            }),
            (Resolved::NoAlias, Wanted::Alias(alias)) => {
                let record = self.store.workflow(key).await.map_err(Error::from)?;
                let others = record.into_iter().flat_map(|record| record.aliases);
                Err(Unknown::Alias {
                    workflow: key.id.to_string(),
                    alias: alias.to_string(),
                    others: others.map(|alias| alias.name.to_string()).collect(),
                })
            }
            (Resolved::NoWorkflow | Resolved::NoVersion | Resolved::NoAlias, _) => {
                Err(Unknown::Workflow(key.id.to_string()))
            }
        }
    }

    async fn load_version(&self, key: &WorkflowKey, version: Version) -> Result<Loaded, Unknown> {
        if let Some(known) = self.published.get(key, version) {
            return Ok(known);
        }
        let found = self.store.version(key, version).await.map_err(Error::from)?;
        let Some((record, payload)) = found else {
            return Err(Unknown::Workflow(key.id.to_string()));
        };
        let bytes = self.read_payload(&payload).await?;
        let bytes = bytes.ok_or_else(|| Error::not_found("definition of version", version))?;
        let size = bytes.len();
        let parsed = beside(size, move || serde_json::from_slice::<Definition>(&bytes)).await;
        let definition = parsed.map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        let loaded = Loaded {
            record,
            definition: Arc::new(definition),
            size,
        };
        self.published.put(key, &loaded);
        Ok(loaded)
    }
}
