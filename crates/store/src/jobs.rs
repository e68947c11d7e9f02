//! Jobs, attempts, and their durable events.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
pub use darkroom_core::attempt::{Lease, RunningOn, Stale};
use darkroom_core::{
    AttemptOutcome, AttemptState, BlobKey, EndpointName, Failure, Fence, InstanceId, JobId, JobState, Keep,
    NodeName, Payload, TenantId, Timestamp,
    event::{Event, NewEvent},
    output::Output,
    scheduler::{Needs, Offers},
};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A job to be accepted.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// Its id, made by the caller of the store.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Which endpoint runs it.
    pub endpoint: EndpointName,
    /// Higher runs first; 0 is normal.
    pub priority: i32,
    /// The request as the runner needs it; large ones are blobs written before this call.
    pub input: Payload,
    /// Credentials of the request, encrypted by the caller of the store; kept until the job is in a final state.
    pub sealed: Option<Vec<u8>>,
    /// Files that the request names, already in the blob store: kept as long as the job is.
    pub input_files: Vec<InputBlob>,
    /// Protocol-neutral facts that travel with the job: which dialect submitted it, options, the client's metadata.
    pub meta: JobMeta,
    /// The client's name for it, with the dialect's duplicate rule.
    pub external_id: Option<ExternalId>,
    /// Expires when it waited this long.
    pub queue_ttl: Option<Duration>,
    /// Attempts that may be lost.
    pub max_attempts: u32,
    /// Refuse when the endpoint has this many queued jobs already.
    pub max_queued: u64,
    /// Where in the line it begins.
    pub entry: Entry,
    /// How long its data is kept, beside its endpoint's retention.
    pub keep: Keep,
}

/// Where a job enters its endpoint's line, among its tenant's jobs of the same priority. Places are numbers that grow by
/// one with every job of the endpoint; the lowest is served first, and of equal ones the older.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Entry {
    /// Behind all: the next number.
    #[default]
    Back,
    /// Before all that entered at the back: the next number, negated. So of several the last one is served first.
    Front,
    /// At a number of the caller's choice.
    At(i64),
}

/// A file that a job's request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputBlob {
    /// Where.
    pub key: BlobKey,
    /// Length in bytes.
    pub size: u64,
    /// Media type.
    pub content_type: String,
}

/// Facts about a job that its states do not depend on. Stored as one JSON column; additive only.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct JobMeta {
    /// The protocol that submitted it (`fc`, `native`, …).
    #[serde(default)]
    pub dialect: String,
    /// The request id of the submitting call.
    #[serde(default)]
    pub request_id: String,
    /// Options of the dialect that its answers depend on (FC: `output_base64`, `output_oss`).
    #[serde(default)]
    pub options: serde_json::Value,
    /// Node ids and classes of the graph's output nodes, for lists and pages.
    #[serde(default)]
    pub summary: String,
    /// Models the graph loads, for `core::scheduler::pick`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub models: Vec<String>,
    /// What the graph needs of a box; kept beside the facts, and read by [`Jobs::needs`].
    #[serde(skip)]
    pub needs: Needs,
    /// The request held credentials, which are stored apart and only until the job ends.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_credentials: bool,
    /// Where to tell of the final state: one outbox row of kind `webhook` is written in its transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<String>,
    /// The client's own labels; lists can be filtered by them ([`JobFilter::labels`]).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// How many nodes of its graph run; 0: not known.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub nodes: u32,
}

fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// A client's name for a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalId {
    /// Which protocol's namespace (`fc_task`, `prompt_id`, …).
    pub dialect: String,
    /// The id.
    pub id: String,
    /// What a second use means.
    pub on_duplicate: OnDuplicate,
}

/// What a second submit with the same external id means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnDuplicate {
    /// Refused; the caller learns the first job's id.
    Reject,
    /// The same while the first job was accepted less than this long ago; afterwards as [`OnDuplicate::Replace`].
    RejectWithin(Duration),
    /// The first job again, nothing new is accepted.
    Existing,
    /// The name moves to the new job; the old job stays.
    Replace,
    /// The first job again while it has not ended; afterwards as [`OnDuplicate::Replace`].
    WhileLive,
}

