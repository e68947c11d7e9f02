//! Items that stand for jobs: put in one transaction with their job, whatever that is.

use darkroom_core::{BlobKey, Payload};
use darkroom_store::{
    jobs::NewJob,
    queues::{NewItem, Put},
};

use super::{OpenQueue, PutDone, Tags, put::index_of};
use crate::service::{Error, Service};

/// What is known of an item before its job is.
#[derive(Debug)]
pub(super) struct JobItem {
    /// Its tags, which the result will have as well.
    pub tags: Tags,
    /// The id of its request.
    pub request_id: String,
    /// The caller chose that id: a second item of it is the first one.
    pub named: bool,
}

impl Service {
    /// Accepts a job with the item that stands for it: durable when this returns. Nothing stays of one that was refused, or
    /// that was known already: `written` goes then.
    pub(super) async fn put_job_item(
        &self,
        queue: &OpenQueue,
        item: JobItem,
        job: NewJob,
        written: Vec<BlobKey>,
    ) -> Result<PutDone, Error> {
        let request_id = item.request_id.clone();
        let item = NewItem {
            // The body is the job's; the item only stands for it.
            payload: Payload::Inline(Vec::new()),
            tags: item.tags,
            priority: job.priority,
            request_id: item.request_id,
            named: item.named,
            max_length: u64::MAX,
        };
        let put = self.store.put_job(&queue.id, item, job).await;
        match put {
            Ok(Put::At(_)) => self.metrics.job_submitted(&queue.endpoint.name),
            Ok(Put::Existing(_) | Put::Full { .. } | Put::Ended) | Err(_) => self.discard(written).await,
        }
        let index = index_of(put?, queue)?;
        Ok(PutDone { index, request_id })
    }
}
