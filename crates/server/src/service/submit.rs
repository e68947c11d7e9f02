//! A job's way in: limits, intake of files, pre-flight of the graph, payload placement, one durable transaction.

use std::sync::Arc;

use bytes::Bytes;
use darkroom_comfy::{
    graph::{Graph, NodeId},
    object_info::ObjectInfo,
};
use darkroom_core::{
    BlobKey, EndpointName, Ids, JobId, Payload, TenantId, endpoint, payload::INLINE_MAX_BYTES,
};
use darkroom_runner::link::{ComfyWork, InputFile};
use darkroom_store::jobs::{ExternalId, JobMeta, NewJob, OnDuplicate, Submitted};
use serde_json::{Map, Value};

use super::{
    Error, Service, credentials,
    intake::{
        self, Fetch,
        given::{self, Loader},
    },
    preflight::{self, Refusal},
};
use crate::{beside::beside, memory::Held};

/// A graph that somebody wants run.
#[derive(Debug)]
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
}

impl Service {
    /// Accepts a graph as a job: durable when this returns.
    ///
    /// # Errors
    /// Every refusal of [`Error`]; nothing is half-accepted then.
    pub async fn submit_comfy(&self, submit: ComfySubmit) -> Result<Accepted, Error> {
        let mut written = Vec::new();
        let outcome = self.accept(submit, &mut written).await;
        // Nothing stays of a request that was refused, or that was known already.
        if !outcome.as_ref().is_ok_and(|accepted| !accepted.existed) {
            self.discard(written).await;
        }
        outcome
    }

    async fn accept(&self, submit: ComfySubmit, written: &mut Vec<BlobKey>) -> Result<Accepted, Error> {
        let max_queued = self.endpoint(&submit.endpoint)?.limits.max_queued;
        if let Some(known) = self.known(&submit, max_queued).await? {
            return Ok(known);
        }
        let job = self.prepare(submit, written).await?;
        let (id, endpoint) = (job.id, job.endpoint.clone());
        let external_name = job.external_id.as_ref().map(|e| e.id.clone()).unwrap_or_default();
        match self.store.submit(job).await? {
            Submitted::Accepted => {
                self.metrics.job_submitted(&endpoint);
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
                endpoint: endpoint.to_string(),
                queued,
            }),
        }
    }

    /// Everything that comes before the row: the graph is checked, its files and its body are stored, and named in
    /// `written`.
    ///
    /// # Errors
    /// Every refusal of [`Error`]; the caller discards what was written.
    pub(super) async fn prepare(
        &self,
        mut submit: ComfySubmit,
        written: &mut Vec<BlobKey>,
    ) -> Result<NewJob, Error> {
        let endpoint = self.endpoint(&submit.endpoint)?;
        if endpoint.kind != endpoint::Kind::Comfyui {
            return Err(Error::Invalid(format!(
                "endpoint '{}' does not take ComfyUI workflows",
                endpoint.name
            )));
        }
        let info = self.object_info(&submit.endpoint).await?;
        let size = submit.size_bytes;
        let reading = Reading {
            ids: self.ids.clone(),
            graph: submit.graph,
            targets: submit.targets.clone(),
            randomise_seeds: submit.randomise_seeds,
            info,
            embedded: endpoint.runs_embedded_engine(),
        };
        let read = beside(size, move || reading.read())
            .await
            .map_err(Error::InvalidGraph)?;
        // Only files of a graph that will be accepted are brought. Meanwhile others work: what waits is the graph, which
        // is no larger than the body was.
        submit.memory.rest();
        let taken = self
            .take_in(
                &submit.tenant,
                &submit.endpoint,
                read.loaders,
                submit.fetch,
                written,
            )
            .await?;
        submit.memory.work_on().await?;
        let input_files = taken.iter().filter_map(|t| t.blob.clone()).collect();
        let mut meta = submit.meta;
        let id = JobId::new(&*self.ids);
        let mut extra_data = submit.extra_data;
        let credentials = credentials::take_out(&mut extra_data);
        meta.has_credentials = !credentials.is_empty();
        let sealed = self.seal_credentials(id, &credentials)?;
        let writing = Writing {
            graph: read.graph,
            outputs: read.outputs,
            files: taken.into_iter().map(|t| t.file).collect(),
            extra_data,
            targets: submit.targets,
        };
        let written_down = beside(size, move || writing.write()).await;
        let (body, summary, models) = written_down.map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        (meta.summary, meta.models) = (summary, models);
        let key = BlobKey::job_input(id);
        written.push(key.clone());
        let input = self.place_input(key, body.into()).await?;
        Ok(NewJob {
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
        })
    }

    /// What can be said of a submit before any work on it: the job that has its name already, so that a repeated request
    /// costs nothing and needs nothing that was there the first time; and that the queue is full. Two reads; the
    /// transaction decides.
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
                (Some(job), OnDuplicate::Existing) => return Ok(Some(Accepted { job, existed: true })),
                (Some(job), OnDuplicate::Reject) => {
                    let id = external.id.clone();
                    return Err(Error::Duplicate { id, job });
                }
                (Some(_), OnDuplicate::Replace) | (None, _) => {}
            }
        }
        let queued = self.store.counters().await?;
        let queued = queued.get(&submit.endpoint).map_or(0, |c| c.queued);
        match queued >= max_queued {
            true => Err(Error::QueueFull {
                endpoint: submit.endpoint.to_string(),
                queued,
            }),
            false => Ok(None),
        }
    }

    /// As [`Service::place`], for what a caller sent: only while there is more space than the disk reserve.
    pub(super) async fn place_input(&self, key: BlobKey, body: Bytes) -> Result<Payload, Error> {
        if body.len() <= INLINE_MAX_BYTES {
            return Ok(Payload::Inline(body.to_vec()));
        }
        let size = body.len() as u64;
        self.put_intended(&key, body).await?;
        Ok(Payload::Blob { key, size })
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
}