/// What became of a submit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Submitted {
    /// Accepted: durable when this is returned.
    Accepted {
        /// An instance of the endpoint is ready for it.
        instance_ready: bool,
    },
    /// [`OnDuplicate::Existing`] or [`OnDuplicate::WhileLive`]: this job has the name already.
    Existing(JobId),
    /// [`OnDuplicate::Reject`] or [`OnDuplicate::RejectWithin`]: this job has the name already.
    Duplicate(JobId),
    /// The endpoint's queue holds `max_queued` jobs.
    QueueFull {
        /// How many are queued.
        queued: u64,
    },
}

/// A slot asking for work.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Of which endpoint.
    pub endpoint: EndpointName,
    /// On which instance it will run.
    pub instance: InstanceId,
    /// Which server drives it.
    pub owner: NodeName,
    /// Models the instance has loaded.
    pub loaded_models: Vec<String>,
    /// What its box offers; `None`: it takes any job of the endpoint.
    pub offers: Option<Arc<Offers>>,
    /// How long the lease lasts unless renewed.
    pub lease: Duration,
    /// Jobs that this slot must not get: it may still be at an earlier attempt of theirs, and cannot tell the two apart.
    pub except: Vec<JobId>,
    /// Attempts of one tenant on this endpoint at once; its further jobs wait. 0: no bound.
    pub max_running_per_tenant: u32,
}

/// A job in the hands of a slot.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The job.
    pub job: JobRecord,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// The token that every write of this attempt carries.
    pub fence: Fence,
    /// Why this job and not another, in words.
    pub reason: String,
}

/// The answer to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewed {
    /// A caller asked for the end of the job: stop, then finish as cancelled.
    pub cancel_requested: bool,
}

/// Durable events of an attempt, from who tells them from afar.
#[derive(Debug, Clone)]
pub struct Told {
    /// The process that counts them.
    pub teller: uuid::Uuid,
    /// How many it told of this attempt before these.
    pub first: u64,
    /// These.
    pub events: Vec<NewEvent>,
}

/// The last write of an attempt.
#[derive(Debug, Clone)]
pub struct Finish {
    /// How it ended.
    pub outcome: AttemptOutcome,
    /// The outputs, already in the blob store; empty unless done.
    pub outputs: Vec<Output>,
    /// The protocol-neutral result (ComfyUI: the history's `outputs` and `status`); only when done or failed.
    pub result: Option<Payload>,
    /// Last events, in the same transaction (for example the progress summary).
    pub events: Vec<NewEvent>,
}

impl Finish {
    /// The end of an attempt that made nothing.
    pub fn empty(outcome: AttemptOutcome) -> Finish {
        Finish {
            outcome,
            outputs: vec![],
            result: None,
            events: vec![],
        }
    }
}

/// A stored job.
#[derive(Debug, Clone)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// Whose it is.
    pub tenant: TenantId,
    /// Its endpoint.
    pub endpoint: EndpointName,
    /// Higher runs first.
    pub priority: i32,
    /// Its number in the line (see [`Entry`]); kept when it ended.
    pub place: i64,
    /// Where it is.
    pub state: JobState,
    /// The request.
    pub input: Payload,
    /// Facts.
    pub meta: JobMeta,
    /// When it was accepted.
    pub created_at: Timestamp,
    /// When its last attempt was claimed.
    pub started_at: Option<Timestamp>,
    /// When it entered a final state.
    pub finished_at: Option<Timestamp>,
    /// When its own time is over, if it has a bound.
    pub lives_until: Option<Timestamp>,
    /// When its data is to be deleted, if sooner than its endpoint's retention says; known from its end on.
    pub delete_at: Option<Timestamp>,
    /// Attempts so far.
    pub attempts: u32,
    /// Where the newest of them runs, or ran.
    pub last_instance: Option<InstanceId>,
    /// Attempts that were lost.
    pub lost_attempts: u32,
    /// Attempts that failed because the device was out of memory.
    pub out_of_memory: u32,
    /// A caller asked for its end.
    pub cancel_requested: bool,
    /// Why it did not succeed.
    pub failure: Option<Failure>,
    /// The result.
    pub result: Option<Payload>,
    /// Its outputs.
    pub outputs: Vec<Output>,
    /// The client's name for it, if it gave one (`dialect`, `id`).
    pub external_id: Option<(String, String)>,
}

