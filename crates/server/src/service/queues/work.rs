//! What is put on the input of a service whose workers are handlers (RunPod's or PPIO's SDK): each item is the input of a
//! job, and what the handler returned comes to the sink, as with instances that answer HTTP. Such a handler has one door,
//! so the path of the request does not matter to it.

use bytes::Bytes;
use darkroom_core::{JobState, endpoint::Kind, worker::Wishes};
use serde_json::{Map, Value, json, value::RawValue};

use super::{OpenQueue, PutDone, Side, Tags, job_item::JobItem, put::check_tags, results::ForSink};
use crate::service::{
    Error, Service,
    jobs::{JobMeta, JobRecord},
    workers::{WorkerSubmit, result::error_of},
};

/// The option of a job that is one: how its result is told.
const OPTION: &str = "queue_input";
/// The dialect of jobs that come this way.
const DIALECT: &str = "eas";

/// An input on its way to a queue.
#[derive(Debug)]
pub struct WorkItem {
    /// Tags, which the result will have as well.
    pub tags: Tags,
    /// Higher runs first.
    pub priority: i32,
    /// The JSON text of the handler's input.
    pub input: Bytes,
    /// The base of addresses, as the caller reached us.
    pub base_url: String,
    /// The id of the HTTP request.
    pub request_id: String,
}

impl OpenQueue {
    /// Whether inputs of handlers are put on it.
    pub fn takes_work(&self) -> bool {
        self.id.side == Side::Input && self.endpoint.kind == Kind::Worker && !self.endpoint.is_http_worker()
    }
}

/// The input in a body: the value of `input` where the body is an object that has one, as the vendors' clients of handlers
/// write it, else the body.
///
/// # Errors
/// [`Error::Invalid`] for what is not JSON.
pub fn input_of(body: &Bytes) -> Result<Bytes, Error> {
    let invalid = |e| Error::Invalid(format!("the body is not JSON: {e}"));
    let whole: &RawValue = serde_json::from_slice(body).map_err(invalid)?;
    let wrapped: Option<std::collections::BTreeMap<String, &RawValue>> =
        serde_json::from_str(whole.get()).ok();
    let input = wrapped.and_then(|wrapped| wrapped.get("input").copied());
    Ok(Bytes::copy_from_slice(input.unwrap_or(whole).get().as_bytes()))
}

/// Whether a job came as an input of a queue.
pub(super) fn is_work(meta: &JobMeta) -> bool {
    meta.options[OPTION].as_bool() == Some(true)
}

impl Service {
    /// Accepts an input as a job, with an item that stands for it: durable when this returns.
    ///
    /// # Errors
    /// Every refusal of [`Service::submit_worker`].
    pub async fn put_work(&self, queue: &OpenQueue, item: WorkItem) -> Result<PutDone, Error> {
        check_tags(&item.tags)?;
        let (tags, request_id, named) = self.name(item.tags);
        let submit = WorkerSubmit {
            tenant: queue.id.tenant.clone(),
            endpoint: queue.endpoint.name.clone(),
            input: item.input,
            wishes: Wishes::default(),
            webhook: None,
            base_url: item.base_url,
            s3_config: None,
            dialect: DIALECT,
            request_id: item.request_id,
        };
        let (mut job, key) = self.prepare_worker(submit).await?;
        job.priority = item.priority;
        let mut options = match job.meta.options.take() {
            Value::Object(options) => options,
            _ => Map::new(),
        };
        options.insert(OPTION.to_owned(), json!(true));
        job.meta.options = Value::Object(options);
        let standing = JobItem {
            tags,
            request_id,
            named,
        };
        self.put_job_item(queue, standing, job, vec![key]).await
    }

    /// What an input's job puts on its sink: what its handler returned (`null` where that was nothing), or else why it did
    /// not.
    pub(super) async fn output_for_sink(&self, job: &JobRecord) -> Result<ForSink, Error> {
        let stored = match &job.result {
            Some(payload) => self.read_payload(payload).await?,
            None => None,
        };
        Ok(told(job, stored))
    }
}

/// Pure.
fn told(job: &JobRecord, output: Option<Bytes>) -> ForSink {
    if job.state == JobState::Succeeded {
        return ForSink {
            body: output.unwrap_or_else(|| Bytes::from_static(b"null")),
            last_code: None,
        };
    }
    let text = match error_of(job) {
        Some(Value::String(text)) => text,
        Some(error) => error.to_string(),
        None => format!("the request was {}", job.state.as_str()),
    };
    ForSink {
        body: text.into(),
        last_code: Some(super::results::failed_code(job).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_input_is_the_body_or_what_it_calls_input() {
        let input = |body: &'static str| {
            input_of(&Bytes::from_static(body.as_bytes())).map(|b| String::from_utf8(b.to_vec()).unwrap())
        };
        assert_eq!(
            input(r#"{"input": {"a": 1.0}, "x": 2}"#).unwrap(),
            r#"{"a": 1.0}"#
        );
        assert_eq!(input(r#" {"prompt": "x"} "#).unwrap(), r#"{"prompt": "x"}"#);
        assert_eq!(input("[1]").unwrap(), "[1]");
        for bad in ["", "{", "x"] {
            assert!(matches!(input(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }
}
