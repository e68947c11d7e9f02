//! The world a test runs in, and short ways to make what it needs.

use std::{
    any::Any,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use darkroom_core::{
    AttemptOutcome, BlobKey, Clock, EndpointName, Failure, Ids, InstanceId, JobId, NodeName, Payload,
    TenantId, Timestamp,
    attempt::Lease,
    event::{EventKind, NewEvent},
    failure::FailureCode,
    output::{Output, OutputBody},
};
use uuid::Uuid;

use crate::{
    Store,
    jobs::{Claim, Claimed, ExternalId, Finish, JobMeta, NewJob, OnDuplicate, Submitted},
};

/// A clock that moves when told.
pub(crate) struct TestClock(AtomicI64);

impl TestClock {
    pub(crate) fn new() -> Arc<TestClock> {
        Arc::new(TestClock(AtomicI64::new(1_800_000_000_000_000)))
    }

    pub(crate) fn advance(&self, by: Duration) {
        self.0
            .fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::SeqCst).unsigned_abs())
    }
}

/// Ids in order, as UUIDv7 of one server are.
#[derive(Default)]
pub(crate) struct TestIds(AtomicU64);

impl Ids for TestIds {
    fn uuid_v7(&self) -> Uuid {
        Uuid::from_u128((7 << 76) | u128::from(self.0.fetch_add(1, Ordering::SeqCst) + 1))
    }

    fn uuid_v4(&self) -> Uuid {
        self.uuid_v7()
    }

    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// Handles on one state, and the world around it.
pub(crate) struct World {
    handles: Vec<Arc<dyn Store>>,
    next: AtomicU64,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) ids: TestIds,
    /// What must outlive the handles (a directory, a database); dropped after them.
    _keep: Mutex<Box<dyn Any + Send>>,
}

impl World {
    pub(crate) fn new(
        handles: Vec<Arc<dyn Store>>,
        clock: Arc<TestClock>,
        keep: Box<dyn Any + Send>,
    ) -> World {
        World {
            handles,
            next: AtomicU64::new(0),
            clock,
            ids: TestIds::default(),
            _keep: Mutex::new(keep),
        }
    }

    /// A handle; another one each time, where there are several.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        let n = self.next.fetch_add(1, Ordering::SeqCst);
        &self.handles[usize::try_from(n).unwrap() % self.handles.len()]
    }

    pub(crate) fn new_job(&self) -> NewJob {
        job(&self.ids)
    }

    /// Submits; the job must be accepted.
    pub(crate) async fn accept(&self, job: NewJob) -> JobId {
        let id = job.id;
        let submitted = self.store().submit(job).await.unwrap();
        assert!(matches!(submitted, Submitted::Accepted { .. }), "{submitted:?}");
        id
    }

    pub(crate) async fn accept_one(&self) -> JobId {
        self.accept(self.new_job()).await
    }

    pub(crate) fn claim_for(&self, instance: u128) -> Claim {
        claim_for(instance)
    }

    pub(crate) async fn claim(&self) -> Option<Claimed> {
        self.store().claim(self.claim_for(1)).await.unwrap()
    }

    /// Claims; there must be work.
    pub(crate) async fn claim_lease(&self) -> Lease {
        lease(&self.claim().await.expect("work is waiting"))
    }

    /// Finishes; the lease must be good.
    pub(crate) async fn finish(&self, lease: Lease, finish: Finish) -> darkroom_core::JobState {
        self.store()
            .finish(lease, finish)
            .await
            .unwrap()
            .expect("not stale")
    }
}

pub(crate) fn endpoint() -> EndpointName {
    "default".parse().unwrap()
}

pub(crate) fn tenant(name: &str) -> TenantId {
    name.parse().unwrap()
}

pub(crate) fn node(name: &str) -> NodeName {
    name.parse().unwrap()
}

/// A claim of server `a` for an instance, with a lease of 30 s.
pub(crate) fn claim_for(instance: u128) -> Claim {
    Claim {
        endpoint: endpoint(),
        instance: InstanceId::from_uuid(Uuid::from_u128(instance)),
        owner: node("a"),
        loaded_models: Vec::new(),
        offers: None,
        lease: Duration::from_secs(30),
        except: vec![],
        max_running_per_tenant: 0,
    }
}

pub(crate) fn lease(claimed: &Claimed) -> Lease {
    Lease {
        job: claimed.job.id,
        fence: claimed.fence,
    }
}

/// A plain job of tenant `t`.
pub(crate) fn job(ids: &dyn Ids) -> NewJob {
    NewJob {
        id: JobId::new(ids),
        tenant: tenant("t"),
        endpoint: endpoint(),
        priority: 0,
        input: Payload::Inline(b"{}".to_vec()),
        sealed: None,
        input_files: vec![],
        meta: JobMeta {
            dialect: "fc".to_owned(),
            ..JobMeta::default()
        },
        external_id: None,
        queue_ttl: None,
        max_attempts: 2,
        max_queued: 1000,
        entry: Default::default(),
        keep: Default::default(),
    }
}

pub(crate) fn external(id: &str, on_duplicate: OnDuplicate) -> Option<ExternalId> {
    Some(ExternalId {
        dialect: "fc_task".to_owned(),
        id: id.to_owned(),
        on_duplicate,
    })
}

pub(crate) fn ends(outcome: AttemptOutcome) -> Finish {
    Finish {
        outcome,
        outputs: Vec::new(),
        result: None,
        events: Vec::new(),
    }
}

pub(crate) fn done() -> Finish {
    ends(AttemptOutcome::Done)
}

pub(crate) fn failed() -> Finish {
    let failure = Failure::new(FailureCode::ExecutionError, "node 3 raised");
    ends(AttemptOutcome::Failed(failure))
}

pub(crate) fn out_of_memory() -> Finish {
    let failure = Failure::new(FailureCode::OutOfMemory, "node 3 raised");
    ends(AttemptOutcome::Failed(failure))
}

pub(crate) fn lost() -> Finish {
    ends(AttemptOutcome::Lost {
        reason: "it died".to_owned(),
    })
}

pub(crate) fn released() -> Finish {
    ends(AttemptOutcome::Released {
        reason: "we drain".to_owned(),
    })
}

pub(crate) fn event(kind: EventKind, data: &str) -> NewEvent {
    NewEvent {
        kind,
        data: data.to_owned(),
    }
}

pub(crate) fn blob(key: &str) -> BlobKey {
    key.parse().unwrap()
}

pub(crate) fn file(key: &str) -> Output {
    Output {
        node_id: "9".to_owned(),
        kind: "images".to_owned(),
        index: 0,
        body: OutputBody::File {
            key: blob(key),
            size: 5,
            content_type: "image/png".to_owned(),
            blake3: "00".to_owned(),
        },
        raw: serde_json::json!({ "filename": "图像.png", "type": "output", "subfolder": "" }),
    }
}
