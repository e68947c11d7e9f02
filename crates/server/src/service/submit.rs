//! A job's way in: limits, intake of files, pre-flight of the graph, payload placement, one durable transaction.

use std::{collections::HashSet, time::Duration};

use darkroom_comfy::graph::convert;
use darkroom_core::{BlobKey, EndpointName, JobId, Keep, TenantId, endpoint};
pub use darkroom_store::jobs::Entry;
use darkroom_store::jobs::{ExternalId, InputBlob, JobMeta, NewJob, OnDuplicate, Submitted};
use serde_json::{Map, Value};

use self::graph::{Reading, Writing};
use super::{Error, Service, clients::ClientName, credentials, intake::Fetch};
use crate::{beside::beside, memory::Held};

mod graph;

/// A graph that somebody wants run.
#[derive(Debug)]
pub struct ComfySubmit {
    /// Whose job it will be.
    pub tenant: TenantId,
    /// Which endpoint runs it.
    pub endpoint: EndpointName,
    /// The graph, in API format or as the editor's file.
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
    /// How large the request was, in bytes: a large one is worked on beside the runtime.
    pub size_bytes: usize,
    /// The memory held for it; its share for work is lent back while addresses are fetched.
    pub memory: Held,
}

/// What a submit led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// The job.
    pub job: JobId,
    /// It existed before, under the same external id.
    pub existed: bool,
    /// No instance was ready for it, see [`Service::cold_start`].
    pub cold_start: bool,
    /// `{node id: {errors, …}}` of output nodes that were left out because they do not validate, while others do; an
    /// empty object otherwise.
    pub node_errors: Value,
}

impl Service {
    /// Accepts a graph as a job: durable when this returns.
    ///
    /// # Errors
    /// Every refusal of [`Error`]; nothing is half-accepted then.
    pub async fn submit_comfy(&self, submit: ComfySubmit) -> Result<Accepted, Error> {
        self.submit_comfy_at(submit, Entry::Back, None).await
    }

    /// The same for one that may enter the line elsewhere than at its back, and whose client hears of it by its socket,
    /// from the very beginning.
    ///
    /// # Errors
    /// As [`Service::submit_comfy`].
    pub async fn submit_comfy_at(
        &self,
        submit: ComfySubmit,
        entry: Entry,
        client: Option<&ClientName>,
    ) -> Result<Accepted, Error> {
        let mut written = Vec::new();
        let mut follower = None;
        // A follower from before the job is there: once it is, it may be over within a millisecond.
        let listen = |job| {
            let listening = client.is_some_and(|client| self.clients.is_connected(client));
            follower = listening.then(|| self.follow(job, 0));
        };
        let outcome = self.accept(submit, entry, listen, &mut written).await;
        if let (Ok(accepted), Some(client)) = (&outcome, client) {
            let follower = follower.filter(|follower| follower.job() == accepted.job);
            self.clients.accepted(client, || {
                follower.unwrap_or_else(|| self.follow(accepted.job, 0))
            });
        }
        // Nothing stays of a request that was refused, or that was known already.
        if !outcome.as_ref().is_ok_and(|accepted| !accepted.existed) {
            self.discard(written).await;
        }
        outcome
    }

    async fn accept(
        &self,
        submit: ComfySubmit,
        entry: Entry,
        listen: impl FnOnce(JobId),
        written: &mut Vec<BlobKey>,
    ) -> Result<Accepted, Error> {
        let max_queued = self.endpoint(&submit.endpoint)?.limits.max_queued;
        if let Some(known) = self.known(&submit, max_queued).await? {
            return Ok(known);
        }
        let (job, node_errors) = self.prepare(submit, written).await?;
        let job = NewJob { entry, ..job };
        let (id, endpoint) = (job.id, job.endpoint.clone());
        let external_name = job.external_id.as_ref().map(|e| e.id.clone()).unwrap_or_default();
        listen(id);
        match self.store.submit(job).await? {
            Submitted::Accepted { instance_ready } => {
                self.metrics.job_submitted(&endpoint);
                Ok(Accepted {
                    job: id,
                    existed: false,
                    cold_start: !instance_ready,
                    node_errors,
                })
            }
            Submitted::Existing(job) => self.accepted_before(job).await,
            Submitted::Duplicate(job) => Err(Error::Duplicate {
                id: external_name,
                job,
            }),
            Submitted::QueueFull { queued } => Err(Error::QueueFull {
                endpoint: endpoint.to_string(),
                queued,
            }),
        }
    }

