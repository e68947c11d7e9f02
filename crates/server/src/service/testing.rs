//! A service on a real store and real files in a temporary directory, for tests of what the service does with them.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_blobs::{BlobMeta, BlobReader, BlobStat, Blobs, Error, Listed, LocalBlobs, signed_url::Signer};
use darkroom_core::{
    BlobKey, Clock, EndpointName, InstanceId, InstanceState, JobId, Payload, Timestamp, attempt::Lease,
};
use darkroom_store::{
    Store,
    catalog::InstanceRecord,
    jobs::{Claim, JobMeta, JobRecord, NewJob},
    sqlite::{Options, SqliteStore},
};
use futures::stream::BoxStream;

mod world;

pub(crate) use world::SlotWorld;

use super::{Parts, Service, Settings, fetch, hub, object_info};
use crate::{
    config::{Config, Overrides},
    memory::BodyMemory,
    metrics::Metrics,
};

/// The bench; its directory goes away with it.
pub(crate) struct Bench {
    pub service: Service,
    pub blobs: Arc<FlakyBlobs>,
    pub clock: Arc<MovedClock>,
    /// What the store is told is left of the disk, in bytes.
    pub free_space: Arc<AtomicU64>,
    dir: tempfile::TempDir,
}

impl Bench {
    /// One endpoint, `default`, as without any configuration.
    pub fn new() -> Bench {
        Bench::configured("")
    }

    /// As a configuration says.
    pub fn configured(toml: &str) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(MovedClock {
            system: SystemClock::new(),
            ahead_micros: AtomicU64::new(0),
            at_each_look_micros: AtomicU64::new(0),
        });
        let free_space = Arc::new(AtomicU64::new(u64::MAX));
        let told = free_space.clone();
        let options = Options {
            free_space: Arc::new(move |_| Ok(told.load(Ordering::SeqCst))),
            ..Options::new(clock.clone())
        };
        let store = SqliteStore::open(&dir.path().join("db.sqlite"), options).unwrap();
        let store: Arc<dyn Store> = Arc::new(store);
        let blobs = dir.path().join("blobs");
        std::fs::create_dir(&blobs).unwrap();
        let blobs = Arc::new(FlakyBlobs {
            inner: LocalBlobs::open(&blobs, None).unwrap(),
            failures: AtomicU32::new(0),
            puts: AtomicU32::new(0),
        });
        let config = Config::from_text(None, toml, &Default::default(), &Overrides::default()).unwrap();
        let service = Service::new(Parts {
            store,
            blobs: blobs.clone(),
            hub: hub::Hub::default(),
            clock: clock.clone(),
            ids: Arc::new(SystemIds),
            signer: Signer::new(&[7; 32]),
            vault: super::credentials::Vault::new(&[7; 32]),
            fetcher: fetch::Fetcher::new(fetch::Rules {
                allow: config.fetch.allow,
                deny: config.fetch.deny,
                max_bytes: config.fetch.max_bytes,
                timeout: config.fetch.timeout,
            })
            .unwrap(),
            webhooks: super::webhooks::Webhooks::new(&[7; 32]),
            memory: BodyMemory::new(config.server.body_memory),
            object_infos: object_info::Cache::default(),
            pickers: Default::default(),
            facts: Default::default(),
            buckets: Default::default(),
            fetched: super::intake::Cached::new(config.fetch.cache_bytes),
            looks: Default::default(),
            pictures: Default::default(),
            node: "local".parse().unwrap(),
            endpoints: std::sync::RwLock::new(Arc::new(super::shared(config.endpoints))),
            settings: Settings {
                url_expiry: Duration::from_secs(60),
            },
            metrics: Arc::new(Metrics::new()),
            planner: std::sync::OnceLock::new(),
            attached: Default::default(),
            attention: Default::default(),
            holding: Default::default(),
            deletions: tokio::sync::RwLock::default(),
            chores: Default::default(),
            clients: Default::default(),
            lengths: Default::default(),
            streams: super::streams::Streams::new(config.server.max_event_streams),
            agents: Default::default(),
            pull: super::pull::PullWorkers::new(&[7; 32], "http://127.0.0.1:8288".to_owned()),
            objects: super::objects::Objects::new(&[7; 32], "http://127.0.0.1:8288".to_owned()),
            pools: Default::default(),
            published: Default::default(),
            failpoint: None,
        });
        service.agents_may_connect();
        Bench {
            service,
            blobs,
            clock,
            free_space,
            dir,
        }
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    pub fn endpoint(&self) -> EndpointName {
        "default".parse().unwrap()
    }

