//! Watching a queue: a consumer's connection gets items as they come, as many as its window has room for.

use std::time::Duration;

use darkroom_store::{
    Topic,
    queues::{Deliver, Item, Join, QueueId, Scan, Session, Start, Tags},
    wake::Subscription,
};
use tokio::sync::mpsc;

use super::{Chore, OpenQueue, ReadItems, bytes_of, put::check_tags};
use crate::service::{Error, Service};

/// Items handed out at once; what is sent in one go is committed in one go.
const BATCH: u32 = 256;
/// Bytes handed out at once, unless a single item is larger.
const BATCH_BYTES: u64 = 1_000_000;
/// What was sent is committed with the next delivery, and at the latest after this: half the writes for items that come one
/// by one, and nobody waits for it.
const SETTLE_WITHIN: Duration = Duration::from_millis(5);
/// Larger windows mean nothing: this many items are not processed at once.
const MAX_WINDOW: u32 = 1_000;
/// Longest name of a consumer or group, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// How a consumer watches.
#[derive(Debug, Clone)]
pub struct WatchOptions {
    /// Its group.
    pub group: String,
    /// Its name in the group.
    pub consumer: String,
    /// Where it begins.
    pub start: Start,
    /// How many items it may hold that it has not committed.
    pub window: u32,
    /// Without bodies.
    pub index_only: bool,
    /// Items are committed once they were sent, and the window does not count.
    pub auto_commit: bool,
    /// Only items with these tags.
    pub tags: Tags,
}

/// A consumer's connection. Dropping it is leaving.
pub struct Watch {
    service: Service,
    queue: OpenQueue,
    session: Session,
    woken: Subscription,
    scan: Scan,
    index_only: bool,
    auto_commit: bool,
    group: String,
    /// Sent, and to be committed.
    unsettled: Vec<u64>,
    /// There may be more at once: the last delivery was cut short.
    more: bool,
    chores: mpsc::UnboundedSender<Chore>,
    /// It leaves when this is dropped.
    leaves: bool,
}

/// What happens on a watch.
#[derive(Debug)]
pub enum Step {
    /// Items to be sent, in this order; then [`Watch::sent`].
    Items(ReadItems),
    /// Another connection of the same consumer came: this one is over.
    TakenOver,
    /// The queue ended and is empty: this connection is over.
    Ended,
}

impl Service {
    /// Connects a consumer.
    ///
    /// # Errors
    /// [`Error::Invalid`] where items are not for consumers, or the options make no sense.
    pub async fn watch(&self, queue: &OpenQueue, options: WatchOptions) -> Result<Watch, Error> {
        queue.refuse_instances()?;
        check_tags(&options.tags)?;
        if options.window == 0 {
            return Err(Error::Invalid("the window must be at least 1".to_owned()));
        }
        for (what, name) in [("consumer", &options.consumer), ("group", &options.group)] {
            if name.len() > MAX_NAME_BYTES {
                return Err(Error::Invalid(format!(
                    "the name of the {what} is longer than {MAX_NAME_BYTES} bytes"
                )));
            }
        }
        let woken = self.store.subscribe(Topic::Items(queue.id.clone()));
        let join = Join {
            group: options.group.clone(),
            consumer: options.consumer,
            start: options.start,
            window: options.window.min(MAX_WINDOW),
            auto_commit: options.auto_commit,
            tags: options.tags,
            node: self.node.clone(),
        };
        let session = self.store.join(&queue.id, join).await?;
        Ok(Watch {
            service: self.clone(),
            queue: queue.clone(),
            session,
            woken,
            scan: Scan::default(),
            index_only: options.index_only,
            auto_commit: options.auto_commit,
            group: options.group,
            unsettled: Vec::new(),
            more: false,
            chores: self.chores.sender.clone(),
            leaves: true,
        })
    }
}

impl Watch {
    /// Which queue it watches.
    pub fn queue(&self) -> &QueueId {
        &self.queue.id
    }

    /// Waits for what happens next. Not cancel-safe: what it was about to return counts as delivered.
    ///
    /// # Errors
    /// When the store or the blobs fail.
    pub async fn next(&mut self) -> Result<Step, Error> {
        if !self.unsettled.is_empty() && !self.more {
            let _ = tokio::time::timeout(SETTLE_WITHIN, self.woken.woken()).await;
        }
        loop {
            let deliver = Deliver {
                session: self.session,
                sent: self.unsettled.clone(),
                at_most: BATCH,
                max_bytes: BATCH_BYTES,
                bodies: !self.index_only,
                scan: std::mem::take(&mut self.scan),
                policy: self.queue.policy(),
            };
            let Ok(delivered) = self.service.store.deliver(deliver).await? else {
                return Ok(Step::TakenOver);
            };
            self.unsettled.clear();
            self.scan = delivered.scan;
            self.more = delivered.more || delivered.items.len() == BATCH as usize;
            if !delivered.items.is_empty() {
                return Ok(Step::Items(self.read(delivered.items).await?));
            }
            if delivered.ended {
                return Ok(Step::Ended);
            }
            if self.more {
                continue;
            }
            let due = delivered.next_due.map(|at| at.since(self.service.now()));
            tokio::select! {
                () = self.woken.woken() => {}
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
            }
        }
    }

    /// The bodies of items, as soon as there is memory for them. What cannot be read was not delivered.
    async fn read(&self, items: Vec<Item>) -> Result<ReadItems, Error> {
        let indexes: Vec<u64> = items.iter().map(|item| item.index).collect();
        // Nothing is held meanwhile, and a connection that ends drops this wait.
        let memory = self.service.memory_for(bytes_of(&items)).await;
        let read = self.service.read_into(items, memory).await;
        if read.is_err() {
            let (store, queue) = (&self.service.store, &self.queue.id);
            store.refuse(queue, &self.group, indexes, false).await?;
        }
        read
    }

    /// It is the server that goes, not the consumer: the next server keeps what it held for it, and does not count that as
    /// delivered once more.
    pub fn stays(&mut self) {
        self.leaves = false;
    }

    /// The items were written to the connection. Where that commits them, it is done with the next delivery, or soon.
    pub fn sent(&mut self, indexes: Vec<u64>) {
        if self.auto_commit {
            self.unsettled.extend(indexes);
        }
    }

    /// Commits what was sent, at once: before the end.
    ///
    /// # Errors
    /// When the store fails; they will be sent again.
    pub async fn settle(&mut self) -> Result<(), Error> {
        if !self.unsettled.is_empty() {
            let sent = self.unsettled.clone();
            self.service.store.commit_sent(self.session, sent).await?;
            self.unsettled.clear();
        }
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Without a keeper the server is going; the next one knows.
        if self.leaves {
            let sent = std::mem::take(&mut self.unsettled);
            let _ = self.chores.send(Chore::Leave(self.session, sent));
        }
    }
}
