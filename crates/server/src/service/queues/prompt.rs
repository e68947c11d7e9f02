//! The ComfyUI API edition: a workflow that is put on a queue is a job, and an item stands for it.

use serde_json::{Map, Value, json};

use super::{OpenQueue, PutDone, Tags, job_item::JobItem, put::check_tags};
use crate::{
    memory::Held,
    service::{Error, Service, intake::Fetch, jobs::JobMeta, submit::ComfySubmit},
};

/// A workflow on its way to a queue.
#[derive(Debug)]
pub struct PromptItem {
    /// Tags, which the result will have as well.
    pub tags: Tags,
    /// Higher runs first.
    pub priority: i32,
    /// The graph.
    pub graph: Value,
    /// How large the request was, in bytes.
    pub size_bytes: usize,
    /// The base of addresses in the result.
    pub base_url: String,
    /// The id of the HTTP request.
    pub request_id: String,
    /// The memory held for the request.
    pub memory: Held,
}

impl Service {
    /// Accepts a workflow as a job, with an item that stands for it: durable when this returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] where no workflows are taken, and every refusal of a submit.
    pub async fn put_prompt(&self, queue: &OpenQueue, prompt: PromptItem) -> Result<PutDone, Error> {
        if !queue.takes_prompts() {
            return Err(Error::Invalid(format!(
                "service '{}' takes no workflows",
                queue.endpoint.name
            )));
        }
        check_tags(&prompt.tags)?;
        let (tags, request_id, named) = self.name(prompt.tags);
        let submit = ComfySubmit {
            tenant: queue.id.tenant.clone(),
            endpoint: queue.endpoint.name.clone(),
            graph: prompt.graph,
            extra_data: Map::new(),
            targets: None,
            priority: prompt.priority,
            external_id: None,
            randomise_seeds: false,
            fetch: Fetch::Later,
            meta: JobMeta {
                dialect: "eas".to_owned(),
                request_id: prompt.request_id,
                options: json!({ "base_url": prompt.base_url, "service": queue.endpoint.name }),
                ..JobMeta::default()
            },
            size_bytes: prompt.size_bytes,
            memory: prompt.memory,
        };
        // A full queue is told before any work; a named one may be there already, which only the transaction knows.
        if !named {
            self.known(&submit, queue.endpoint.limits.max_queued).await?;
        }
        let mut written = Vec::new();
        let job = match self.prepare(submit, &mut written).await {
            Ok((job, _)) => job,
            Err(refused) => {
                self.discard(written).await;
                return Err(refused);
            }
        };
        let standing = JobItem {
            tags,
            request_id,
            named,
        };
        self.put_job_item(queue, standing, job, written).await
    }
}
