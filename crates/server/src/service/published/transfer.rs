//! A workflow as one JSON file: all its versions and aliases, to be kept elsewhere or brought to another server.

use darkroom_comfy::graph::Graph;
use darkroom_core::{
    EndpointName,
    workflow::{AliasName, Version},
};
use darkroom_store::workflows::NewVersion;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Definition, Target, Unknown, WorkflowKey};
use crate::service::{Error, Service};

/// What the file says it is.
pub const FORMAT: &str = "darkroom.workflow/1";

/// A version in the file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct OneVersion {
    version: Version,
    endpoint: EndpointName,
    #[serde(default)]
    note: String,
    definition: Definition,
}

/// The file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WholeWorkflow {
    format: String,
    workflow_id: String,
    versions: Vec<OneVersion>,
    aliases: std::collections::BTreeMap<AliasName, Version>,
}

impl WholeWorkflow {
    /// The id that it had.
    pub fn workflow_id(&self) -> &str {
        &self.workflow_id
    }

    /// The endpoints that its versions name.
    pub fn endpoints(&self) -> impl Iterator<Item = &EndpointName> {
        self.versions.iter().map(|one| &one.endpoint)
    }
}

/// What came of an import.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The new versions, in the file's order: numbers go on where the workflow's own end.
    pub versions: Vec<Version>,
    /// Aliases that point at one of them now.
    pub aliases: Vec<AliasName>,
}

impl Service {
    /// All versions and aliases of a workflow.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn export_workflow(&self, key: &WorkflowKey) -> Result<Value, Error> {
        let record = self.workflow(key).await?;
        let mut versions = Vec::new();
        for number in 1..=record.latest.map_or(0, Version::number) {
            let loaded = self.load_workflow(key, Version::new(number), None).await;
            let loaded = loaded.map_err(Unknown::into_error)?;
            versions.push(OneVersion {
                version: loaded.record.version,
                endpoint: loaded.record.endpoint,
                note: loaded.record.note,
                definition: Definition::clone(&loaded.definition),
            });
        }
        Ok(json!(WholeWorkflow {
            format: FORMAT.to_owned(),
            workflow_id: key.id.to_string(),
            versions,
            aliases: record.aliases.into_iter().collect(),
        }))
    }

    /// Brings a file's versions in, after those that are there. Its aliases are taken over where the workflow has none of the
    /// name; others stay where they point.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no such file, [`Error::NotFound`] for endpoints that are not here.
    pub async fn import_workflow(
        &self,
        key: &WorkflowKey,
        file: WholeWorkflow,
        endpoint: Option<&EndpointName>,
        by: &str,
    ) -> Result<Imported, Error> {
        if file.format != FORMAT {
            return Err(Error::Invalid(format!(
                "the file's format is '{:.60}'; this server reads '{FORMAT}'",
                file.format
            )));
        }
        if file.versions.is_empty() {
            return Err(Error::Invalid("the file holds no version".into()));
        }
        for one in &file.versions {
            self.endpoint(endpoint.unwrap_or(&one.endpoint))?;
            if let Err(error) = Graph::parse(&one.definition.published.graph) {
                return Err(Error::Invalid(format!(
                    "the graph of {} cannot be read: {error}",
                    one.version
                )));
            }
        }
        let known = self.store.workflow(key).await?;
        let had: Vec<AliasName> = known
            .into_iter()
            .flat_map(|w| w.aliases)
            .map(|(name, _)| name)
            .collect();
        let mut imported = Imported {
            versions: Vec::new(),
            aliases: Vec::new(),
        };
        let mut numbers = std::collections::BTreeMap::new();
        for one in file.versions {
            let json =
                serde_json::to_vec(&one.definition).map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
            let definition = self.place_input(self.definition_key(key)?, json.into()).await?;
            let newly = self.store.publish(NewVersion {
                workflow: key.clone(),
                endpoint: endpoint.unwrap_or(&one.endpoint).clone(),
                note: one.note,
                by: by.to_owned(),
                definition,
                alias: None,
                from_draft: false,
            });
            let version = newly.await?.version;
            numbers.insert(one.version, version);
            imported.versions.push(version);
        }
        for (alias, version) in file.aliases {
            if let Some(version) = numbers.get(&version).filter(|_| !had.contains(&alias)) {
                self.move_alias(key, &alias, Target::Version(*version), by)
                    .await?;
                imported.aliases.push(alias);
            }
        }
        self.published.forget(key);
        Ok(imported)
    }
}