/// A stored attempt.
#[derive(Debug, Clone)]
pub struct AttemptRecord {
    /// The job.
    pub job: JobId,
    /// Its number, from 1.
    pub number: u32,
    /// Its token.
    pub fence: Fence,
    /// Where it is.
    pub state: AttemptState,
    /// The endpoint.
    pub endpoint: EndpointName,
    /// On which instance.
    pub instance: InstanceId,
    /// Which server drives it.
    pub owner: NodeName,
    /// Set once the prompt was about to be posted.
    pub running_on: Option<RunningOn>,
    /// When it was claimed.
    pub claimed_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// When its lease ends unless renewed.
    pub lease_until: Timestamp,
    /// Why it was picked, and how it ended.
    pub reason: String,
}

/// A filter for lists; empty fields do not filter.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only this tenant's; `None` is for operators.
    pub tenant: Option<TenantId>,
    /// Only this endpoint's.
    pub endpoint: Option<EndpointName>,
    /// Only of these endpoints; `None` is every one, an empty list none.
    pub endpoints: Option<Vec<EndpointName>>,
    /// Only these states.
    pub states: Vec<JobState>,
    /// Only those submitted by this dialect.
    pub dialect: Option<String>,
    /// Only those whose external id begins with this.
    pub external_id_prefix: Option<String>,
    /// Accepted at or after.
    pub created_from: Option<Timestamp>,
    /// Accepted before.
    pub created_before: Option<Timestamp>,
    /// Whose last attempt was claimed at or after; those that never began are left out.
    pub started_from: Option<Timestamp>,
    /// Whose last attempt was claimed before; those that never began are left out.
    pub started_before: Option<Timestamp>,
    /// Only those that had an attempt already (`true`), or had none yet (`false`).
    pub attempted: Option<bool>,
    /// Only those whose options, as their dialect wrote them down, have this text under this key.
    pub option: Option<(&'static str, String)>,
    /// Only those with all of these labels; `tenant` must be given beside them.
    pub labels: Vec<(String, String)>,
    /// Oldest first instead of newest first.
    pub oldest_first: bool,
}

/// A job and its caller's name for it: what a list needs to know of jobs that it reads one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedJob {
    /// Which.
    pub id: JobId,
    /// Dialect and name.
    pub external_id: Option<(String, String)>,
}

/// A page of a list: at most `limit` rows after `after` (keyset; job ids are time-ordered).
#[derive(Debug, Clone)]
pub struct Page {
    /// Rows at most, 1 to 1000.
    pub limit: u32,
    /// The last job of the page before.
    pub after: Option<JobId>,
}

/// Numbers the planner and the metrics read; never rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueCounters {
    /// Jobs waiting.
    pub queued: u64,
    /// Of those, with negative priority.
    pub queued_low_priority: u64,
    /// Jobs held by an attempt, not counting those that are collecting.
    pub running: u64,
    /// When the oldest waiting job was accepted.
    pub oldest_queued_at: Option<Timestamp>,
    /// When the first waiting job expires.
    pub next_expiry_at: Option<Timestamp>,
    /// Since when an operator keeps its line from being served; `None`: it is served.
    pub paused_since: Option<Timestamp>,
    /// Jobs whose attempt is collecting: not in `running`, their slots are free.
    pub collecting: u64,
    /// When the first lease of an open attempt ends unless renewed.
    pub next_lease_expiry_at: Option<Timestamp>,
    /// Jobs that succeeded so far, also those that were swept since.
    pub completed: u64,
    /// Jobs that failed or ran out of time so far.
    pub failed: u64,
    /// Ended jobs that were queued again by an explicit wish.
    pub retried: u64,
}

/// What a job's newest attempt yielded and nobody was given yet.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Unstreamed {
    /// The last event that was handed out: what [`Jobs::mark_streamed`] goes on from.
    pub after: u64,
    /// The next `chunk` events, oldest first.
    pub chunks: Vec<Event>,
    /// There are no more, and the attempt yielded more than is kept.
    pub truncated: bool,
}

/// What a cancel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// It was waiting and is cancelled now.
    Now,
    /// It is running: the attempt was told.
    Requested,
    /// It had ended already.
    AlreadyFinal(JobState),
}

