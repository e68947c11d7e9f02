//! Queues of items, as EAS's queue service has them: put, get, watch, commit, and what the keeper does beside.
//!
//! A queue belongs to a tenant and an endpoint. Plain queues (kind `queue`) take items from anybody; where instances do
//! the work, an input item stands for a job ([`prompt`], [`replay`]), and its result comes to the sink ([`results`]).

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use darkroom_core::{
    Endpoint, JobState, TenantId,
    endpoint::{DeadLetter, Kind},
};
use darkroom_store::queues::{Committed, Item, Place, Policy, Session};
pub use darkroom_store::queues::{ConsumerView, QueueId, QueueView, Side, Start, Tags, Wanted};
use tokio::sync::mpsc;

use super::{Error, Service};
use crate::memory::Held;

mod get;
mod job_item;
mod keeper;
mod prompt;
mod put;
mod replay;
pub mod results;
#[cfg(test)]
mod tests;
mod watch;
mod work;

pub use self::{
    get::{Get, Got, Taken},
    prompt::PromptItem,
    put::{PutDone, PutItem},
    replay::RequestItem,
    watch::{Step, Watch, WatchOptions},
    work::{WorkItem, input_of},
};

/// Items of one request that are written down in one step: others' steps go between.
const TOGETHER: usize = 256;

/// A queue that a caller may use, and the endpoint it belongs to.
#[derive(Debug, Clone)]
pub struct OpenQueue {
    /// Which.
    pub id: QueueId,
    /// As configured.
    pub endpoint: Arc<Endpoint>,
}

impl OpenQueue {
    /// A side of an endpoint's queues, of one tenant.
    pub fn new(tenant: &TenantId, endpoint: Arc<Endpoint>, side: Side) -> Self {
        OpenQueue {
            id: QueueId {
                tenant: tenant.clone(),
                endpoint: endpoint.name.clone(),
                side,
            },
            endpoint,
        }
    }

    /// Whether its items stand for jobs: then nobody else puts, watches, or commits them.
    fn is_for_instances(&self) -> bool {
        self.id.side == Side::Input && self.endpoint.kind != Kind::Queue
    }

    /// How many items it takes: for instances, as many as jobs may wait.
    pub fn max_length(&self) -> u64 {
        match self.is_for_instances() {
            true => self.endpoint.limits.max_queued,
            false => self.endpoint.queue.max_length,
        }
    }

    fn refuse_instances(&self) -> Result<(), Error> {
        if !self.is_for_instances() {
            return Ok(());
        }
        let instead = match self.endpoint.kind {
            Kind::Worker if self.endpoint.is_http_worker() => "post requests to its paths",
            Kind::Worker => "post inputs to it",
            Kind::Comfyui | Kind::Queue => "post workflows to api_prompt",
        };
        Err(Error::Invalid(format!(
            "the input of service '{}' is for its own instances: {instead}, and read results from sink",
            self.endpoint.name
        )))
    }

    fn policy(&self) -> Policy {
        let limits = &self.endpoint.queue;
        Policy {
            max_idle: limits.max_idle,
            leave_grace: limits.leave_grace,
            max_delivery: limits.max_delivery,
            to_rear: limits.dead_letter == DeadLetter::Rear,
        }
    }
}

/// Items with their bodies, and the memory that is accounted for them: to be held until they were sent.
#[derive(Debug, Default)]
pub struct ReadItems {
    /// The items.
    pub items: Vec<ReadItem>,
    /// Their memory.
    pub memory: Held,
}

/// An item with its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadItem {
    /// Its index.
    pub index: u64,
    /// Its tags.
    pub tags: Tags,
    /// Its body; empty where only indexes were asked for.
    pub data: Bytes,
}

/// Where an item stands, for its producer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Somebody works on it.
    pub pending: bool,
    /// How many items are before it.
    pub waits: u64,
    /// Who works on it, if a consumer does.
    pub consumer: Option<String>,
}

/// What is left to do after a connection ended, for the keeper: who asked cannot wait any more.
#[derive(Debug)]
enum Chore {
    /// A session leaves; these were sent to it and not committed yet.
    Leave(Session, Vec<u64>),
    Delete(QueueId, Vec<u64>),
    GiveBack(QueueId, Vec<u64>),
}