    /// Everything that comes before the row: the graph is checked, its files and its body are stored, and named in
    /// `written`. With it come the errors of outputs that were left out (see [`Accepted`]).
    ///
    /// # Errors
    /// Every refusal of [`Error`]; the caller discards what was written.
    pub(super) async fn prepare(
        &self,
        mut submit: ComfySubmit,
        written: &mut Vec<BlobKey>,
    ) -> Result<(NewJob, Value), Error> {
        let endpoint = self.endpoint(&submit.endpoint)?;
        if endpoint.kind != endpoint::Kind::Comfyui {
            return Err(Error::Invalid(format!(
                "endpoint '{}' does not take ComfyUI workflows",
                endpoint.name
            )));
        }
        let places = self.places(&submit.endpoint).await?;
        let size = submit.size_bytes;
        // A small file of the editor may spread out to a large graph.
        let reading_size = match convert::is_ui_format(&submit.graph) {
            true => usize::MAX,
            false => size,
        };
        let (graph, referred) = self
            .resolve_assets(&submit.tenant, &submit.endpoint, submit.graph, size)
            .await?;
        let reading = Reading {
            ids: self.ids.clone(),
            graph,
            targets: submit.targets.clone(),
            randomise_seeds: submit.randomise_seeds,
            places,
        };
        let read = beside(reading_size, move || reading.read())
            .await
            .map_err(Error::InvalidGraph)?;
        // Only files of a graph that will be accepted are brought. Meanwhile others work: what waits is the graph, which
        // is no larger than the body was.
        submit.memory.rest();
        let mut taken = self
            .take_in(
                &submit.tenant,
                &submit.endpoint,
                read.loaders,
                &referred,
                submit.fetch,
                written,
            )
            .await?;
        let class_of = |id: &str| read.graph.get(id).map(|node| node.class_type.as_str());
        taken.extend(referred.elsewhere(class_of));
        submit.memory.work_on().await?;
        let input_files = each_once(taken.iter().filter_map(|t| t.blob.as_ref()));
        let mut meta = submit.meta;
        let id = JobId::new(&*self.ids);
        let mut extra_data = submit.extra_data;
        if let Some(workflow) = read.workflow {
            graph::keep_workflow(&mut extra_data, workflow);
        }
        let credentials = credentials::take_out(&mut extra_data);
        meta.has_credentials = !credentials.is_empty();
        let sealed = self.seal_credentials(id, &credentials)?;
        let wishes = super::workers::wishes_of(&meta);
        let keep = Keep {
            life: wishes.ttl_ms.map(Duration::from_millis),
            ..wishes.keep(&endpoint.limits)
        };
        let writing = Writing {
            graph: read.graph,
            outputs: read.outputs,
            files: taken.into_iter().map(|t| t.file).collect(),
            extra_data,
            targets: submit.targets,
        };
        let written_down = beside(size, move || writing.write()).await;
        let graph::Written {
            body,
            summary,
            models,
            nodes,
        } = written_down.map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        (meta.summary, meta.models, meta.needs, meta.nodes) = (summary, models, read.needs, nodes);
        let key = BlobKey::job_input(id);
        written.push(key.clone());
        let input = self.place_input(key, body.into()).await?;
        let job = NewJob {
            id,
            tenant: submit.tenant,
            endpoint: submit.endpoint,
            priority: submit.priority,
            input,
            sealed,
            input_files,
            meta,
            external_id: submit.external_id,
            queue_ttl: endpoint.limits.queue_ttl,
            max_attempts: endpoint.limits.max_attempts,
            max_queued: endpoint.limits.max_queued,
            entry: Entry::Back,
            keep,
        };
        Ok((job, read.node_errors))
    }

    /// The answer to a request that was sent before.
    async fn accepted_before(&self, job: JobId) -> Result<Accepted, Error> {
        let record = self.job(None, job).await?;
        Ok(Accepted {
            job,
            existed: true,
            cold_start: self.cold_start(&record).await?,
            node_errors: Value::Object(Map::new()),
        })
    }

    /// What can be said of a submit before any work on it: the job that has its name already, so that a repeated request
    /// costs nothing and needs nothing that was there the first time; and that the queue is full. The transaction decides; a
    /// queue that was far from full a moment ago is not even looked at.
    pub(super) async fn known(
        &self,
        submit: &ComfySubmit,
        max_queued: u64,
    ) -> Result<Option<Accepted>, Error> {
        let named = submit.external_id.as_ref();
        if let Some(external) = named.filter(|e| e.on_duplicate != OnDuplicate::Replace) {
            let first = self
                .store
                .job_by_external_id(
                    &submit.tenant,
                    Some(&submit.endpoint),
                    &external.dialect,
                    &external.id,
                )
                .await?;
            match (first, external.on_duplicate) {
                (Some(job), OnDuplicate::Existing) => return self.accepted_before(job).await.map(Some),
                (Some(job), OnDuplicate::WhileLive) => {
                    let record = self.store.job(None, job).await?;
                    if record.is_some_and(|record| !record.state.is_final()) {
                        return self.accepted_before(job).await.map(Some);
                    }
                }
                (Some(job), OnDuplicate::RejectWithin(life)) => {
                    let record = self.store.job(None, job).await?;
                    if record.is_some_and(|record| self.now() < record.created_at.plus(life)) {
                        let id = external.id.clone();
                        return Err(Error::Duplicate { id, job });
                    }
                }
                (Some(job), OnDuplicate::Reject) => {
                    let id = external.id.clone();
                    return Err(Error::Duplicate { id, job });
                }
                (Some(_), OnDuplicate::Replace) | (None, _) => {}
            }
        }
        let open_lately = self.lengths.borrow().get(&submit.endpoint).copied();
        if open_lately.is_some_and(|open| open < max_queued / 2) {
            return Ok(None);
        }
        let queued = self.store.queued(&submit.endpoint).await?;
        match queued >= max_queued {
            true => Err(Error::QueueFull {
                endpoint: submit.endpoint.to_string(),
                queued,
            }),
            false => Ok(None),
        }
    }
}

/// However often a graph names a file, the job refers to it once.
fn each_once<'a>(files: impl Iterator<Item = &'a InputBlob>) -> Vec<InputBlob> {
    let mut seen = HashSet::new();
    files.filter(|file| seen.insert(&file.key)).cloned().collect()
}

#[cfg(test)]
mod tests;
