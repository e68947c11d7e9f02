//! Queues of items with consumer groups, as EAS's queue service has them (`protocols/eas-queue.md`).
//!
//! An item has an index that is never used again. Every group gets every item, and inside a group one consumer does: that
//! is a delivery. An item goes when every group has committed it, or when somebody deletes it for all of them. Jobs are
//! elsewhere ([`crate::jobs`]); an item may stand for one, and is then never delivered.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use async_trait::async_trait;
use darkroom_core::{EndpointName, JobId, NodeName, Payload, TenantId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::{
    Error,
    jobs::{NewJob, Swept},
};

/// Which queue.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId {
    /// Whose.
    pub tenant: TenantId,
    /// Of which endpoint.
    pub endpoint: EndpointName,
    /// Which of the endpoint's.
    pub side: Side,
}

/// The queues that an endpoint has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// What is to be done.
    Input,
    /// What came of it.
    Sink,
    /// Items of the input that were delivered too often.
    InputRear,
    /// Items of the sink that were delivered too often.
    SinkRear,
}

impl Side {
    /// All of them.
    pub const ALL: [Side; 4] = [Side::Input, Side::Sink, Side::InputRear, Side::SinkRear];

    /// Its stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Side::Input => "input",
            Side::Sink => "sink",
            Side::InputRear => "input_rear",
            Side::SinkRear => "sink_rear",
        }
    }

    /// The side of that word.
    pub fn parse(word: &str) -> Option<Side> {
        Side::ALL.into_iter().find(|side| side.as_str() == word)
    }

    /// Where items go that were delivered too often; a rear has none of its own.
    pub const fn rear(self) -> Option<Side> {
        match self {
            Side::Input => Some(Side::InputRear),
            Side::Sink => Some(Side::SinkRear),
            Side::InputRear | Side::SinkRear => None,
        }
    }
}

/// Keys and values that a client gave to an item, or that it asks for.
pub type Tags = BTreeMap<String, String>;

/// An item to be put.
#[derive(Debug, Clone)]
pub struct NewItem {
    /// Its body; large ones are blobs written before this call.
    pub payload: Payload,
    /// Its tags, the request id among them where the protocol shows it there.
    pub tags: Tags,
    /// Higher is delivered first.
    pub priority: i32,
    /// The id of the request that put it.
    pub request_id: String,
    /// The client chose that id: a second put under it gets the first index again.
    pub named: bool,
    /// Refuse when this many items are there.
    pub max_length: u64,
}

/// What became of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is there, durably, at this index.
    At(u64),
    /// The name was used before, for the item at this index.
    Existing(u64),
    /// `max_length` items are there.
    Full {
        /// How many.
        length: u64,
    },
    /// The queue takes no more items.
    Ended,
}

/// Where the result of a job goes: an item of the endpoint's sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sink {
    /// Tags that travel from the request to its result.
    pub tags: Tags,
    /// The id of the request.
    pub request_id: String,
    /// The priority of the request.
    pub priority: i32,
}

/// A stored item.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// Its index.
    pub index: u64,
    /// Its priority.
    pub priority: i32,
    /// Its tags.
    pub tags: Tags,
    /// Its body; `None` where it was not asked for.
    pub payload: Option<Payload>,
    /// When it was put.
    pub put_at: Timestamp,
    /// The job that stands behind it.
    pub job: Option<JobId>,
}

/// Which items a reader wants.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// From this index on; 0 is the oldest.
    pub from: u64,
    /// The newest ones first, counted from the end; `from` does not matter then.
    pub newest: bool,
    /// Only with these tags.
    pub tags: Tags,
    /// Only of this request.
    pub request_id: Option<String>,
    /// Only of this priority.
    pub priority: Option<i32>,
}

impl Wanted {
    /// Whether it names one item: then it does not matter who else holds it.
    pub fn is_exact(&self) -> bool {
        self.from > 0 || self.newest || self.request_id.is_some()
    }
}

/// Items that a reader takes away.
#[derive(Debug, Clone)]
pub struct Take {
    /// Which.
    pub wanted: Wanted,
    /// Items below this index need not be looked at: [`There::first`] of an earlier look, or 0.
    pub past: u64,
    /// What consumers of this group hold is left alone, unless `wanted` is exact.
    pub group: String,
    /// Nothing at all unless there are this many.
    pub at_least: u32,
    /// Not more.
    pub at_most: u32,
    /// They come back after this time, unless they were deleted.
    pub hold: Duration,
    /// Which server sends them.
    pub node: NodeName,
}

/// What a reader would find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct There {
    /// As many as it wants at least.
    pub enough: bool,
    /// No item below this index will ever be one that it wants.
    pub first: u64,
    /// None below this one can be taken now: where a take need not begin before.
    pub free_from: u64,
}

