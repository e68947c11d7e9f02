//! A job as these protocols show it (`protocols/async-endpoints.md` §2.1, §2.3).

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use darkroom_core::{JobState, endpoint::Kind, failure::FailureCode};
use http::header;
use serde::Serialize;
use serde_json::{Value, json, value::RawValue};

use super::comfyui;
use crate::{
    beside::beside,
    protocols::async_endpoints::family::{Family, PPIO, RUNPOD},
    service::{
        Error, Service,
        jobs::JobRecord,
        replay::is_request,
        workers::{progress, result},
    },
};

/// Largest output that is put into an answer where the vendors' limits are not asked for, in bytes. A larger one is
/// told as an address: the answer is made in memory.
const MAX_OUTPUT_BYTES: u64 = 20 * 1_000_000;

/// The word for a job's state.
pub fn state_word(job: &JobRecord) -> &'static str {
    match job.state {
        JobState::Queued => "IN_QUEUE",
        JobState::Running => "IN_PROGRESS",
        JobState::Succeeded => "COMPLETED",
        JobState::Cancelled => "CANCELLED",
        JobState::Expired => "TIMED_OUT",
        JobState::Failed => match job.failure.as_ref().map(|f| f.code) {
            Some(FailureCode::ExecutionTimeout | FailureCode::QueueTimeout) => "TIMED_OUT",
            Some(_) | None => "FAILED",
        },
    }
}

/// What decides how a job is shown, beside the job.
pub struct Shown<'a> {
    /// Which vendor's way.
    pub family: &'static Family,
    /// What its endpoint runs.
    pub kind: Kind,
    /// The vendor's limit of outputs counts.
    pub vendor_limits: bool,
    /// The base of absolute addresses.
    pub base_url: &'a str,
}

/// The body of `status`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    id: String,
    status: &'static str,
    delay_time: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_time: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
    #[serde(skip_serializing_if = "is_zero")]
    retries: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// The answer of `status` and `runsync`.
///
/// # Errors
/// When the job's data cannot be read.
pub async fn answer(service: &Service, shown: &Shown<'_>, job: &JobRecord) -> Result<Response, Error> {
    let status = whole(service, shown, job).await?;
    let bytes = status.output.as_ref().map_or(0, |output| output.get().len());
    let written = beside(bytes, move || serde_json::to_vec(&status)).await;
    let body = written.map_err(|e| Error::Internal(anyhow::Error::new(e)))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// The same for whoever asked to be told of the job's end.
///
/// # Errors
/// When the job's data cannot be read.
pub async fn status_body(service: Service, job: JobRecord) -> Result<Value, Error> {
    // An endpoint that is gone had workers, or has nothing that could be told in another way.
    let endpoint = service.endpoint(&job.endpoint).ok();
    let shown = Shown {
        family: match job.meta.dialect == RUNPOD.dialect {
            true => &RUNPOD,
            false => &PPIO,
        },
        kind: endpoint.as_ref().map_or(Kind::Worker, |e| e.kind),
        vendor_limits: endpoint.is_some_and(|e| e.limits.vendor_limits),
        base_url: job.meta.options["base_url"].as_str().unwrap_or_default(),
    };
    let status = whole(&service, &shown, &job).await?;
    let bytes = status.output.as_ref().map_or(0, |output| output.get().len());
    let told = beside(bytes, move || serde_json::to_value(&status)).await;
    told.map_err(|e| Error::Internal(anyhow::Error::new(e)))
}

async fn whole(service: &Service, shown: &Shown<'_>, job: &JobRecord) -> Result<Status, Error> {
    let mut status = facts(service, shown, job).await?;
    status.output = output(service, shown, job).await?;
    Ok(status)
}

/// Everything but the output.
///
/// # Errors
/// When the store fails.
pub async fn facts(service: &Service, shown: &Shown<'_>, job: &JobRecord) -> Result<Status, Error> {
    let now = service.now();
    let millis = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    // A job that waits again has run before, and what it waits for now is what counts.
    let started = job.started_at.filter(|_| job.state != JobState::Queued);
    let ended = job.finished_at.unwrap_or(now);
    Ok(Status {
        id: job.id.to_string(),
        status: state_word(job),
        delay_time: millis(started.unwrap_or(ended).since(job.created_at)),
        execution_time: started.map(|started| millis(ended.since(started))),
        worker_id: service.worker_of(job).await?,
        output: None,
        error: match shown.kind {
            Kind::Worker => result::error_of(job),
            // What ComfyUI says beside the message holds paths of its machine.
            Kind::Comfyui | Kind::Queue => job.failure.as_ref().map(|f| Value::from(f.message.as_str())),
        },
        retries: job.attempts.saturating_sub(1),
    })
}

async fn output(
    service: &Service,
    shown: &Shown<'_>,
    job: &JobRecord,
) -> Result<Option<Box<RawValue>>, Error> {
    match (job.state, shown.kind) {
        (JobState::Queued, _) => Ok(None),
        // What an instance answered to a request is for its sink, and need not be JSON.
        _ if is_request(&job.meta) => Ok(None),
        (JobState::Running, _) => Ok(intermediate(service, job)),
        (_, Kind::Comfyui) => comfyui::output(service, shown.base_url, job),
        (_, Kind::Worker | Kind::Queue) => final_output(service, shown, job).await,
    }
}

/// What a running handler told last, or how far a running workflow is.
fn intermediate(service: &Service, job: &JobRecord) -> Option<Box<RawValue>> {
    let message = service.last_progress(job.id)?;
    if let Some(output) = progress::output_of(&message) {
        return Some(output);
    }
    let message: Value = serde_json::from_str(&message).ok()?;
    let told = json!({ "progress": message.get("data")? });
    serde_json::value::to_raw_value(&told).ok()
}

async fn final_output(
    service: &Service,
    shown: &Shown<'_>,
    job: &JobRecord,
) -> Result<Option<Box<RawValue>>, Error> {
    let Some(payload) = &job.result else {
        return Ok(None);
    };
    let most = match shown.vendor_limits {
        true => shown.family.output_bytes,
        false => MAX_OUTPUT_BYTES,
    };
    if payload.size() > most
        && let Some(key) = payload.blob()
    {
        let path = service.signed_path(key).path_and_query;
        let told = json!({
            "url": format!("{}{path}", shown.base_url),
            "size": payload.size(),
            "content_type": "application/json",
            "reason": format!("the output is larger than {most} bytes: fetch it from url"),
        });
        return raw(&told).map(Some);
    }
    let Some(bytes) = service.read_payload(payload).await? else {
        return Err(Error::not_found("output of job", job.id));
    };
    let size = bytes.len();
    beside(size, move || checked(&bytes)).await.map(Some)
}

fn raw(value: &Value) -> Result<Box<RawValue>, Error> {
    serde_json::value::to_raw_value(value).map_err(|e| Error::Internal(anyhow::Error::new(e)))
}

/// What is stored was JSON when it was stored; an answer that is none would be worse than one that fails.
fn checked(bytes: &Bytes) -> Result<Box<RawValue>, Error> {
    serde_json::from_slice(bytes).map_err(|e| Error::Internal(anyhow::Error::new(e)))
}
