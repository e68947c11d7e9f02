//! Published workflows: an application calls an id with a few named inputs, and an operator decides which graph that is.
//!
//! [`Service::publish`] makes the next version of what [`check`] found good; [`Service::call_workflow`] runs one as a job like
//! any other. What is pure (declaring, checking values, putting them into the graph) is `darkroom_comfy::published`.

use std::sync::Arc;

use darkroom_comfy::published::{Finding, InputWish, OutputWish, Published};
use darkroom_core::{
    EndpointName, TenantId,
    workflow::{AliasName, WorkflowId},
};
pub use darkroom_store::workflows::{
    AliasRecord, Imported, MoveRecord, Moved, NewlyPublished, Resolved, Target, VersionRecord, Wanted,
    WorkflowKey, WorkflowRecord,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

mod aliases;
mod blame;
mod cache;
mod call;
mod check;
mod draft;
mod files;
mod load;
mod pools;
mod progress;
mod publish;
mod results;
mod rights;
mod transfer;

pub use self::{
    cache::Cache,
    call::{CallError, Called, WorkflowCall},
    pools::{DEFAULT as DEFAULT_POOL, NoResource, Pool},
    progress::ProgressView,
    results::{CalledAs, Named, called_as},
    rights::{Actor, Denied, MayOn},
    transfer::{Brought, FORMAT, Import, WholeWorkflow},
};

/// Longest note and description, in bytes.
const MAX_TEXT_BYTES: usize = 16 * 1024;

/// What a version holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Definition {
    /// For people who call it.
    #[serde(default)]
    pub description: String,
    /// Graph, inputs, outputs.
    #[serde(flatten)]
    pub published: Published,
    /// The editor's file that the graph was made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<Value>,
    /// No instance of its endpoint had told what it can do when this was published: its first call after one has told checks
    /// it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unchecked: bool,
}

/// A graph that somebody wants published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Publication {
    /// Which endpoint runs it.
    pub endpoint: EndpointName,
    /// The graph, in API format or as the editor's file.
    pub graph: Value,
    /// What callers may set.
    #[serde(default)]
    pub inputs: Vec<InputWish>,
    /// What they get; empty: everything that the graph makes.
    #[serde(default)]
    pub outputs: Vec<OutputWish>,
    /// For people who call it.
    #[serde(default)]
    pub description: String,
}

/// How a version is published.
#[derive(Debug, Clone)]
pub struct Publishing {
    /// Which workflow; it is made when it is not there.
    pub workflow: WorkflowKey,
    /// A line about this version.
    pub note: String,
    /// Point this alias at it.
    pub alias: Option<AliasName>,
    /// It is the draft, which goes with this.
    pub from_draft: bool,
}

/// What became of a publish.
#[derive(Debug)]
pub enum Outcome {
    /// A version was made; the findings are warnings.
    Published {
        /// Which, and who points at it.
        newly: NewlyPublished,
        /// Things to know.
        findings: Vec<Finding>,
    },
    /// Nothing was made; some findings are errors.
    Refused(Vec<Finding>),
}

/// Why no version was found.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// There is no such workflow.
    #[error("there is no workflow '{0}'")]
    Workflow(String),
    /// It has no such version.
    #[error("workflow '{workflow}' has no version '{version}'")]
    Version {
        /// Its id.
        workflow: String,
        /// What was asked for.
        version: String,
    },
    /// It has no such alias.
    #[error("workflow '{workflow}' has no alias '{alias}'{}", has(.others))]
    Alias {
        /// Its id.
        workflow: String,
        /// What was asked for.
        alias: String,
        /// Those that it has.
        others: Vec<String>,
    },
    /// Something else went wrong.
    #[error(transparent)]
    Service(#[from] super::Error),
}

fn has(others: &[String]) -> String {
    match others {
        [] => String::new(),
        some => format!("; it has {}", some.join(", ")),
    }
}

impl Unknown {
    /// As an error of the service, for protocols without words of their own for it.
    pub fn into_error(self) -> super::Error {
        match self {
            Unknown::Workflow(name) => super::Error::not_found("workflow", name),
            Unknown::Version { workflow, version } => {
                super::Error::not_found("version", format!("{workflow}@{version}"))
            }
            Unknown::Alias { workflow, alias, .. } => {
                super::Error::not_found("alias", format!("{workflow}@{alias}"))
            }
            Unknown::Service(error) => error,
        }
    }
}

/// A version, ready to be called.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// Which.
    pub record: VersionRecord,
    /// What it holds.
    pub definition: Arc<Definition>,
    /// About how large it is, in bytes.
    pub size: usize,
}

/// A workflow of a tenant.
pub fn workflow_key(tenant: &TenantId, id: &WorkflowId) -> WorkflowKey {
    WorkflowKey {
        tenant: tenant.clone(),
        id: id.clone(),
    }
}

/// # Errors
/// [`super::Error::Invalid`] for a note or a description that is too long.
fn check_texts(texts: &[&str]) -> Result<(), super::Error> {
    match texts.iter().all(|text| text.len() <= MAX_TEXT_BYTES) {
        true => Ok(()),
        false => Err(super::Error::Invalid(format!(
            "note and description are at most {MAX_TEXT_BYTES} bytes each"
        ))),
    }
}

#[cfg(test)]
mod tests;
