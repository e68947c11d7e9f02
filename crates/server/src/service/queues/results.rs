//! The result of a job as an item of its sink (`protocols/eas-queue.md` §6): a JSON array of what was `executed`, and last
//! one object that maps nodes to their outputs; after a failure the error, and the tag `lastCode`.

use std::str::FromStr;

use bytes::Bytes;
use darkroom_core::{
    EndpointName, JobId, JobState, TenantId,
    event::{Event, EventKind},
    failure::FailureCode,
    output::Output,
};
use darkroom_store::{
    access::OutboxRow,
    queues::{NewItem, Put, QueueId, Side, Sink},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{OpenQueue, put::REQUEST_ID_TAG, work::is_work};
use crate::service::{
    Error, Service,
    jobs::JobRecord,
    outputs::{SignedPath, file_of},
    replay::is_request,
};

/// The kind of outbox rows that ask for it.
pub(super) const OUTBOX_KIND: &str = "sink";
/// The tag of a result that is an error: the status that an instance would have answered with.
const LAST_CODE_TAG: &str = "lastCode";
const FAILED_CODE: &str = "500";
const TIMED_OUT_CODE: &str = "504";

/// The tag's value for a job that ended without an answer of its own.
pub(super) fn failed_code(job: &JobRecord) -> &'static str {
    match job.failure.as_ref().map(|failure| failure.code) {
        Some(FailureCode::ExecutionTimeout | FailureCode::QueueTimeout) => TIMED_OUT_CODE,
        Some(_) | None => FAILED_CODE,
    }
}

#[derive(Debug, Deserialize)]
struct Asked {
    tenant: TenantId,
    sink: Sink,
}

/// What a job puts on its sink.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ForSink {
    pub body: Bytes,
    /// For the tag `lastCode`, where it is an error.
    pub last_code: Option<String>,
}

/// The name of an output file that no other job uses: `<stem>_<job>_<position>_.<extension>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UniqueName {
    /// The job.
    pub job: JobId,
    /// Its place among the job's outputs.
    pub position: usize,
}

impl UniqueName {
    /// The name for a file that its instance called `given`.
    pub fn of(&self, given: &str) -> String {
        let (stem, extension) = match given.rsplit_once('.') {
            Some((stem, extension)) => (stem, format!(".{extension}")),
            None => (given, String::new()),
        };
        let stem = stem.trim_end_matches('_');
        format!("{stem}_{}_{}_{extension}", self.job, self.position)
    }
}

impl FromStr for UniqueName {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let file = name.rsplit('/').next().unwrap_or(name);
        let stem = file
            .rsplit_once("_.")
            .map_or(file.trim_end_matches('_'), |(stem, _)| stem);
        let (rest, position) = stem.rsplit_once('_').ok_or(())?;
        let (_, job) = rest.rsplit_once('_').ok_or(())?;
        Ok(UniqueName {
            job: job.parse().map_err(|_| ())?,
            position: position.parse().map_err(|_| ())?,
        })
    }
}

impl Service {
    /// Puts the result that an outbox row asks for onto its sink; the row goes in the same transaction.
    ///
    /// # Errors
    /// When a store fails: the row stays.
    pub(super) async fn put_result(&self, row: &OutboxRow) -> Result<(), Error> {
        let asked: Option<Asked> = serde_json::from_str(&row.body).ok();
        let job = self.store.job(None, row.job).await?;
        let (Some(asked), Some(job)) = (asked, job) else {
            tracing::error!(job.id = %row.job, "a result was asked for that nobody can make any more");
            return Ok(self.store.outbox_done(row.id).await?);
        };
        let size = job.result.as_ref().map_or(0, darkroom_core::Payload::size);
        let _memory = self.memory_for(size).await;
        let told = match is_request(&job.meta) {
            true => self.answer_for_sink(&job).await?,
            false if is_work(&job.meta) => Some(self.output_for_sink(&job).await?),
            false => Some(self.outputs_for_sink(&job).await?),
        };
        match told {
            Some(told) => self.put_told(row, asked, &job, told).await,
            None => Ok(self.store.outbox_done(row.id).await?),
        }
    }

