//! A job's way in: limits, intake of files, pre-flight of the graph, payload placement, one durable transaction.

use bytes::Bytes;
use darkroom_comfy::graph::{Graph, NodeId};
use darkroom_core::{BlobKey, EndpointName, JobId, Payload, TenantId, endpoint, payload::INLINE_MAX_BYTES};
use darkroom_runner::link::ComfyWork;
use darkroom_store::jobs::{ExternalId, JobMeta, NewJob, Submitted};
use serde_json::{Map, Value};

use super::{
    Error, Service,
    intake::{self, Fetch},
    preflight::{self, Refusal},
};

/// A graph that somebody wants run.
#[derive(Debug, Clone)]
pub struct ComfySubmit {
    /// Whose job it will be.
    pub tenant: TenantId,
    /// Which endpoint runs it.
    pub endpoint: EndpointName,
    /// The graph, in API format.
    pub graph: Value,
    /// ComfyUI's `extra_data`.
    pub extra_data: Map<String, Value>,
    /// Only these output nodes.
    pub targets: Option<Vec<String>>,
    /// Higher runs first; 0 is normal.
    pub priority: i32,
    /// The caller's name for the job.
    pub external_id: Option<ExternalId>,
    /// Replace the seed −1 of `KSampler` nodes by a random one.
    pub randomise_seeds: bool,
    /// When addresses are fetched.
    pub fetch: Fetch,
    /// Facts that travel with the job.
    pub meta: JobMeta,
}

/// What a submit led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The job.
    pub job: JobId,
    /// It existed before, under the same external id.
    pub existed: bool,
}

impl Service {
    /// Accepts a graph as a job: durable when this returns.
    ///
    /// # Errors
    /// Every refusal of [`Error`]; nothing is half-accepted then.
    pub async fn submit_comfy(&self, submit: ComfySubmit) -> Result<Accepted, Error> {
        let endpoint = self.endpoint(&submit.endpoint)?;
        if endpoint.kind != endpoint::Kind::Comfyui {
            return Err(Error::Invalid(format!(
                "endpoint '{}' does not take ComfyUI workflows",
                endpoint.name
            )));
        }
        let refused = |refusal: Box<Refusal>| Error::InvalidGraph(refusal);
        let mut graph = Graph::parse(&submit.graph).map_err(|e| refused(Box::new(e.into())))?;
        if submit.randomise_seeds {
            self.randomise_seeds(&mut graph);
        }
        intake::refuse_instance_files(&graph).map_err(refused)?;
        let info = self.object_info(&submit.endpoint).await?;
        let targets: Option<Vec<NodeId>> = submit
            .targets
            .as_ref()
            .map(|t| t.iter().map(|id| NodeId::new(id.as_str())).collect());
        let valid = preflight::check(
            &graph,
            info.as_deref(),
            targets.as_deref(),
            endpoint.runs_embedded_engine(),
        )
        .map_err(refused)?;

        // Only a graph that will be accepted leaves files behind.
        let mut graph = valid.graph;
        let taken = self
            .take_in(&submit.tenant, &submit.endpoint, &mut graph, submit.fetch)
            .await?;

        let work = ComfyWork {
            graph: graph.to_value(),
            extra_data: submit.extra_data,
            partial_execution_targets: submit.targets,
            files: taken.iter().map(|t| t.file.clone()).collect(),
        };
        let input_files = taken.into_iter().filter_map(|t| t.blob).collect();
        let mut meta = submit.meta;
        meta.summary = summary(&graph, &valid.outputs);
        meta.models = models(&graph);
        let id = JobId::new(&*self.ids);
        let body = serde_json::to_vec(&work).map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        let input = self.place(BlobKey::job_input(id), body.into()).await?;
        let external_name = submit
            .external_id
            .as_ref()
            .map(|e| e.id.clone())
            .unwrap_or_default();
        let submitted = self
            .store
            .submit(NewJob {
                id,
                tenant: submit.tenant,
                endpoint: submit.endpoint.clone(),
                priority: submit.priority,
                input,
                input_files,
                meta,
                external_id: submit.external_id,
                queue_ttl: endpoint.limits.queue_ttl,
                max_attempts: endpoint.limits.max_attempts,
                max_queued: endpoint.limits.max_queued,
            })
            .await?;
        match submitted {
            Submitted::Accepted => {
                self.metrics.job_submitted(&submit.endpoint);
                Ok(Accepted {
                    job: id,
                    existed: false,
                })
            }
            Submitted::Existing(job) => Ok(Accepted { job, existed: true }),
            Submitted::Duplicate(job) => Err(Error::Duplicate {
                id: external_name,
                job,
            }),
            Submitted::QueueFull { queued } => Err(Error::QueueFull {
                endpoint: submit.endpoint.to_string(),
                queued,
            }),
        }
    }

    /// Small payloads stay inline; large ones become blobs before any row names them.
    pub(super) async fn place(&self, key: BlobKey, body: Bytes) -> Result<Payload, Error> {
        if body.len() <= INLINE_MAX_BYTES {
            return Ok(Payload::Inline(body.to_vec()));
        }
        self.store.intend(&key).await?;
        let size = body.len() as u64;
        self.blobs.put_bytes(&key, body).await?;
        Ok(Payload::Blob { key, size })
    }

    /// The bytes of a payload; `None` when its blob is gone.
    ///
    /// # Errors
    /// When the blob store fails.
    pub async fn read_payload(&self, payload: &Payload) -> Result<Option<Bytes>, Error> {
        match payload {
            Payload::Inline(bytes) => Ok(Some(Bytes::copy_from_slice(bytes))),
            Payload::Blob { key, size } => Ok(self.blobs.read(key, *size).await?),
        }
    }

    /// The Serverless API's rule: exactly class `KSampler`, exactly −1, 0 to 2^32 inclusive.
    fn randomise_seeds(&self, graph: &mut Graph) {
        for node in graph.nodes.values_mut().filter(|n| n.class_type == "KSampler") {
            if node.inputs.get("seed").and_then(Value::as_f64) == Some(-1.0) {
                let mut random = [0; 8];
                self.ids.fill(&mut random);
                let seed = u64::from_le_bytes(random) % ((1 << 32) + 1);
                node.inputs.insert("seed".to_owned(), Value::from(seed));
            }
        }
    }
}

/// One line for lists: how large the graph is and what it makes.
fn summary(graph: &Graph, outputs: &[NodeId]) -> String {
    let mut makes: Vec<&str> = outputs
        .iter()
        .filter_map(|id| graph.get(id.as_str()))
        .map(|n| n.class_type.as_str())
        .collect();
    makes.dedup();
    makes.truncate(4);
    match makes.is_empty() {
        true => format!("{} nodes", graph.nodes.len()),
        false => format!("{} nodes -> {}", graph.nodes.len(), makes.join(", ")),
    }
}

/// Model files the graph names, so that slots which have them loaded are preferred.
fn models(graph: &Graph) -> Vec<String> {
    const LOADED_BY: &[&str] = &[
        "ckpt_name",
        "unet_name",
        "vae_name",
        "lora_name",
        "clip_name",
        "control_net_name",
    ];
    let mut names: Vec<String> = graph
        .nodes
        .values()
        .flat_map(|n| LOADED_BY.iter().filter_map(|key| n.inputs.get(*key)))
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect();
    names.sort_unstable();
    names.dedup();
    names.truncate(32);
    names
}