/// The way to the keeper.
#[derive(Debug)]
pub struct Chores {
    sender: mpsc::UnboundedSender<Chore>,
    receiver: Mutex<Option<mpsc::UnboundedReceiver<Chore>>>,
}

impl Default for Chores {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Chores {
            sender,
            receiver: Mutex::new(Some(receiver)),
        }
    }
}

impl Chores {
    fn take(&self) -> Option<mpsc::UnboundedReceiver<Chore>> {
        self.receiver
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }
}

impl Service {
    /// The endpoint that a service name means: its own name, or what follows the name of a group (`group.service`).
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn service_named(&self, name: &str) -> Result<Arc<Endpoint>, Error> {
        let endpoints = self.endpoints();
        let of = |name: &str| name.parse().ok().and_then(|name| endpoints.get(&name).cloned());
        of(name)
            .or_else(|| name.split_once('.').and_then(|(_, service)| of(service)))
            .ok_or_else(|| Error::not_found("service", name))
    }

    /// A consumer has done its work.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the indexes which were never delivered; the others are committed all the same.
    pub async fn commit_items(&self, queue: &OpenQueue, group: &str, indexes: Vec<u64>) -> Result<(), Error> {
        queue.refuse_instances()?;
        let mut all = Committed::default();
        for some in indexes.chunks(TOGETHER) {
            all.add(self.store.commit(&queue.id, group, some.to_vec()).await?);
        }
        told(&all, group)
    }

    /// A consumer could not do its work: the items go to others. `counts`: as a delivery.
    ///
    /// # Errors
    /// As [`Service::commit_items`].
    pub async fn refuse_items(
        &self,
        queue: &OpenQueue,
        group: &str,
        indexes: Vec<u64>,
        counts: bool,
    ) -> Result<(), Error> {
        queue.refuse_instances()?;
        let mut all = Committed::default();
        for some in indexes.chunks(TOGETHER) {
            all.add(self.store.refuse(&queue.id, group, some.to_vec(), counts).await?);
        }
        told(&all, group)
    }

