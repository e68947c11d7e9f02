//! Putting an item: bounds, placement of its body, one durable row.

use bytes::Bytes;
use darkroom_core::{BlobKey, endpoint::Kind};
use darkroom_store::queues::{NewItem, Put};

use super::{OpenQueue, Side, Tags};
use crate::service::{Error, Service};

/// The tag under which the request id travels (`protocols/eas-queue.md` §1).
pub(super) const REQUEST_ID_TAG: &str = "requestId";

/// Bounds of an item's tags: they are read with every look at it.
const MAX_TAGS: usize = 64;
const MAX_TAG_KEY_BYTES: usize = 256;
const MAX_TAG_VALUE_BYTES: usize = 4096;

/// An item as a caller gives it.
#[derive(Debug, Clone)]
pub struct PutItem {
    /// Its tags; one named `requestId` is the caller's name for it.
    pub tags: Tags,
    /// Higher is delivered first.
    pub priority: i32,
    /// Its body.
    pub body: Bytes,
}

/// A durable item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutDone {
    /// Its index.
    pub index: u64,
    /// The id of its request, also among its tags.
    pub request_id: String,
}

impl Service {
    /// Puts an item: durable when this returns. A second one under the caller's own request id is the first one.
    ///
    /// # Errors
    /// [`Error::Invalid`] where items do not come this way or a bound of tags is broken, [`Error::TooLarge`],
    /// [`Error::QueueFull`].
    pub async fn put_item(&self, queue: &OpenQueue, put: PutItem) -> Result<PutDone, Error> {
        queue.refuse_instances()?;
        let limits = &queue.endpoint.queue;
        if put.body.len() as u64 > limits.max_payload_bytes {
            return Err(Error::TooLarge {
                what: "the item",
                limit_bytes: limits.max_payload_bytes,
            });
        }
        check_tags(&put.tags)?;
        let (tags, request_id, named) = self.name(put.tags);
        let key = self.item_key(queue)?;
        let payload = self.place_input(key, put.body).await?;
        let blob = payload.blob().cloned();
        let item = NewItem {
            payload,
            tags,
            priority: put.priority,
            request_id: request_id.clone(),
            named,
            max_length: limits.max_length,
        };
        let outcome = self.store.put(&queue.id, item).await;
        if !matches!(outcome, Ok(Put::At(_))) {
            self.discard(blob.into_iter().collect()).await;
        }
        let index = index_of(outcome?, queue)?;
        Ok(PutDone { index, request_id })
    }

    /// The request id among the tags, the caller's or a fresh one, and whether it is the caller's.
    pub(super) fn name(&self, mut tags: Tags) -> (Tags, String, bool) {
        match tags.get(REQUEST_ID_TAG).filter(|id| !id.is_empty()).cloned() {
            Some(id) => (tags, id, true),
            None => {
                let id = self.ids.uuid_v4().to_string();
                tags.insert(REQUEST_ID_TAG.to_owned(), id.clone());
                (tags, id, false)
            }
        }
    }

    /// Where the body of an item goes if it is large.
    pub(super) fn item_key(&self, queue: &OpenQueue) -> Result<BlobKey, Error> {
        let (tenant, id) = (&queue.id.tenant, self.ids.uuid_v7());
        let key = format!("queues/{tenant}/{}/{id}", queue.id.endpoint);
        key.parse().map_err(|e| Error::Internal(anyhow::Error::new(e)))
    }
}

/// The index of a put, or why there is none.
pub(super) fn index_of(put: Put, queue: &OpenQueue) -> Result<u64, Error> {
    let endpoint = &queue.endpoint.name;
    match put {
        Put::At(index) | Put::Existing(index) => Ok(index),
        Put::Full { length } => Err(Error::QueueFull {
            endpoint: endpoint.to_string(),
            queued: length,
        }),
        Put::Ended => Err(Error::Invalid(format!(
            "the {} queue of '{endpoint}' has ended and takes no more items",
            queue.id.side.as_str()
        ))),
    }
}

/// Refuses tags beyond their bounds.
pub(super) fn check_tags(tags: &Tags) -> Result<(), Error> {
    if tags.len() > MAX_TAGS {
        return Err(Error::Invalid(format!(
            "{} tags are too many: at most {MAX_TAGS}",
            tags.len()
        )));
    }
    for (key, value) in tags {
        if key.len() > MAX_TAG_KEY_BYTES || value.len() > MAX_TAG_VALUE_BYTES {
            let key: String = key.chars().take(40).collect();
            return Err(Error::Invalid(format!(
                "the tag '{key}' is too long: keys have at most {MAX_TAG_KEY_BYTES} bytes, values {MAX_TAG_VALUE_BYTES}"
            )));
        }
    }
    Ok(())
}

impl OpenQueue {
    /// Whether workflows are posted to it.
    pub(super) fn takes_prompts(&self) -> bool {
        self.id.side == Side::Input && self.endpoint.kind == Kind::Comfyui
    }
}