    /// Puts a text in the place of a result that can never be put.
    ///
    /// # Errors
    /// As [`Service::put_result`].
    pub(super) async fn put_regret(&self, row: &OutboxRow) -> Result<(), Error> {
        let asked: Option<Asked> = serde_json::from_str(&row.body).ok();
        let job = self.store.job(None, row.job).await?;
        let (Some(asked), Some(job)) = (asked, job) else {
            return Ok(self.store.outbox_done(row.id).await?);
        };
        let text = format!("the result could not be put here; it is kept with job {}", job.id);
        let told = ForSink {
            body: text.into(),
            last_code: Some(FAILED_CODE.to_owned()),
        };
        self.put_told(row, asked, &job, told).await
    }

    async fn put_told(
        &self,
        row: &OutboxRow,
        asked: Asked,
        job: &JobRecord,
        told: ForSink,
    ) -> Result<(), Error> {
        let ForSink { body, last_code } = told;
        let endpoint = self.service_named(job.endpoint.as_str()).ok();
        let queue = QueueId {
            tenant: asked.tenant,
            endpoint: job.endpoint.clone(),
            side: Side::Sink,
        };
        let payload = self.place(self.result_key(&queue, endpoint)?, body).await?;
        let mut tags = asked.sink.tags;
        tags.insert(REQUEST_ID_TAG.to_owned(), asked.sink.request_id.clone());
        tags.extend(last_code.map(|code| (LAST_CODE_TAG.to_owned(), code)));
        let item = NewItem {
            payload,
            tags,
            priority: asked.sink.priority,
            request_id: asked.sink.request_id,
            named: false,
            max_length: u64::MAX,
        };
        let blob = item.payload.blob().cloned();
        let put = self.store.put_result(row.id, &queue, item).await;
        if !matches!(put, Ok(Some(Put::At(_)))) {
            self.discard(blob.into_iter().collect()).await;
        }
        put?;
        Ok(())
    }

    /// What a workflow's job puts on its sink.
    async fn outputs_for_sink(&self, job: &JobRecord) -> Result<ForSink, Error> {
        let events = self.store.events(job.id, 0, u32::MAX).await?;
        let history = match &job.result {
            Some(payload) => self.read_payload(payload).await?,
            None => None,
        };
        let history = history.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let base_url = job.meta.options["base_url"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let link = |output: &Output| {
            let (key, _, _) = file_of(output)?;
            let SignedPath { path_and_query, .. } = self.signed_path(key);
            Some(format!("{base_url}{path_and_query}"))
        };
        let body = shape(job, &events, history.as_ref(), &link);
        let failed = job.state != JobState::Succeeded;
        Ok(ForSink {
            body: Bytes::from(body),
            last_code: failed.then(|| FAILED_CODE.to_owned()),
        })
    }

    fn result_key(
        &self,
        queue: &QueueId,
        endpoint: Option<std::sync::Arc<darkroom_core::Endpoint>>,
    ) -> Result<darkroom_core::BlobKey, Error> {
        match endpoint {
            Some(endpoint) => self.item_key(&OpenQueue {
                id: queue.clone(),
                endpoint,
            }),
            None => {
                let key = format!(
                    "queues/{}/{}/{}",
                    queue.tenant,
                    queue.endpoint,
                    self.ids.uuid_v7()
                );
                key.parse().map_err(|e| Error::Internal(anyhow::Error::new(e)))
            }
        }
    }

    /// The signed address of a result's file, by the name that the result gives it.
    ///
    /// # Errors
    /// [`Error::NotFound`], also for another tenant's.
    pub async fn result_file(
        &self,
        tenant: &TenantId,
        endpoint: &EndpointName,
        name: &str,
    ) -> Result<SignedPath, Error> {
        let missing = || Error::not_found("output", name);
        let unique: UniqueName = name.parse().map_err(|()| missing())?;
        let job = self
            .store
            .job(Some(tenant), unique.job)
            .await?
            .ok_or_else(missing)?;
        let output = job
            .outputs
            .get(unique.position)
            .filter(|_| job.endpoint == *endpoint);
        let (key, _, _) = output.and_then(file_of).ok_or_else(missing)?;
        Ok(self.signed_path(key))
    }
}

/// The documented shape. Pure.
fn shape(
    job: &JobRecord,
    events: &[Event],
    history: Option<&Value>,
    link: &dyn Fn(&Output) -> Option<String>,
) -> Vec<u8> {
    let naming = Naming { job, link };
    let of_last = |kind: EventKind| {
        let last = events
            .iter()
            .filter(move |e| e.attempt == job.attempts && e.kind == kind);
        last.filter_map(|e| serde_json::from_str::<Value>(&e.data).ok())
    };
    let mut array = Vec::new();
    for mut data in of_last(EventKind::Executed) {
        let node = data["node"].as_str().unwrap_or_default().to_owned();
        naming.rename(&node, &mut data["output"]);
        array.push(json!({ "type": "executed", "data": {
            "node": data["node"], "output": data["output"], "prompt_id": job.id } }));
    }
    if job.state == JobState::Succeeded {
        let mut outputs = history.map_or(json!({}), |h| h["outputs"].clone());
        for (node, output) in outputs.as_object_mut().into_iter().flatten() {
            naming.rename(node, output);
        }
        array.push(outputs);
    } else {
        array.push(error_of(job, of_last(EventKind::ExecutionError).next()));
    }
    serde_json::to_vec(&array).expect("JSON values have string keys")
}

fn error_of(job: &JobRecord, raised: Option<Value>) -> Value {
    let mut data = match raised {
        Some(Value::Object(data)) => data,
        _ => {
            let failure = job.failure.as_ref();
            let code = failure.map_or(job.state.as_str(), |f| f.code.as_str());
            let message = failure.map_or_else(
                || format!("the job was {}", job.state.as_str()),
                |f| f.message.clone(),
            );
            let mut data = Map::new();
            data.insert("exception_type".to_owned(), code.into());
            data.insert("exception_message".to_owned(), message.into());
            if let Some(failure) = failure {
                data.insert("node_id".to_owned(), json!(failure.node_id));
                data.insert("node_type".to_owned(), json!(failure.node_type));
            }
            data
        }
    };
    data.insert("prompt_id".to_owned(), json!(job.id));
    json!({ "type": "execution_error", "data": data })
}

/// Gives files names that no other job uses, and addresses.
struct Naming<'a> {
    job: &'a JobRecord,
    link: &'a dyn Fn(&Output) -> Option<String>,
}