/// A consumer that connects.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// Its group.
    pub group: String,
    /// Its name, unique in the group: one that connects again takes over.
    pub consumer: String,
    /// Where it begins.
    pub start: Start,
    /// How many items it holds at most that it has not committed.
    pub window: u32,
    /// Its deliveries are committed once they were sent.
    pub auto_commit: bool,
    /// Only items with these tags.
    pub tags: Tags,
    /// To which server.
    pub node: NodeName,
}

/// Where a consumer begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At this index (0: the oldest), with what it held before.
    At(u64),
    /// With what is put from now on.
    New,
}

/// The connection of a consumer; grows for ever, so that a newer one is told from an older one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub i64);

/// The session is not its consumer's newest, or has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another connection of the same consumer took over")]
pub struct TakenOver;

/// When deliveries end that nobody commits, and what becomes of the items.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// An item that its consumer has held for longer is given to another one.
    pub max_idle: Option<Duration>,
    /// What a consumer held that went away is kept for its return this long.
    pub leave_grace: Duration,
    /// An item that was delivered this often is not delivered again.
    pub max_delivery: u32,
    /// Such an item goes to the rear (else it is dropped).
    pub to_rear: bool,
}

/// How far a session has looked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// Items up to this index, by priority, that it need not look at again,
    pub seen: BTreeMap<i32, u64>,
    /// but for these, by priority and index: a get held them, and may give them back.
    pub taken: BTreeSet<(i32, u64)>,
}

/// A session asking for items.
#[derive(Debug, Clone)]
pub struct Deliver {
    /// Who.
    pub session: Session,
    /// What was sent to it and counts as committed with that, as [`Queues::commit_sent`] has it.
    pub sent: Vec<u64>,
    /// Not more than this many, whatever its window.
    pub at_most: u32,
    /// Not more than this much payload (but always one item).
    pub max_bytes: u64,
    /// With their bodies.
    pub bodies: bool,
    /// Where it left off.
    pub scan: Scan,
    /// The queue's rules.
    pub policy: Policy,
}

/// What a session gets.
#[derive(Debug, Clone, Default)]
pub struct Delivered {
    /// The items, best first.
    pub items: Vec<Item>,
    /// Where to go on.
    pub scan: Scan,
    /// There may be more at once, without any wake-up.
    pub more: bool,
    /// When something that others hold may come back.
    pub next_due: Option<Timestamp>,
    /// The queue ended, and holds nothing that this session could still get.
    pub ended: bool,
}

/// What a commit found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Committed {
    /// Indexes that were never given to an item.
    pub never: Vec<u64>,
    /// Items that are there and were never delivered to the group.
    pub not_delivered: Vec<u64>,
}

impl Committed {
    /// With what another part of the same request found.
    pub fn add(&mut self, more: Committed) {
        self.never.extend(more.never);
        self.not_delivered.extend(more.not_delivered);
    }
}

/// A queue and its numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct QueueView {
    /// Which.
    pub id: QueueId,
    /// Items that are there.
    pub length: u64,
    /// Index of the oldest item.
    pub first: Option<u64>,
    /// The last index ever given; 0 when there was none.
    pub last: u64,
    /// When the oldest item was put.
    pub oldest_put_at: Option<Timestamp>,
    /// Deliveries that were not committed yet.
    pub pending: u64,
    /// Consumers that are connected.
    pub consumers: u64,
    /// It takes no more items.
    pub ended: bool,
}

/// A consumer as it is listed.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumerView {
    /// Its group.
    pub group: String,
    /// Its name.
    pub name: String,
    /// The last index that it was sent.
    pub last_index: u64,
    /// What it holds.
    pub pending: u64,
    /// When it left; `None`: it is connected.
    pub left_at: Option<Timestamp>,
    /// When it last came, got, or committed something.
    pub active_at: Timestamp,
    /// Its window.
    pub window: u32,
    /// Its deliveries are committed once they were sent.
    pub auto_commit: bool,
    /// What it asks for.
    pub tags: Tags,
}

/// Where an item stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This many items stand before it.
    Waits(u64),
    /// A consumer has it.
    Held {
        /// Its name.
        consumer: String,
    },
    /// A job stands behind it.
    Job(JobId),
}

/// Queues. Unless said otherwise, a verb returns after its transaction is durable (fsync).
#[async_trait]
pub trait Queues: Send + Sync {
    /// Puts an item, or says why not. Makes the queue where there was none.
    async fn put(&self, queue: &QueueId, item: NewItem) -> Result<Put, Error>;

    /// Puts an item that stands for a job, and accepts the job, in one transaction. The job's own bound
    /// (`max_queued`) counts, not the item's. When the job ends, its item goes and one outbox row of kind `sink` is written.
    async fn put_job(&self, queue: &QueueId, item: NewItem, job: NewJob) -> Result<Put, Error>;