/// What a deletion did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The job is gone with all that was its own.
    Now,
    /// It has not ended, and stays.
    NotEnded,
    /// Its end is still to be told, and it stays until then.
    StillTold,
}

/// What a history page is made of: jobs of one tenant and endpoint that ended, but those that were cancelled before they
/// ever began, and those that were taken out ([`Jobs::forget`]).
#[derive(Debug, Clone)]
pub struct HistoryFilter {
    /// Whose.
    pub tenant: TenantId,
    /// Of which endpoint.
    pub endpoint: EndpointName,
    /// Only these final states; empty: all.
    pub states: Vec<JobState>,
    /// Only those whose `meta.options.workflow_id` is this.
    pub workflow_id: Option<String>,
}

/// In which order history is paged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HistoryOrder {
    /// By their ends.
    Ended,
    /// By when they were accepted.
    Accepted,
    /// By how long their last attempt took.
    Duration,
}

/// A piece of history, counted from its beginning in the order asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HistoryPage {
    /// The order.
    pub order: HistoryOrder,
    /// Newest or longest first.
    pub descending: bool,
    /// Rows left out.
    pub offset: u64,
    /// Rows at most, up to 10 000.
    pub limit: u32,
}

/// Where in its endpoint's line a waiting job is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// It is taken next.
    First,
    /// Behind all that wait now; a job of normal priority stays before those that start no instance.
    Last,
    /// Right before this one.
    Before(JobId),
}

/// What became of a move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// It stands there now.
    Now,
    /// It does not wait (any more).
    NotWaiting(JobState),
    /// The job that it should stand before does not wait in that line.
    NoSuchPlace,
}

/// The outcome of one sweeping step.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rows removed or changed.
    pub rows: u64,
    /// Whether there is more to do at once.
    pub more: bool,
}

/// Jobs. Unless said otherwise, a verb returns after its transaction is durable (fsync).
#[async_trait]
pub trait Jobs: Send + Sync {
    /// Accepts a job together with its external id, or says why not. Also appends its first `state` event.
    async fn submit(&self, job: NewJob) -> Result<Submitted, Error>;

    /// Hands the best waiting job of an endpoint to a slot (`core::scheduler::pick`), under a new fence and lease.
    /// Survives kill -9 when it returns, but does not wait for the disk: a lost claim is a redelivery.
    async fn claim(&self, claim: Claim) -> Result<Option<Claimed>, Error>;

    /// Records where an attempt runs, before its prompt is posted. Survives kill -9, does not wait for the disk.
    async fn start(&self, lease: Lease, on: RunningOn) -> Result<Result<(), Stale>, Error>;

    /// The instance is done and its slot is free; outputs wait for the blob store. Survives kill -9, does not wait for
    /// the disk: after a power loss the instance is gone as well.
    async fn collecting(&self, lease: Lease) -> Result<Result<(), Stale>, Error>;

    /// Extends the lease by `ttl` from the store's now. Does not wait for the disk.
    async fn renew(&self, lease: Lease, ttl: Duration) -> Result<Result<Renewed, Stale>, Error>;

    /// Takes over a running attempt after a restart: new owner, extended lease, the same fence.
    async fn adopt(&self, lease: Lease, owner: NodeName, ttl: Duration) -> Result<Result<(), Stale>, Error>;

    /// Appends durable events of a running attempt, in order, and returns the number of the last one. Survives kill -9,
    /// does not wait for the disk. Beyond the attempt's room for a kind (`EventKind::room`) a single `truncated` event is
    /// written and the rest of that kind is dropped.
    async fn append_events(&self, lease: Lease, events: Vec<NewEvent>) -> Result<Result<u64, Stale>, Error>;

    /// The same for who tells from afar and may have to tell again, because an answer was lost: those of the events that
    /// were taken already are left out.
    async fn append_told(&self, lease: Lease, told: Told) -> Result<Result<u64, Stale>, Error>;

    /// Appends what a running attempt yielded, each JSON, in order and as a `chunk` event: `{"output": …}` of a small one,
    /// `{"blob": key, "size": bytes}` of one that lies in the blob store, which keeps it as long as the job. Returns the
    /// number of the last one.
    async fn append_chunks(&self, lease: Lease, chunks: Vec<Payload>) -> Result<Result<u64, Stale>, Error>;

