//! A workflow as one JSON file: all its versions and aliases, to be kept elsewhere or brought to another server.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use darkroom_comfy::published::{Finding, InputWish, Level, OutputWish, SeedField};
use darkroom_core::{
    EndpointName,
    workflow::{AliasName, Version},
};
use darkroom_store::workflows::{Content, NewWorkflow};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Actor, Definition, Denied, Imported, Publication, VersionRecord, WorkflowKey, check::MAX_FINDINGS,
    check_texts,
};
use crate::{
    beside::beside,
    memory::accounted,
    service::{Error, Service},
};

/// What the file says it is.
pub const FORMAT: &str = "darkroom.workflow/1";
/// Versions of one file.
const MAX_VERSIONS: usize = 1000;
/// Largest export, in bytes: less than the largest body that an import takes.
const MAX_EXPORT_BYTES: u64 = 120 << 20;
/// Versions that are looked up at once.
const PAGE: u32 = 500;
/// Findings that tell of this server and not of the file.
const OF_THIS_SERVER: [&str; 4] = ["missing_node", "missing_model", "missing_file", "no_box"];

/// A version in the file.
#[derive(Debug, Clone, Deserialize)]
struct OneVersion {
    version: Version,
    endpoint: EndpointName,
    #[serde(default)]
    note: String,
    definition: Definition,
}

/// The file.
#[derive(Debug, Clone, Deserialize)]
pub struct WholeWorkflow {
    format: String,
    workflow_id: String,
    versions: Vec<OneVersion>,
    #[serde(default)]
    aliases: BTreeMap<AliasName, Version>,
}

impl WholeWorkflow {
    /// The id that it had.
    pub fn workflow_id(&self) -> &str {
        &self.workflow_id
    }
}

/// The file as it is written: what versions hold goes into it as it is stored.
#[derive(Serialize)]
struct Written<'a> {
    format: &'a str,
    workflow_id: String,
    versions: Vec<WrittenVersion>,
    aliases: BTreeMap<AliasName, Version>,
}

#[derive(Serialize)]
struct WrittenVersion {
    version: Version,
    endpoint: EndpointName,
    note: String,
    definition: Box<RawValue>,
}

/// What is to be brought in.
#[derive(Debug)]
pub struct Import {
    /// The file.
    pub file: WholeWorkflow,
    /// Another endpoint for all versions.
    pub endpoint: Option<EndpointName>,
    /// Bring it in also where nodes, models or files that it needs are not here.
    pub force: bool,
    /// About how large it is, in bytes.
    pub size: usize,
}

/// What came of an import.
#[derive(Debug)]
pub enum Brought {
    /// All of it is there; the findings are warnings.
    In {
        /// Versions and aliases.
        imported: Imported,
        /// Things to know.
        findings: Vec<Finding>,
    },
    /// Nothing was brought in; some findings are errors.
    Refused(Vec<Finding>),
}

impl Service {
    /// All versions and aliases of a workflow, as JSON, with the memory that it takes accounted for.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::TooLarge`], [`Denied`].
    pub async fn export_workflow(&self, actor: &Actor, key: &WorkflowKey) -> Result<Bytes, Denied> {
        let record = self.own_workflow(actor, key).await?;
        let mut versions: Vec<VersionRecord> = Vec::new();
        loop {
            let before = versions.last().map(|last| last.version);
            let page = self
                .store
                .versions(key, before, PAGE)
                .await
                .map_err(Error::from)?;
            if page.is_empty() {
                break;
            }
            versions.extend(page);
        }
        versions.reverse();
        let size: u64 = versions.iter().map(|one| one.size).sum();
        if size > MAX_EXPORT_BYTES {
            return Err(Denied::Service(Error::TooLarge {
                what: "the workflow with all its versions",
                limit_bytes: MAX_EXPORT_BYTES,
            }));
        }
        let held = self.memory.answer(size).await.map_err(Error::from)?;
        let mut whole = Vec::new();
        for one in versions {
            // Somebody who published meanwhile on an endpoint of their own shows nobody else what it is.
            actor.may_change(None, Some(&one.endpoint))?;
            let gone = || Error::not_found("version", one.version);
            let (_, payload) = self
                .store
                .version(key, one.version)
                .await
                .map_err(Error::from)?
                .ok_or_else(gone)?;
            whole.push((self.read_payload(&payload).await?.ok_or_else(gone)?, one));
        }
        let (workflow_id, aliases) = (key.id.to_string(), record.aliases);
        let bytes = usize::try_from(size).unwrap_or(usize::MAX);
        let written = beside(bytes, move || -> Result<Vec<u8>, anyhow::Error> {
            let mut versions = Vec::new();
            for (definition, one) in whole {
                versions.push(WrittenVersion {
                    version: one.version,
                    endpoint: one.endpoint,
                    note: one.note,
                    definition: RawValue::from_string(String::from_utf8(definition.into())?)?,
                });
            }
            Ok(serde_json::to_vec(&Written {
                format: FORMAT,
                workflow_id,
                versions,
                aliases: aliases.into_iter().map(|one| (one.name, one.version)).collect(),
            })?)
        });
        let written = written.await.map_err(Error::Internal)?;
        Ok(accounted(written.into(), held))
    }

