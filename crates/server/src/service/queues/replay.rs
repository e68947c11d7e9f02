//! Requests to the paths of a service whose instances answer HTTP: each is a job, an item stands for it, and what the
//! instance answered comes to the sink (`protocols/eas-queue.md` §2, §5).

use bytes::Bytes;
use darkroom_core::{BlobKey, JobId, JobState, payload::INLINE_MAX_BYTES};
use darkroom_store::jobs::{Entry, JobMeta, NewJob};
use serde_json::json;

use super::{
    OpenQueue, PutDone, Side, Tags,
    job_item::JobItem,
    put::check_tags,
    results::{ForSink, failed_code},
};
use crate::service::{
    Error, Service,
    jobs::JobRecord,
    replay::{self, Answer, Request, is_safe_path},
};

/// The longest path with its query, in bytes.
const MAX_PATH_BYTES: usize = 8 * 1024;
/// What lists show of it, in characters.
const SUMMARY_CHARS: usize = 120;

/// A request on its way to a queue.
#[derive(Debug)]
pub struct RequestItem {
    /// Tags, which the result will have as well.
    pub tags: Tags,
    /// Higher is sent first.
    pub priority: i32,
    /// The path at the instance, as it is written.
    pub path: String,
    /// The query for the instance, as it is written; empty where there is none.
    pub query: String,
    /// Headers for the instance.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Bytes,
    /// The base of addresses, as the caller reached us.
    pub base_url: String,
    /// The id of the HTTP request.
    pub request_id: String,
}

impl OpenQueue {
    /// Whether requests to any path are posted to it.
    pub fn takes_requests(&self) -> bool {
        self.id.side == Side::Input && self.endpoint.is_http_worker()
    }
}

impl Service {
    /// Accepts a request as a job, with an item that stands for it: durable when this returns.
    ///
    /// # Errors
    /// [`Error::Invalid`] where none are taken or the path leads elsewhere, [`Error::TooLarge`], [`Error::QueueFull`].
    pub async fn put_request(&self, queue: &OpenQueue, item: RequestItem) -> Result<PutDone, Error> {
        if !queue.takes_requests() {
            return Err(Error::Invalid(format!(
                "service '{}' has no instances that answer HTTP",
                queue.endpoint.name
            )));
        }
        check_tags(&item.tags)?;
        let path = match item.query.as_str() {
            "" => item.path.clone(),
            query => format!("{}?{query}", item.path),
        };
        if !is_safe_path(&item.path) || path.len() > MAX_PATH_BYTES {
            return Err(Error::Invalid(format!(
                "the path must not hold '.' or '..' as a segment, and have at most {MAX_PATH_BYTES} bytes with its query"
            )));
        }
        let endpoint = &queue.endpoint;
        let (tags, request_id, named) = self.name(item.tags);
        if !named && item.body.len() > INLINE_MAX_BYTES {
            // Before its bytes are written; the transaction decides.
            self.check_room(&endpoint.name, endpoint.limits.max_queued)
                .await?;
        }
        let shown: String = format!("POST {}", item.path)
            .chars()
            .take(SUMMARY_CHARS)
            .collect();
        let size = item.body.len();
        let request = Request {
            path,
            headers: item.headers,
            id: request_id.clone(),
            body: item.body,
        };
        let id = JobId::new(&*self.ids);
        let key = BlobKey::job_input(id);
        let input = self.place_input(key.clone(), request.encode()).await?;
        let job = NewJob {
            id,
            tenant: queue.id.tenant.clone(),
            endpoint: endpoint.name.clone(),
            priority: item.priority,
            input,
            sealed: None,
            input_files: vec![],
            meta: JobMeta {
                dialect: "eas".to_owned(),
                request_id: item.request_id,
                options: json!({ "base_url": item.base_url, "service": endpoint.name, replay::OPTION: shown }),
                summary: format!("{shown}, {size} bytes"),
                ..JobMeta::default()
            },
            external_id: None,
            queue_ttl: endpoint.limits.queue_ttl,
            max_attempts: endpoint.limits.max_attempts,
            max_queued: endpoint.limits.max_queued,
            entry: Entry::Back,
            keep: Default::default(),
        };
        let standing = JobItem {
            tags,
            request_id,
            named,
        };
        self.put_job_item(queue, standing, job, vec![key]).await
    }

    /// What a request's job puts on its sink: the answer as it came, with its status where that is no success, or else why
    /// there is none. `None`: an answer without a body, which is not put.
    pub(super) async fn answer_for_sink(&self, job: &JobRecord) -> Result<Option<ForSink>, Error> {
        let stored = match &job.result {
            Some(payload) => self.read_payload(payload).await?,
            None => None,
        };
        Ok(told(job, stored.as_ref().and_then(Answer::decode)))
    }
}

/// Pure.
fn told(job: &JobRecord, answer: Option<Answer>) -> Option<ForSink> {
    match answer {
        Some(answer) if answer.is_success() => (!answer.body.is_empty()).then_some(ForSink {
            body: answer.body,
            last_code: None,
        }),
        Some(answer) => Some(ForSink {
            body: answer.body,
            last_code: Some(answer.status.to_string()),
        }),
        // An instance that succeeded has answered; only its stored answer can be gone.
        None => {
            let text = match (job.failure.as_ref(), job.state) {
                (Some(failure), _) => failure.message.clone(),
                (None, JobState::Succeeded) => "the answer is gone".to_owned(),
                (None, state) => format!("the request was {}", state.as_str()),
            };
            Some(ForSink {
                body: text.into(),
                last_code: Some(failed_code(job).to_owned()),
            })
        }
    }
}