    /// A ready instance of the endpoint.
    pub async fn instance(&self) -> InstanceId {
        let now = self.service.clock.now();
        let record = InstanceRecord {
            id: InstanceId::new(&*self.service.ids),
            endpoint: self.endpoint(),
            home: self.service.node.clone(),
            state: InstanceState::Ready,
            state_since: now,
            created_at: now,
            gpu: None,
            box_name: String::new(),
            handle: None,
            start_reason: String::new(),
            state_reason: String::new(),
            jobs_done: 0,
            phases: vec![],
        };
        self.service.store.add_instance(record.clone()).await.unwrap();
        record.id
    }

    /// An accepted job whose request is a blob.
    pub async fn job(&self, request: &str) -> JobId {
        self.job_with(request, JobMeta::default()).await
    }

    /// One with what its submit wrote down about it.
    pub async fn job_with(&self, request: &str, meta: JobMeta) -> JobId {
        let id = JobId::new(&*self.service.ids);
        let key = BlobKey::job_input(id);
        let request = Bytes::copy_from_slice(request.as_bytes());
        self.blobs.put_bytes(&key, request.clone()).await.unwrap();
        let job = NewJob {
            id,
            tenant: "default".parse().unwrap(),
            endpoint: self.endpoint(),
            priority: 0,
            input: Payload::Blob {
                key,
                size: request.len() as u64,
            },
            sealed: None,
            input_files: vec![],
            meta,
            external_id: None,
            queue_ttl: None,
            max_attempts: 3,
            max_queued: 100,
            entry: Default::default(),
            keep: Default::default(),
        };
        self.service.store.submit(job).await.unwrap();
        id
    }

    /// Lets an attempt of the only waiting job begin, in nobody's hands.
    pub async fn claimed(&self, job: JobId) -> Lease {
        let claim = Claim {
            endpoint: self.endpoint(),
            instance: self.instance().await,
            owner: self.service.node.clone(),
            loaded_models: vec![],
            offers: None,
            lease: Duration::from_secs(600),
            except: vec![],
            max_running_per_tenant: 0,
        };
        let claimed = self.service.store.claim(claim).await.unwrap().unwrap();
        let fence = claimed.fence;
        assert_eq!(claimed.job.id, job);
        Lease { job, fence }
    }

    /// Lets an instance of the endpoint tell what it can do.
    pub async fn learn(&self, object_info: Vec<u8>) {
        let endpoint = self.endpoint();
        let learned = self
            .service
            .learn_object_info(&endpoint, "engine", object_info)
            .await;
        learned.unwrap();
    }

    /// Stores bytes that no row names.
    pub async fn put_blob(&self, key: &str) {
        let key: BlobKey = key.parse().unwrap();
        let bytes = Bytes::from_static(b"bytes");
        self.blobs.put_bytes(&key, bytes).await.unwrap();
    }

    /// The keys of all blobs.
    pub async fn blob_keys(&self) -> Vec<String> {
        let listed = self.blobs.list(None, 10_000).await.unwrap();
        listed.iter().map(|blob| blob.key.to_string()).collect()
    }

    /// Forgets an endpoint, as a reload does whose file does not have it any more.
    pub fn remove_endpoint(&self, name: &str) {
        let name: EndpointName = name.parse().unwrap();
        let mut endpoints = BTreeMap::clone(&self.service.endpoints());
        endpoints.remove(&name).unwrap();
        self.service.set_endpoints(endpoints);
    }