/// A graph on its way from JSON to one that may run. All of it is work of the processor alone.
struct Reading {
    ids: Arc<dyn Ids>,
    graph: Value,
    targets: Option<Vec<String>>,
    randomise_seeds: bool,
    info: Option<Arc<ObjectInfo>>,
    embedded: bool,
}

/// A graph that may run, and what its loaders name.
struct Read {
    graph: Graph,
    outputs: Vec<NodeId>,
    loaders: Vec<Loader>,
}

impl Reading {
    fn read(self) -> Result<Read, Box<Refusal>> {
        let mut graph = Graph::parse(&self.graph).map_err(|e| Box::new(Refusal::from(e)))?;
        drop(self.graph);
        if self.randomise_seeds {
            randomise_seeds(&mut graph, &*self.ids);
        }
        intake::refuse_instance_files(&graph)?;
        let targets: Option<Vec<NodeId>> = self
            .targets
            .as_ref()
            .map(|t| t.iter().map(|id| NodeId::new(id.as_str())).collect());
        let valid = preflight::check(&graph, self.info.as_deref(), targets.as_deref(), self.embedded)?;
        drop(graph);
        let mut graph = valid.graph;
        Ok(Read {
            loaders: given::find(&mut graph),
            graph,
            outputs: valid.outputs,
        })
    }
}

/// A job's body on its way to JSON, and what lists say of it.
struct Writing {
    graph: Graph,
    outputs: Vec<NodeId>,
    files: Vec<InputFile>,
    extra_data: Map<String, Value>,
    targets: Option<Vec<String>>,
}

impl Writing {
    /// The body, one line for lists, and the models that the graph loads.
    fn write(mut self) -> Result<(Vec<u8>, String, Vec<String>), serde_json::Error> {
        let said = (summary(&self.graph, &self.outputs), models(&self.graph));
        for file in &self.files {
            if let Some(node) = self.graph.nodes.get_mut(file.node_id.as_str()) {
                let name = Value::String(file.file_name.clone());
                node.inputs.insert(file.input.clone(), name);
            }
        }
        let work = ComfyWork {
            graph: self.graph.to_value(),
            extra_data: self.extra_data,
            partial_execution_targets: self.targets,
            files: self.files,
        };
        Ok((serde_json::to_vec(&work)?, said.0, said.1))
    }
}