    /// Ends an attempt and applies `core::job::apply`: one final transition, one result, one outbox row, or the job
    /// is queued again. Returns the job's state after it.
    async fn finish(&self, lease: Lease, finish: Finish) -> Result<Result<JobState, Stale>, Error>;

    /// Asks for the end of a job; `None` when there is no such job of that tenant (`tenant: None` is an operator).
    async fn cancel(&self, tenant: Option<&TenantId>, job: JobId) -> Result<Option<Cancelled>, Error>;

    /// Queues a finished job again, as an explicit wish; `None` when there is no such job, `Some(false)` when it has not ended.
    async fn retry(&self, tenant: Option<&TenantId>, job: JobId) -> Result<Option<bool>, Error>;

    /// From now on a job's own time is over after `rest`, unless it is sooner; `None` when there is no such job of that
    /// tenant. It may wait until then, and its data is deleted then if it has ended.
    async fn shorten_life(
        &self,
        tenant: Option<&TenantId>,
        job: JobId,
        rest: Duration,
    ) -> Result<Option<()>, Error>;

    /// One job; `tenant: None` is an operator.
    async fn job(&self, tenant: Option<&TenantId>, job: JobId) -> Result<Option<JobRecord>, Error>;

    /// The encrypted credentials of a job that has not ended.
    async fn sealed(&self, job: JobId) -> Result<Option<Vec<u8>>, Error>;

    /// The job with an external id.
    async fn job_by_external_id(
        &self,
        tenant: &TenantId,
        endpoint: Option<&EndpointName>,
        dialect: &str,
        id: &str,
    ) -> Result<Option<JobId>, Error>;

    /// A page of jobs.
    async fn jobs(&self, filter: JobFilter, page: Page) -> Result<Vec<JobRecord>, Error>;

    /// A tenant's waiting jobs of an endpoint in the order in which they are served, at most `limit`.
    async fn waiting(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        limit: u32,
    ) -> Result<Vec<JobId>, Error>;

    /// These jobs, in this order; those that are gone are left out.
    async fn records(&self, jobs: Vec<JobId>) -> Result<Vec<JobRecord>, Error>;

    /// Which jobs a piece of a tenant's history of one endpoint holds.
    async fn history_names(&self, filter: HistoryFilter, page: HistoryPage) -> Result<Vec<NamedJob>, Error>;

    /// A piece of a tenant's history of one endpoint.
    async fn history(&self, filter: HistoryFilter, page: HistoryPage) -> Result<Vec<JobRecord>, Error>;

    /// How many jobs that history holds in all. Does not count rows, unless by workflow.
    async fn history_len(&self, filter: HistoryFilter) -> Result<u64, Error>;

    /// Takes ended jobs out of their history; by their ids they stay what they are. Others' and unknown ones are left alone.
    /// Returns how many those were.
    async fn forget(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        jobs: Vec<JobId>,
    ) -> Result<u64, Error>;

    /// The same for all that ended until `ended_until`, at most 200 a call.
    async fn forget_all(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        ended_until: Timestamp,
    ) -> Result<Swept, Error>;

    /// Whether an ended job still stands in its history.
    async fn is_remembered(&self, job: JobId) -> Result<bool, Error>;

    /// Cancels a job only while it waits: `false` when it does not, or there is no such job of that tenant.
    async fn cancel_waiting(&self, tenant: Option<&TenantId>, job: JobId) -> Result<bool, Error>;

    /// How many waiting jobs of the endpoint stand before this one in plain order; `None` when it is not waiting.
    async fn position(&self, job: JobId) -> Result<Option<u64>, Error> {
        Ok(self.positions(&[job]).await?.get(&job).copied())
    }

    /// How many waiting jobs of its endpoint stand before each of these in plain order; those that do not wait are left out.
    async fn positions(&self, jobs: &[JobId]) -> Result<BTreeMap<JobId, u64>, Error>;

    /// Hands out no job of the endpoint until it is resumed; `false` when that was so already.
    async fn pause(&self, endpoint: &EndpointName) -> Result<bool, Error>;

    /// Hands out its jobs again; `false` when it was not paused.
    async fn resume(&self, endpoint: &EndpointName) -> Result<bool, Error>;