impl Naming<'_> {
    fn rename(&self, node: &str, output: &mut Value) {
        for (kind, list) in output.as_object_mut().into_iter().flatten() {
            for (index, entry) in list.as_array_mut().into_iter().flatten().enumerate() {
                let Some(name) = entry.get("filename").and_then(Value::as_str).map(str::to_owned) else {
                    continue;
                };
                let found = self
                    .job
                    .outputs
                    .iter()
                    .enumerate()
                    .find(|(_, o)| o.node_id == node && o.kind == *kind && o.index as usize == index);
                let Some((position, stored)) = found else { continue };
                let unique = UniqueName {
                    job: self.job.id,
                    position,
                };
                entry["filename"] = unique.of(&name).into();
                if let Some(url) = (self.link)(stored) {
                    entry["url"] = url.into();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job() -> JobId {
        "01890000-0000-7000-8000-000000000001".parse().unwrap()
    }

    #[test]
    fn names_are_unique_and_found_again() {
        let unique = UniqueName {
            job: job(),
            position: 3,
        };
        for (given, expected) in [
            (
                "ComfyUI_00001_.png",
                "ComfyUI_00001_01890000-0000-7000-8000-000000000001_3_.png",
            ),
            (
                "图 像.tar.gz",
                "图 像.tar_01890000-0000-7000-8000-000000000001_3_.gz",
            ),
            ("none", "none_01890000-0000-7000-8000-000000000001_3_"),
        ] {
            assert_eq!(unique.of(given), expected);
            assert_eq!(expected.parse(), Ok(unique.clone()), "{expected}");
            assert_eq!(format!("sub/folder/{expected}").parse(), Ok(unique.clone()));
        }
        for bad in [
            "",
            "x.png",
            "_",
            "a_b_c_.png",
            "a_01890000-0000-7000-8000-000000000001_x_.png",
        ] {
            assert_eq!(bad.parse::<UniqueName>(), Err(()), "{bad}");
        }
    }
}
