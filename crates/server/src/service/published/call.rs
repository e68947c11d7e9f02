//! A call of a published workflow: checked against its version, put into its graph, and queued as a job like any other.

use darkroom_comfy::published::{Finding, Problem, Seeds};
use darkroom_core::{
    EndpointName, JobId, TenantId,
    workflow::{AliasName, Version, WorkflowId},
};
use darkroom_store::jobs::{ExternalId, JobMeta};
use serde_json::{Map, Value};

use super::{
    Definition, Loaded, Unknown, WorkflowKey, blame, files,
    pools::NoResource,
    results::{self, CalledAs},
    transfer::publication,
    workflow_key,
};
use crate::{
    beside::beside,
    memory::Held,
    service::{Error, Service, intake::Fetch, submit::ComfySubmit},
};

/// What a caller wants run.
pub struct WorkflowCall<'a> {
    /// Whose job it will be.
    pub tenant: TenantId,
    /// The workflow.
    pub workflow: WorkflowId,
    /// An explicit version wins over an alias.
    pub version: Option<Version>,
    /// The alias; none and no version: `main`.
    pub alias: Option<AliasName>,
    /// Values by published name.
    pub inputs: Map<String, Value>,
    /// Every seed that is not given becomes random.
    pub randomise_seeds: bool,
    /// Temporary files are told as well.
    pub return_temp_files: bool,
    /// Where it may run: ids of resource configs, `default` for the workflow's own endpoint; empty: `default`.
    pub resources: Vec<String>,
    /// Whether the caller may use an endpoint.
    pub may: &'a (dyn Fn(&EndpointName) -> bool + Send + Sync),
    /// When addresses are fetched.
    pub fetch: Fetch,
    /// Higher runs first.
    pub priority: i32,
    /// The caller's name for the job.
    pub external_id: Option<ExternalId>,
    /// Facts that travel with the job.
    pub meta: JobMeta,
    /// How large the request was, in bytes.
    pub size_bytes: usize,
    /// The memory held for it.
    pub memory: Held,
}

/// A call that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Called {
    /// The job.
    pub job: JobId,
    /// It existed before, under the same external id.
    pub existed: bool,
    /// The version that runs.
    pub version: Version,
    /// The endpoint that runs it.
    pub endpoint: EndpointName,
}

/// Why a call was refused.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no such workflow, version or alias.
    #[error(transparent)]
    Unknown(Unknown),
    /// Values that the version does not take.
    #[error("{}", sentence(.0))]
    Inputs(Vec<Problem>),
    /// The version was published before anybody could check it, and its endpoint cannot run it.
    #[error("this version cannot run: {}", first(.0))]
    Unfit(Vec<Finding>),
    /// Nowhere to run it.
    #[error(transparent)]
    Resource(#[from] NoResource),
    /// Everything else.
    #[error(transparent)]
    Service(#[from] Error),
}

impl From<Unknown> for CallError {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::Service(error) => CallError::Service(error),
            other => CallError::Unknown(other),
        }
    }
}

fn sentence(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("; ")
}

fn first(findings: &[Finding]) -> &str {
    let first = findings.iter().find(|finding| finding.is_error());
    first.map_or("", |finding| finding.message.as_str())
}

impl Service {
    /// Accepts a call as a job: durable when this returns. The job runs the version that the call resolved to, whatever
    /// becomes of its alias meanwhile.
    ///
    /// # Errors
    /// [`CallError`]; nothing is half-accepted then.
    pub async fn call_workflow(&self, call: WorkflowCall<'_>) -> Result<Called, CallError> {
        let key = workflow_key(&call.tenant, &call.workflow);
        let loaded = self.load_workflow(&key, call.version, call.alias.as_ref()).await;
        let loaded = match loaded {
            // Aliases are told to who may use what they lead to.
            Err(Unknown::Alias { workflow, alias, .. }) => {
                let record = self.store.workflow(&key).await.map_err(Error::from)?;
                let all = record.into_iter().flat_map(|record| record.aliases);
                let others = all.filter(|one| (call.may)(&one.endpoint));
                return Err(CallError::Unknown(Unknown::Alias {
                    workflow,
                    alias,
                    others: others.map(|one| one.name.to_string()).collect(),
                }));
            }
            other => other?,
        };
        let own = &loaded.record.endpoint;
        let endpoint = self.choose_endpoint(own, &call.resources, call.may).await?;
        self.check_late(&key, &loaded).await?;
        let published = &loaded.definition.published;
        let size_bytes = call.size_bytes.max(loaded.size);
        let given = files::resolved(self, &call.tenant, published, call.inputs).map_err(CallError::Inputs)?;
        let (definition, ids, random) = (loaded.definition.clone(), self.ids.clone(), call.randomise_seeds);
        let bound = beside(size_bytes, move || {
            let mut bits = || {
                let mut random = [0; 8];
                ids.fill(&mut random);
                u64::from_le_bytes(random)
            };
            let seeds = match random {
                true => Seeds::Random(&mut bits),
                false => Seeds::Kept,
            };
            definition.published.bind(&given, seeds)
        });
        let graph = bound.await.map_err(CallError::Inputs)?;
        let mut meta = call.meta;
        let called_as = CalledAs {
            id: call.workflow.clone(),
            version: loaded.record.version,
            outputs: published.outputs.clone(),
            return_temp_files: call.return_temp_files,
            nodes: published.graph.as_object().map_or(0, Map::len),
            files: published
                .inputs
                .iter()
                .filter(|input| input.kind.is_file())
                .map(|input| (input.node.clone(), input.name.clone()))
                .collect(),
        };
        results::write_down(&mut meta, &called_as);
        let accepted = self
            .submit_comfy(ComfySubmit {
                tenant: call.tenant,
                endpoint: endpoint.clone(),
                graph,
                extra_data: Map::new(),
                targets: None,
                priority: call.priority,
                external_id: call.external_id,
                randomise_seeds: false,
                fetch: call.fetch,
                meta,
                size_bytes,
                memory: call.memory,
            })
            .await
            .map_err(|error| blame::of_inputs(error, published))?;
        if accepted.existed {
            self.same_workflow(accepted.job, &call.workflow).await?;
        }
        Ok(Called {
            job: accepted.job,
            existed: accepted.existed,
            version: loaded.record.version,
            endpoint,
        })
    }

    /// A caller's own name for a job stands for one run: that of another workflow is not the answer to this call.
    async fn same_workflow(&self, job: JobId, workflow: &WorkflowId) -> Result<(), Error> {
        let job = self.job(None, job).await?;
        match results::called_as(&job) {
            Some(called) if called.id == *workflow => Ok(()),
            Some(_) | None => Err(Error::Invalid(
                "this reference was used for something else already: use another one".to_owned(),
            )),
        }
    }

    /// A version that was published before any instance of its endpoint had told what it can do is checked once one has.
    async fn check_late(&self, key: &WorkflowKey, loaded: &Loaded) -> Result<(), CallError> {
        let endpoint = &loaded.record.endpoint;
        if !loaded.definition.unchecked || self.boxes(endpoint).await?.is_empty() {
            return Ok(());
        }
        let wanted = publication(&loaded.definition, endpoint.clone());
        let checked = self.check_publication(&key.tenant, &wanted, loaded.size).await?;
        checked.good().map_err(CallError::Unfit)?;
        // As it was published, but for this: so it is called from now on.
        let loaded = Loaded {
            definition: std::sync::Arc::new(Definition {
                unchecked: false,
                ..Definition::clone(&loaded.definition)
            }),
            ..loaded.clone()
        };
        self.published.put(key, &loaded);
        Ok(())
    }
}