    /// Moves a waiting job in its endpoint's line; `None` when there is no such job of that tenant.
    async fn move_job(
        &self,
        tenant: Option<&TenantId>,
        job: JobId,
        place: Place,
    ) -> Result<Option<Moved>, Error>;

    /// Cancels jobs that wait at the endpoint and were accepted before `accepted_before`, of one tenant or of all, at most
    /// 200 a call.
    async fn clear(
        &self,
        endpoint: &EndpointName,
        tenant: Option<&TenantId>,
        accepted_before: Timestamp,
    ) -> Result<Swept, Error>;

    /// Tenants that hold `per_tenant` attempts of the endpoint or more, and how many.
    async fn at_quota(
        &self,
        endpoint: &EndpointName,
        per_tenant: u32,
    ) -> Result<BTreeMap<TenantId, u64>, Error>;

    /// Waiting jobs of normal and higher priority that no free slot may take, because their tenants would hold more than
    /// `per_tenant` attempts of the endpoint.
    async fn over_quota(&self, endpoint: &EndpointName, per_tenant: u32) -> Result<u64, Error>;

    /// What waiting jobs of normal and higher priority need of a box, and how many need the same; those of which nothing is
    /// known are left out. Reads the whole line.
    async fn waiting_needs(&self, endpoint: &EndpointName) -> Result<Vec<(Needs, u64)>, Error>;

    /// How long the newest jobs that succeeded on the endpoint took, from their last claim to their end, newest first.
    async fn recent_runs(&self, endpoint: &EndpointName, limit: u32) -> Result<Vec<Duration>, Error>;

    /// What the graph of a job needs of a box, as its submit said; empty when nothing was known.
    async fn needs(&self, job: JobId) -> Result<Needs, Error>;

    /// Durable events with `seq > after`, oldest first, at most `limit`.
    async fn events(&self, job: JobId, after: u64, limit: u32) -> Result<Vec<Event>, Error>;

    /// Chunks that were not handed out yet, at most `limit`.
    async fn unstreamed(&self, job: JobId, limit: u32) -> Result<Unstreamed, Error>;

    /// Notes that chunks up to event `upto` were handed out; `false` when another went on from `after` meanwhile. Survives
    /// kill -9, does not wait for the disk.
    async fn mark_streamed(&self, job: JobId, after: u64, upto: u64) -> Result<bool, Error>;

    /// Attempts of a job, oldest first.
    async fn attempts(&self, job: JobId) -> Result<Vec<AttemptRecord>, Error>;

    /// Attempts that have not ended, of one server or of all.
    async fn open_attempts(&self, owner: Option<&NodeName>) -> Result<Vec<AttemptRecord>, Error>;

    /// How many jobs of an endpoint are queued: one row, for every submit to ask.
    async fn queued(&self, endpoint: &EndpointName) -> Result<u64, Error>;

    /// Counters of every endpoint that has any jobs.
    async fn counters(&self) -> Result<BTreeMap<EndpointName, QueueCounters>, Error>;

    /// Ends attempts whose lease ran out (as lost) and waiting jobs whose time to live passed, at most 200 of each.
    async fn expire(&self) -> Result<Swept, Error>;

    /// Extends every open lease by `gap`: the clock jumped or the server slept.
    async fn extend_leases(&self, gap: Duration) -> Result<(), Error>;

    /// Ends every open lease earlier by `gap`: the wall clock was set back, and dead instances must not stay unnoticed.
    async fn shorten_leases(&self, gap: Duration) -> Result<(), Error>;

    /// Removes finished jobs of an endpoint older than `retention`, with events, attempts, and file references
    /// (dropping the last reference puts a blob into the trash), at most 200 rows a call.
    async fn sweep_finished(&self, endpoint: &EndpointName, retention: Duration) -> Result<Swept, Error>;

    /// Removes one finished job, as the sweeper would; `None` when there is no such job of that tenant (`tenant: None` is an
    /// operator).
    async fn delete_job(&self, tenant: Option<&TenantId>, job: JobId) -> Result<Option<Deleted>, Error>;

    /// As [`Jobs::sweep_finished`], for finished jobs of any endpoint whose own time to be deleted has come ([`JobRecord::delete_at`]).
    async fn sweep_expired(&self) -> Result<Swept, Error>;
}