    /// Brings a file's versions in, after those that are there, and its aliases where the workflow has none of the name:
    /// all of it at once, or nothing. Each version is checked as if it were published.
    ///
    /// # Errors
    /// [`Error::Invalid`] for what is no such file, [`Error::NotFound`] for endpoints that are not here, [`Denied`].
    pub async fn import_workflow(
        &self,
        actor: &Actor,
        key: &WorkflowKey,
        import: Import,
    ) -> Result<Brought, Denied> {
        let Import {
            file,
            endpoint,
            force,
            size,
        } = import;
        check_file(&file)?;
        let of = |one: &OneVersion| endpoint.as_ref().unwrap_or(&one.endpoint).clone();
        let endpoints: BTreeSet<EndpointName> = file.versions.iter().map(of).collect();
        for endpoint in &endpoints {
            self.own_or_new(actor, key, endpoint).await?;
        }
        let (mut good, mut findings) = (Vec::new(), Vec::new());
        for one in file.versions {
            let (version, endpoint) = (one.version, of(&one));
            let publication = publication(&one.definition, endpoint.clone());
            let mut checked = self.check_publication(&key.tenant, &publication, size).await?;
            for finding in &mut checked.findings {
                finding.message = format!("{version}: {}", finding.message);
                if force && OF_THIS_SERVER.contains(&finding.code.as_str()) {
                    finding.level = Level::Warning;
                }
            }
            match checked.good() {
                Ok((definition, warnings)) => {
                    findings.extend(warnings);
                    good.push((endpoint, one.note, as_it_was(definition, one.definition)));
                }
                Err(found) => findings.extend(found),
            }
        }
        findings.sort_by_key(|finding| !finding.is_error());
        findings.truncate(MAX_FINDINGS);
        if findings.iter().any(Finding::is_error) {
            return Ok(Brought::Refused(findings));
        }
        let mut versions = Vec::new();
        let placed = self.place_all(key, good, &mut versions).await;
        let written: Vec<_> = versions
            .iter()
            .filter_map(|one| one.definition.blob().cloned())
            .collect();
        let imported = match placed {
            Ok(()) => {
                let new = NewWorkflow {
                    workflow: key.clone(),
                    versions,
                    // Numbers are those of the list: they were found to be v1, v2, … in order.
                    aliases: file
                        .aliases
                        .into_iter()
                        .map(|(alias, version)| (alias, version.number() as usize - 1))
                        .collect(),
                    by: actor.by.clone(),
                };
                self.store.import(new).await.map_err(Error::from)
            }
            Err(error) => Err(error),
        };
        match imported {
            Ok(imported) => Ok(Brought::In { imported, findings }),
            Err(error) => {
                self.discard(written).await;
                Err(error.into())
            }
        }
    }

    async fn place_all(
        &self,
        key: &WorkflowKey,
        all: Vec<(EndpointName, String, Definition)>,
        placed: &mut Vec<Content>,
    ) -> Result<(), Error> {
        for (endpoint, note, definition) in all {
            let definition = self.place_as_json(key, definition, usize::MAX).await?;
            placed.push(Content {
                endpoint,
                note,
                definition,
            });
        }
        Ok(())
    }
}

/// What a file must be before any of its versions is looked at.
fn check_file(file: &WholeWorkflow) -> Result<(), Error> {
    let wrong = |text: String| Err(Error::Invalid(text));
    if file.format != FORMAT {
        return wrong(format!(
            "the file's format is '{:.60}'; this server reads '{FORMAT}'",
            file.format
        ));
    }
    if file.versions.is_empty() {
        return wrong("the file holds no version".to_owned());
    }
    if file.versions.len() > MAX_VERSIONS {
        return wrong(format!("the file holds more than {MAX_VERSIONS} versions"));
    }
    for (one, number) in file.versions.iter().zip(1..) {
        if one.version.number() != number {
            return wrong(format!(
                "version {number} of the file is called {}: versions must be v1, v2, … in order, each once",
                one.version
            ));
        }
        check_texts(&[&one.note])?;
    }
    for (alias, version) in &file.aliases {
        if version.number() as usize > file.versions.len() {
            return wrong(format!(
                "alias '{alias}' points at {version}, which the file does not hold"
            ));
        }
    }
    Ok(())
}

/// What somebody would publish to get this version.
pub(super) fn publication(definition: &Definition, endpoint: EndpointName) -> Publication {
    let published = &definition.published;
    let stored = |input: &InputWish| {
        let inputs = published
            .graph
            .get(&input.node)
            .and_then(|node| node.get("inputs"));
        inputs.and_then(|inputs| inputs.get(&input.field)).cloned()
    };
    let inputs = published.inputs.iter().cloned().map(|input| {
        let mut wish = InputWish {
            as_far_as_here: true,
            ..InputWish::from(input)
        };
        // What stands in the graph is the default without being said.
        if wish.default == stored(&wish) {
            wish.default = None;
        }
        wish
    });
    Publication {
        endpoint,
        graph: published.graph.clone(),
        inputs: inputs.collect(),
        outputs: published.outputs.iter().cloned().map(OutputWish::from).collect(),
        description: definition.description.clone(),
    }
}

/// What was checked, with what the file knows beside it: the editor's own workflow, and the bounds of seeds where this server
/// knows none.
fn as_it_was(mut checked: Definition, file: Definition) -> Definition {
    checked.workflow = file.workflow;
    for seed in &mut checked.published.seeds {
        let same = |one: &&SeedField| (&one.node, &one.field) == (&seed.node, &seed.field);
        if let Some(known) = file.published.seeds.iter().find(same) {
            let (min, max) = (seed.min.max(known.min), seed.max.min(known.max));
            if min <= max {
                (seed.min, seed.max) = (min, max);
            }
        }
    }
    checked
}
