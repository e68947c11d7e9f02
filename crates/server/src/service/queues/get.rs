//! Getting items: waiting for them, taking them away, and letting them go only once they were written.

use std::{pin::pin, time::Duration};

use darkroom_store::{
    Topic,
    queues::{Item, QueueId, Take, Wanted},
};
use tokio::sync::mpsc;

use super::{Chore, OpenQueue, ReadItems, bytes_of};
use crate::service::{Error, Service};

/// Items of one answer at most.
const MAX_ITEMS: u32 = 256;
/// Bytes of one answer at most, unless a single item is larger.
const MAX_BYTES: u64 = 16_000_000;
/// A reader that was not sent its items by then goes without: longer than any answer takes to write.
const HOLD: Duration = Duration::from_secs(120);

/// What a reader asks for.
#[derive(Debug, Clone)]
pub struct Get {
    /// Which items.
    pub wanted: Wanted,
    /// How many.
    pub length: u32,
    /// How long to wait until so many are there; then any will do.
    pub patience: Duration,
    /// The reader's group: what its consumers hold is left alone.
    pub group: String,
    /// They are gone afterwards, for all groups.
    pub delete: bool,
}

/// What a reader gets.
#[derive(Debug, Default)]
pub struct Got {
    /// The items, by index.
    pub read: ReadItems,
    /// To be told once they were written; dropped before, they come back.
    pub taken: Option<Taken>,
}

/// Items on their way to a reader, invisible to others.
#[derive(Debug)]
pub struct Taken {
    queue: QueueId,
    indexes: Vec<u64>,
    written: bool,
    chores: mpsc::UnboundedSender<Chore>,
}

impl Taken {
    /// They were written to a live connection: they go for good.
    pub fn written(mut self) {
        self.written = true;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let indexes = std::mem::take(&mut self.indexes);
        let chore = match self.written {
            true => Chore::Delete(self.queue.clone(), indexes),
            false => Chore::GiveBack(self.queue.clone(), indexes),
        };
        // Without a keeper the server is going: at the next start they are there again.
        let _ = self.chores.send(chore);
    }
}

impl Service {
    /// Gets items, at once or when they come.
    ///
    /// # Errors
    /// When the store or the blobs fail.
    pub async fn get_items(&self, queue: &OpenQueue, get: Get) -> Result<Got, Error> {
        let length = get.length.clamp(1, MAX_ITEMS);
        let mut woken = self.store.subscribe(Topic::Items(queue.id.clone()));
        let mut patience = pin!(tokio::time::sleep(get.patience));
        let mut at_least = if get.patience.is_zero() { 1 } else { length };
        let mut past = 0;
        loop {
            let got = match get.delete {
                // Taking is the writer's: whoever would come in vain, or has to look past what others hold, looks before.
                true => {
                    let mut take = self.taking(&get, past, at_least, length);
                    let there = self.store.there(&queue.id, take.clone()).await?;
                    past = there.first;
                    take.past = there.free_from;
                    match there.enough {
                        true => self.take(queue, take).await?,
                        false => Got::default(),
                    }
                }
                false => self.look(queue, &get, at_least, length).await?,
            };
            if !got.read.items.is_empty() {
                return Ok(got);
            }
            if (at_least == 1 && patience.is_elapsed()) || get.patience.is_zero() {
                return Ok(Got::default());
            }
            tokio::select! {
                () = woken.woken() => {}
                () = &mut patience, if !patience.is_elapsed() => at_least = 1,
            }
        }
    }

    fn taking(&self, get: &Get, past: u64, at_least: u32, at_most: u32) -> Take {
        Take {
            wanted: get.wanted.clone(),
            past,
            group: get.group.clone(),
            at_least,
            at_most,
            hold: HOLD,
            node: self.node.clone(),
        }
    }

    async fn look(&self, queue: &OpenQueue, get: &Get, at_least: u32, at_most: u32) -> Result<Got, Error> {
        let mut items = self.store.items(&queue.id, get.wanted.clone(), at_most).await?;
        if items.len() < at_least as usize {
            items.clear();
        }
        items.truncate(within_bytes(&items));
        Ok(Got {
            read: self.read_items(items).await?,
            taken: None,
        })
    }

    async fn take(&self, queue: &OpenQueue, take: Take) -> Result<Got, Error> {
        let (service, queue) = (self.clone(), queue.clone());
        // Done also if nobody waits for it any more: what was taken comes back then.
        let taking = tokio::spawn(async move {
            let mut items = service.store.take(&queue.id, take).await?;
            let guard = |items: &[Item]| Taken {
                queue: queue.id.clone(),
                indexes: items.iter().map(|item| item.index).collect(),
                written: false,
                chores: service.chores.sender.clone(),
            };
            let too_many = items.split_off(within_bytes(&items));
            if !too_many.is_empty() {
                drop(guard(&too_many));
            }
            let taken = guard(&items);
            Ok::<_, Error>((items, taken))
        });
        let taken = taking.await.map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
        let (items, taken) = taken?;
        if items.is_empty() {
            return Ok(Got::default());
        }
        Ok(Got {
            read: self.read_items(items).await?,
            taken: Some(taken),
        })
    }
}

/// How many of the items fit into one answer.
fn within_bytes(items: &[Item]) -> usize {
    let too_many = (1..=items.len()).find(|n| bytes_of(&items[..*n]) > MAX_BYTES);
    too_many.map_or(items.len(), |n| (n - 1).max(1))
}