/// The Serverless API's rule: exactly class `KSampler`, exactly −1, 0 to 2^32 inclusive.
fn randomise_seeds(graph: &mut Graph, ids: &dyn Ids) {
    for node in graph.nodes.values_mut().filter(|n| n.class_type == "KSampler") {
        if node.inputs.get("seed").and_then(Value::as_f64) == Some(-1.0) {
            let mut random = [0; 8];
            ids.fill(&mut random);
            let seed = u64::from_le_bytes(random) % ((1 << 32) + 1);
            node.inputs.insert("seed".to_owned(), Value::from(seed));
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

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        sync::{
            atomic::{AtomicU32, Ordering},
            mpsc,
        },
        time::Duration,
    };

    use base64::{Engine, engine::general_purpose::STANDARD};
    use serde_json::json;
    use tokio::sync::oneshot;

    use super::*;
    use crate::{beside::tests::MEANWHILE, service::testing::Bench};

    /// Nobody serves it, and nothing is known of its nodes.
    const PARKED: &str = "[endpoints.parked]\ncommand = [\"/nobody\", \"{port}\"]\nscaling = { max_instances = 0 }\n[endpoints.parked.limits]\nmax_queued = 2\n";

    fn submit(graph: Value, name: Option<(&str, OnDuplicate)>) -> ComfySubmit {
        ComfySubmit {
            tenant: "t".parse().unwrap(),
            endpoint: "parked".parse().unwrap(),
            size_bytes: graph.to_string().len(),
            graph,
            extra_data: Map::new(),
            targets: None,
            priority: 0,
            external_id: name.map(|(id, on_duplicate)| ExternalId {
                dialect: "test".into(),
                id: id.into(),
                on_duplicate,
            }),
            randomise_seeds: false,
            fetch: Fetch::Now,
            meta: JobMeta::default(),
            memory: Held::default(),
        }
    }

    /// A file inline, and a body that is itself a blob.
    fn with_file(second: &str) -> Value {
        let data = STANDARD.encode([7; 300]);
        json!({
            "1": {"class_type": "LoadAudio", "inputs": {"audio": data}},
            "2": {"class_type": "LoadAudio", "inputs": {"audio": second}},
            "3": {"class_type": "Text", "inputs": {"text": "x".repeat(2 * INLINE_MAX_BYTES)}},
        })
    }

    async fn in_trash(bench: &Bench) -> Vec<BlobKey> {
        bench.clock.advance(Duration::from_secs(2 * 24 * 3600));
        let store = &bench.service.store;
        store.trash_due(Duration::ZERO, 100).await.unwrap()
    }

    #[tokio::test]
    async fn a_refused_submit_leaves_no_blobs() {
        let bench = Bench::configured(PARKED);
        let refused = async |submit: ComfySubmit, why: &str| {
            let before = bench.blob_keys().await;
            let outcome = bench.service.submit_comfy(submit).await;
            let code = match &outcome {
                Ok(accepted) => {
                    if accepted.existed {
                        "existed"
                    } else {
                        "accepted"
                    }
                }
                Err(error) => error.code(),
            };
            assert_eq!(code, why);
            assert_eq!(bench.blob_keys().await, before, "{why}");
            assert!(in_trash(&bench).await.is_empty(), "{why}");
        };
        let fine = STANDARD.encode([8; 300]);
        refused(submit(with_file("no-such.wav"), None), "invalid_graph").await;
        let by_url = with_file("http://127.0.0.1:1/x.wav");
        refused(submit(by_url, None), "input_unavailable").await;

        let first = submit(with_file(&fine), Some(("a", OnDuplicate::Reject)));
        bench.service.submit_comfy(first).await.unwrap();
        assert_eq!(bench.blob_keys().await.len(), 3);
        let again = submit(with_file(&fine), Some(("a", OnDuplicate::Reject)));
        refused(again, "duplicate").await;
        let again = submit(with_file(&fine), Some(("a", OnDuplicate::Existing)));
        refused(again, "existed").await;
        bench
            .service
            .submit_comfy(submit(with_file(&fine), None))
            .await
            .unwrap();
        refused(submit(with_file(&fine), None), "queue_full").await;
    }

    #[tokio::test]
    async fn what_is_sent_twice_is_stored_once() {
        let bench = Bench::configured(PARKED);
        let same = STANDARD.encode([7; 300]);
        bench
            .service
            .submit_comfy(submit(with_file(&same), None))
            .await
            .unwrap();
        assert_eq!(bench.blob_keys().await.len(), 2, "the file and the body");
    }

    #[tokio::test]
    async fn below_the_disk_reserve_no_byte_of_a_caller_is_written_and_results_still_are() {
        let bench = Bench::configured(PARKED);
        bench.free_space.store(1 << 20, Ordering::SeqCst);
        let (tenant, endpoint) = ("t".parse().unwrap(), "parked".parse().unwrap());
        let upload = async || {
            let bytes = futures::stream::iter([Ok(Bytes::from_static(b"bytes"))]);
            let service = &bench.service;
            service
                .upload(&tenant, &endpoint, "a.wav", Box::pin(bytes), 100)
                .await
        };
        assert_eq!(upload().await.unwrap_err().code(), "unavailable");
        let given = submit(with_file(&STANDARD.encode([8; 300])), None);
        let refused = bench.service.submit_comfy(given).await.unwrap_err();
        assert_eq!(refused.code(), "unavailable");
        assert_eq!(bench.blobs.puts(), 0, "refused before anything was written");
        let result = Bytes::from(vec![1; 2 * INLINE_MAX_BYTES]);
        let key = BlobKey::job_part(JobId::new(&*bench.service.ids), "result-1.json");
        bench.service.place(key, result).await.unwrap();
        bench.free_space.store(u64::MAX, Ordering::SeqCst);
        upload().await.unwrap();
    }

    /// A web server that says when it is asked, and answers once the gate opens.
    async fn gated(bytes: &'static [u8]) -> (String, oneshot::Receiver<()>, oneshot::Sender<()>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/x.wav", listener.local_addr().unwrap());
        let (asked, is_asked) = oneshot::channel();
        let (open, gate) = oneshot::channel();
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            drop(listener);
            let mut request = [0; 1024];
            let _ = socket.read(&mut request).await;
            asked.send(()).unwrap();
            let _: Result<(), _> = gate.await;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", bytes.len());
            socket
                .write_all(&[head.as_bytes(), bytes].concat())
                .await
                .unwrap();
        });
        (url, is_asked, open)
    }

    fn fetching() -> String {
        format!("[fetch]\nallow = [\"127.0.0.1\"]\n[server]\nbody_memory = \"8MiB\"\n{PARKED}")
    }

    #[tokio::test]
    async fn nobody_holds_the_memory_for_work_while_a_web_server_takes_its_time() {
        let bench = Bench::configured(&fetching());
        let memory = &bench.service.memory;
        // All there is for work, by far.
        let size: u64 = 3 << 20;
        let (url, asked, open) = gated(b"bytes").await;
        let mut slow = submit(with_file(&url), None);
        slow.memory = memory.work(memory.read(size).await.unwrap(), size).await.unwrap();
        let mut slow = pin!(bench.service.submit_comfy(slow));
        tokio::select! {
            early = &mut slow => panic!("{early:?}"),
            asked = asked => asked.unwrap(),
        }
        let body = memory.read(1 << 20).await.unwrap();
        let other = memory.work(body, 1 << 20).await;
        drop(other.expect("others work meanwhile"));
        open.send(()).unwrap();
        slow.await.unwrap();
    }

    #[tokio::test]
    async fn a_repeated_request_needs_nothing_that_was_there_the_first_time() {
        let bench = Bench::configured(&fetching());
        let (url, _asked, open) = gated(b"bytes").await;
        open.send(()).unwrap();
        let again = || submit(with_file(&url), Some(("a", OnDuplicate::Existing)));
        let first = bench.service.submit_comfy(again()).await.unwrap();
        // The web server is gone.
        let second = bench.service.submit_comfy(again()).await.unwrap();
        assert_eq!((second.job, second.existed), (first.job, true));
        let rejected = submit(with_file(&url), Some(("a", OnDuplicate::Reject)));
        let rejected = bench.service.submit_comfy(rejected).await.unwrap_err();
        assert_eq!(rejected.code(), "duplicate");
        let fine = STANDARD.encode([8; 300]);
        bench
            .service
            .submit_comfy(submit(with_file(&fine), None))
            .await
            .unwrap();
        let full = bench
            .service
            .submit_comfy(submit(with_file(&url), None))
            .await
            .unwrap_err();
        assert_eq!(full.code(), "queue_full", "nothing is fetched for a full queue");
    }

    #[tokio::test]
    async fn a_body_of_many_megabytes_does_not_hold_the_runtime() {
        let bench = Bench::configured(PARKED);
        let mut graph = with_file(&STANDARD.encode(vec![9; 12 << 20]));
        for n in 10..5000 {
            graph[n.to_string()] = json!({"class_type": "Text", "inputs": {"text": "some words", "n": n}});
        }
        let submit = submit(graph, None);
        // Each piece of work waits until the runtime's only thread answers it.
        let (ask, mut asked) = tokio::sync::mpsc::unbounded_channel::<mpsc::Sender<()>>();
        tokio::spawn(async move {
            while let Some(reply) = asked.recv().await {
                reply.send(()).unwrap();
            }
        });
        let pieces = Arc::new(AtomicU32::new(0));
        let counted = pieces.clone();
        let meanwhile = Arc::new(move || {
            let (reply, answered) = mpsc::channel();
            ask.send(reply).unwrap();
            answered.recv_timeout(Duration::from_secs(60)).unwrap();
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let submitted = MEANWHILE.scope(meanwhile, bench.service.submit_comfy(submit));
        submitted.await.unwrap();
        assert_eq!(pieces.load(Ordering::SeqCst), 2, "reading and writing");
    }
}