    /// Puts the result of a job on a sink and forgets the outbox row that asked for it, in one transaction; `None` when
    /// the row is gone already, [`Put::Existing`] when a result of the same job under the same request id waits there. No
    /// bound counts: a result is never lost.
    async fn put_result(&self, outbox: i64, sink: &QueueId, item: NewItem) -> Result<Option<Put>, Error>;

    /// Connects a consumer; an older connection of the same name ends with its next [`Queues::deliver`]. What the consumer
    /// held before is kept for it, unless it wants only new items. Survives kill -9, does not wait for the disk.
    async fn join(&self, queue: &QueueId, join: Join) -> Result<Session, Error>;

    /// A connection ended. Nothing happens if it was not its consumer's newest. Does not wait for the disk.
    async fn leave(&self, session: Session) -> Result<(), Error>;

    /// Hands items to a session, as many as its window has room for: those that came back first come first, within one
    /// priority. Survives kill -9, does not wait for the disk: a lost delivery is repeated.
    async fn deliver(&self, deliver: Deliver) -> Result<Result<Delivered, TakenOver>, Error>;

    /// A consumer has done its work. Items that are gone count as committed.
    async fn commit(&self, queue: &QueueId, group: &str, indexes: Vec<u64>) -> Result<Committed, Error>;

    /// As [`Queues::commit`], for deliveries of a session that commits by itself. Survives kill -9, does not wait for the
    /// disk: after a power loss they are repeated.
    async fn commit_sent(&self, session: Session, indexes: Vec<u64>) -> Result<(), Error>;

    /// A consumer could not do its work: the items come back, to anybody. `counts`: as a delivery, towards
    /// [`Policy::max_delivery`].
    async fn refuse(
        &self,
        queue: &QueueId,
        group: &str,
        indexes: Vec<u64>,
        counts: bool,
    ) -> Result<Committed, Error>;

    /// Removes items for all groups; unfinished jobs behind them are cancelled and send no result. Returns how many there were.
    async fn delete(&self, queue: &QueueId, indexes: Vec<u64>) -> Result<u64, Error>;

    /// Removes items below an index in the same way, at most 500 a call.
    async fn truncate(&self, queue: &QueueId, before: u64) -> Result<Swept, Error>;

    /// Takes items away for a reader: nobody else sees them until they come back ([`Queues::give_back`], the hold's end) or
    /// are deleted. Survives kill -9, does not wait for the disk.
    async fn take(&self, queue: &QueueId, take: Take) -> Result<Vec<Item>, Error>;

    /// What [`Queues::take`] would find, without the writer: a reader that waits looks before it takes.
    async fn there(&self, queue: &QueueId, take: Take) -> Result<There, Error>;

    /// The reader could not be sent them. Does not wait for the disk.
    async fn give_back(&self, queue: &QueueId, indexes: Vec<u64>) -> Result<(), Error>;

    /// Items in the order of their indexes, at most `limit`, taken ones not among them.
    async fn items(&self, queue: &QueueId, wanted: Wanted, limit: u32) -> Result<Vec<Item>, Error>;

    /// How many there are.
    async fn count(&self, queue: &QueueId, wanted: Wanted) -> Result<u64, Error>;

    /// Where an item stands; `None` when it is not there.
    async fn place(&self, queue: &QueueId, index: u64) -> Result<Option<Place>, Error>;

    /// Takes no more items, or takes them again.
    async fn end(&self, queue: &QueueId, ended: bool) -> Result<(), Error>;

    /// A queue; `None` when nothing was ever put and nobody ever came.
    async fn queue(&self, queue: &QueueId) -> Result<Option<QueueView>, Error>;

    /// All queues, of one tenant or of all, by endpoint, side and tenant.
    async fn queues(&self, tenant: Option<&TenantId>) -> Result<Vec<QueueView>, Error>;

    /// A queue's consumers, by group and name; those that left long ago are forgotten.
    async fn consumers(&self, queue: &QueueId) -> Result<Vec<ConsumerView>, Error>;

    /// A queue's groups by name, each with how many items it has not committed.
    async fn groups(&self, queue: &QueueId) -> Result<Vec<(String, u64)>, Error>;

    /// A server starts: whatever it was sending is to be sent again, and does not count as delivered.
    async fn recover_queues(&self, node: &NodeName) -> Result<(), Error>;

    /// Forgets groups without a consumer since `group_idle` ago (items that only they had not committed go), consumers that
    /// left before that and hold nothing, and names older than a day; at most 200 of each.
    async fn sweep_queue(&self, queue: &QueueId, group_idle: Duration) -> Result<Swept, Error>;
}