    /// Removes items for all groups; unfinished jobs behind them are cancelled.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn delete_items(&self, queue: &OpenQueue, indexes: Vec<u64>) -> Result<u64, Error> {
        let jobs = self.jobs_behind(queue, &indexes).await?;
        let mut removed = 0;
        for some in indexes.chunks(TOGETHER) {
            removed += self.store.delete(&queue.id, some.to_vec()).await?;
        }
        jobs.into_iter().for_each(|job| self.hub.wake_attempt(job));
        Ok(removed)
    }

    /// Removes items below an index in the same way.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn truncate_queue(&self, queue: &OpenQueue, before: u64) -> Result<u64, Error> {
        let mut removed = 0;
        loop {
            let indexes = match queue.is_for_instances() {
                true => self.store.items(&queue.id, Wanted::default(), 500).await?,
                false => Vec::new(),
            };
            let swept = self.store.truncate(&queue.id, before).await?;
            let gone = indexes.iter().filter(|item| item.index < before);
            gone.filter_map(|item| item.job)
                .for_each(|job| self.hub.wake_attempt(job));
            removed += swept.rows;
            if !swept.more {
                return Ok(removed);
            }
        }
    }

    /// Takes no more items, or takes them again.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn end_queue(&self, queue: &QueueId, ended: bool) -> Result<(), Error> {
        Ok(self.store.end(queue, ended).await?)
    }

    /// Where an item stands.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not there (any more).
    pub async fn standing(&self, queue: &OpenQueue, index: u64) -> Result<Standing, Error> {
        let missing = || Error::not_found("item", index);
        let waits = |waits| Standing {
            pending: false,
            waits,
            consumer: None,
        };
        let works = |consumer| Standing {
            pending: true,
            waits: 0,
            consumer,
        };
        match self.store.place(&queue.id, index).await?.ok_or_else(missing)? {
            Place::Waits(before) => Ok(waits(before)),
            Place::Held { consumer } => Ok(works(Some(consumer))),
            Place::Job(id) => {
                let job = self.store.job(None, id).await?.ok_or_else(missing)?;
                match job.state {
                    JobState::Queued => Ok(waits(self.store.position(id).await?.unwrap_or(0))),
                    JobState::Running
                    | JobState::Succeeded
                    | JobState::Failed
                    | JobState::Cancelled
                    | JobState::Expired => Ok(works(None)),
                }
            }
        }
    }

    /// How many items there are.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn count_items(&self, queue: &OpenQueue, wanted: Wanted) -> Result<u64, Error> {
        Ok(self.store.count(&queue.id, wanted).await?)
    }

    /// A queue's numbers; one that nobody used yet is empty.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn queue_view(&self, id: &QueueId) -> Result<QueueView, Error> {
        let found = self.store.queue(id).await?;
        Ok(found.unwrap_or_else(|| QueueView {
            id: id.clone(),
            length: 0,
            first: None,
            last: 0,
            oldest_put_at: None,
            pending: 0,
            consumers: 0,
            ended: false,
        }))
    }

    /// All queues that were ever used, of one tenant or of all.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn queue_views(&self, tenant: Option<&TenantId>) -> Result<Vec<QueueView>, Error> {
        Ok(self.store.queues(tenant).await?)
    }

    /// A queue's consumers, also those that left lately.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn queue_consumers(&self, id: &QueueId) -> Result<Vec<ConsumerView>, Error> {
        Ok(self.store.consumers(id).await?)
    }

    /// A queue's groups, each with how many items it has not committed.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn queue_groups(&self, id: &QueueId) -> Result<Vec<(String, u64)>, Error> {
        Ok(self.store.groups(id).await?)
    }

    async fn jobs_behind(
        &self,
        queue: &OpenQueue,
        indexes: &[u64],
    ) -> Result<Vec<darkroom_core::JobId>, Error> {
        let mut jobs = Vec::new();
        if queue.is_for_instances() {
            for index in indexes {
                if let Some(Place::Job(job)) = self.store.place(&queue.id, *index).await? {
                    jobs.push(job);
                }
            }
        }
        Ok(jobs)
    }

    /// Items with their bodies.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where no memory can be had for them in time, and when the blobs fail.
    async fn read_items(&self, items: Vec<Item>) -> Result<ReadItems, Error> {
        let memory = self.memory.answer(bytes_of(&items)).await?;
        self.read_into(items, memory).await
    }

    /// Memory for what somebody else waits for, as soon as there is some.
    async fn memory_for(&self, bytes: u64) -> Held {
        loop {
            if let Ok(memory) = self.memory.answer(bytes).await {
                return memory;
            }
        }
    }

    async fn read_into(&self, items: Vec<Item>, memory: Held) -> Result<ReadItems, Error> {
        let mut read = Vec::with_capacity(items.len());
        for item in items {
            let data = match &item.payload {
                None => Bytes::new(),
                // Bytes that are gone (somebody else's hand) must not stop a queue for ever.
                Some(payload) => self.read_payload(payload).await?.unwrap_or_else(|| {
                    tracing::error!(item.index = item.index, "the body of an item is gone");
                    Bytes::new()
                }),
            };
            read.push(ReadItem {
                index: item.index,
                tags: item.tags,
                data,
            });
        }
        Ok(ReadItems { items: read, memory })
    }
}

/// The bodies of items in bytes, as far as they were asked for.
fn bytes_of(items: &[Item]) -> u64 {
    let size = |item: &Item| item.payload.as_ref().map_or(0, darkroom_core::Payload::size);
    items.iter().map(size).sum()
}

fn told(committed: &Committed, group: &str) -> Result<(), Error> {
    let list = |indexes: &[u64]| {
        let texts: Vec<String> = indexes.iter().take(10).map(u64::to_string).collect();
        texts.join(", ")
    };
    let mut problems = Vec::new();
    if !committed.never.is_empty() {
        problems.push(format!("no item ever had the index {}", list(&committed.never)));
    }
    if !committed.not_delivered.is_empty() {
        let indexes = list(&committed.not_delivered);
        problems.push(format!(
            "{indexes} is not pending: it was not delivered to group '{group}'"
        ));
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::Invalid(problems.join("; "))),
    }
}