    pub async fn record(&self, job: JobId) -> JobRecord {
        self.service.store.job(None, job).await.unwrap().unwrap()
    }
}

/// The system's clock, further on by what tests add.
pub struct MovedClock {
    system: SystemClock,
    ahead_micros: AtomicU64,
    at_each_look_micros: AtomicU64,
}

impl MovedClock {
    /// From now on so much time passes whenever somebody reads the time that never jumps.
    pub fn pass_at_each_look(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap();
        self.at_each_look_micros.store(micros, Ordering::SeqCst);
    }

    /// Lets so much time pass.
    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap();
        self.ahead_micros.fetch_add(micros, Ordering::SeqCst);
    }

    fn ahead(&self) -> Duration {
        Duration::from_micros(self.ahead_micros.load(Ordering::SeqCst))
    }
}

impl Clock for MovedClock {
    fn now(&self) -> Timestamp {
        self.system.now().plus(self.ahead())
    }

    fn monotonic(&self) -> Duration {
        let passed = self.at_each_look_micros.load(Ordering::SeqCst);
        self.ahead_micros.fetch_add(passed, Ordering::SeqCst);
        self.system.monotonic() + self.ahead()
    }
}

/// Local files that are away as often as a test says.
pub(crate) struct FlakyBlobs {
    inner: LocalBlobs,
    failures: AtomicU32,
    puts: AtomicU32,
}

impl FlakyBlobs {
    /// The next `times` reads fail, as those of a store that is away.
    pub fn fail_reads(&self, times: u32) {
        self.failures.store(times, Ordering::SeqCst);
    }

    /// Failures that were not asked for yet.
    pub fn failures_left(&self) -> u32 {
        self.failures.load(Ordering::SeqCst)
    }

    /// How often anything was written.
    pub fn puts(&self) -> u32 {
        self.puts.load(Ordering::SeqCst)
    }

    fn here(&self) -> Result<(), Error> {
        let left = self
            .failures
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        match left {
            Ok(_) => Err(Error::Unavailable {
                retry_after: Duration::from_secs(1),
                source: "switched off by the test".into(),
            }),
            Err(_) => Ok(()),
        }
    }
}

#[async_trait]
impl Blobs for FlakyBlobs {
    async fn put_bytes(&self, key: &BlobKey, bytes: Bytes) -> Result<BlobMeta, Error> {
        self.puts.fetch_add(1, Ordering::SeqCst);
        self.inner.put_bytes(key, bytes).await
    }
    async fn put_file(&self, key: &BlobKey, path: &Path) -> Result<BlobMeta, Error> {
        self.inner.put_file(key, path).await
    }
    async fn put_stream(
        &self,
        key: &BlobKey,
        body: BoxStream<'_, Result<Bytes, std::io::Error>>,
        max_bytes: u64,
    ) -> Result<BlobMeta, Error> {
        self.puts.fetch_add(1, Ordering::SeqCst);
        self.inner.put_stream(key, body, max_bytes).await
    }
    async fn open(&self, key: &BlobKey, range: Option<Range<u64>>) -> Result<Option<BlobReader>, Error> {
        self.here()?;
        self.inner.open(key, range).await
    }
    async fn read(&self, key: &BlobKey, max_bytes: u64) -> Result<Option<Bytes>, Error> {
        self.here()?;
        self.inner.read(key, max_bytes).await
    }
    async fn stat(&self, key: &BlobKey) -> Result<Option<BlobStat>, Error> {
        self.here()?;
        self.inner.stat(key).await
    }
    async fn delete(&self, key: &BlobKey) -> Result<(), Error> {
        self.inner.delete(key).await
    }
    async fn list(&self, after: Option<&BlobKey>, limit: usize) -> Result<Vec<Listed>, Error> {
        self.inner.list(after, limit).await
    }
}
