//! Records as our own API shows them. Times are RFC 3339 in UTC.

use darkroom_core::{
    EndpointName, Timestamp,
    output::{Output, OutputBody},
};
use serde_json::{Value, json};

use crate::{
    auth::{Caller, Scope},
    service::{
        Error, Service,
        endpoints::EndpointView,
        instances::{InstanceRecord, reason_for_clients},
        jobs::{AttemptRecord, JobRecord},
        waiting::Waiting,
    },
};

/// A time, or null.
pub fn time(at: Option<Timestamp>) -> Value {
    at.and_then(|at| jiff::Timestamp::from_microsecond(at.as_micros()).ok())
        .map_or(Value::Null, |at| Value::from(at.to_string()))
}

/// A page of jobs, each with why it waits if it does.
///
/// # Errors
/// When the store fails.
pub async fn jobs(service: &Service, caller: &Caller, records: &[JobRecord]) -> Result<Vec<Value>, Error> {
    let all = service.why_each_waits(records).await?;
    let views = records.iter().zip(all).map(|(record, why)| {
        let mut view = job(service, record);
        view["waiting"] = waiting(caller, record, why);
        view
    });
    Ok(views.collect())
}

/// A job without what takes more reading.
pub fn job(service: &Service, job: &JobRecord) -> Value {
    json!({
        "id": job.id,
        "endpoint": job.endpoint,
        "tenant": job.tenant,
        "state": job.state,
        "priority": job.priority,
        "dialect": job.meta.dialect,
        "summary": job.meta.summary,
        "reference": job.external_id.as_ref().map(|(_, id)| id),
        "created_at": time(Some(job.created_at)),
        "started_at": time(job.started_at),
        "finished_at": time(job.finished_at),
        "cancel_requested": job.cancel_requested,
        "failure": job.failure,
        "outputs": job.outputs.iter().map(|o| output(service, o)).collect::<Vec<_>>(),
    })
}

/// A job with its attempts, and why it waits if it does.
///
/// # Errors
/// When the store fails.
pub async fn job_in_full(service: &Service, caller: &Caller, record: &JobRecord) -> Result<Value, Error> {
    let mut view = job(service, record);
    let attempts = service.attempts(record.id).await?;
    view["attempts"] = attempts.iter().map(attempt).collect();
    view["waiting"] = waiting(caller, record, service.why_waiting(record).await?);
    Ok(view)
}

/// What an instance printed before it failed is for its operators only.
fn waiting(caller: &Caller, record: &JobRecord, why: Option<Waiting>) -> Value {
    let Some(Waiting {
        reason,
        position,
        starts_in,
    }) = why
    else {
        return Value::Null;
    };
    let reason = reason.for_users_of(|other| caller.may(Scope::Client, other).is_ok());
    let reason = match caller.operates(&record.endpoint) {
        true => reason,
        false => reason.for_clients(),
    };
    json!({
        "reason": reason,
        "message": reason.to_string(),
        "position": position,
        "starts_in_s": starts_in.map(|time| time.as_secs_f64()),
    })
}

/// An attempt.
pub fn attempt(attempt: &AttemptRecord) -> Value {
    json!({
        "number": attempt.number,
        "state": attempt.state,
        "instance": attempt.instance,
        "claimed_at": time(Some(attempt.claimed_at)),
        "ended_at": time(attempt.ended_at),
        "reason": attempt.reason,
    })
}

fn output(service: &Service, output: &Output) -> Value {
    let mut view = json!({ "node_id": output.node_id, "kind": output.kind, "index": output.index });
    match &output.body {
        OutputBody::File {
            key,
            size,
            content_type,
            blake3,
        } => {
            let filename = output
                .raw
                .get("filename")
                .and_then(Value::as_str)
                .unwrap_or(key.file_name());
            view["filename"] = Value::from(filename);
            view["content_type"] = Value::from(content_type.as_str());
            view["size"] = Value::from(*size);
            view["blake3"] = Value::from(blake3.as_str());
            view["url"] = Value::from(service.signed_path(key).path_and_query);
        }
        OutputBody::Text { text } => view["text"] = Value::from(text.as_str()),
    }
    view
}

/// An instance. Where its process is, and what it printed before it failed, is shown to its operators only.
pub fn instance(service: &Service, caller: &Caller, record: &InstanceRecord) -> Value {
    let mut view = instance_for_clients(service, record);
    view["resources"] = json!(service.resources(record.id));
    let now = service.clock.monotonic();
    view["agent"] = service.agent(record.id).map_or(
        Value::Null,
        |agent| json!({"name": agent.name(), "connected": agent.is_connected(now)}),
    );
    if caller.operates(&record.endpoint) {
        let handle: Value = record
            .handle
            .as_deref()
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default();
        view["box"] = Value::from(record.box_name.as_str());
        view["state_reason"] = Value::from(record.state_reason.as_str());
        view["pid"] = handle.pointer("/process/pid").cloned().unwrap_or_default();
        view["url"] = handle.get("base_url").cloned().unwrap_or_default();
    }
    view
}

fn instance_for_clients(service: &Service, record: &InstanceRecord) -> Value {
    let public_name = service
        .endpoint(&record.endpoint)
        .map(|endpoint| endpoint.public_box_name(&record.box_name));
    let phases: Vec<Value> = record
        .phases
        .iter()
        .map(|(phase, at)| json!({ "phase": phase, "at": time(Some(*at)) }))
        .collect();
    json!({
        "id": record.id,
        "endpoint": record.endpoint,
        "home": record.home,
        "state": record.state,
        "state_since": time(Some(record.state_since)),
        "state_reason": reason_for_clients(record),
        "created_at": time(Some(record.created_at)),
        "start_reason": record.start_reason,
        "gpu": record.gpu,
        "box": public_name.ok(),
        "jobs_done": record.jobs_done,
        "phases": phases,
    })
}

/// The starts that failed in a row; what they printed is for operators.
fn start_failures(service: &Service, caller: &Caller, endpoint: &EndpointName) -> Value {
    let Some(trouble) = service.start_trouble(endpoint) else {
        return Value::Null;
    };
    let mut view = json!({
        "in_a_row": trouble.in_a_row,
        "last_at": time(Some(trouble.last_at)),
        "next_try_at": time(Some(trouble.next_try_at)),
    });
    if caller.operates(endpoint) {
        view["last_error"] = json!(trouble.last_error);
    }
    view
}

/// An endpoint with its live instances.
pub fn endpoint(
    service: &Service,
    caller: &Caller,
    view: &EndpointView,
    instances: &[InstanceRecord],
) -> Value {
    let endpoint = &view.endpoint;
    let instances: Vec<Value> = instances
        .iter()
        .filter(|i| i.endpoint == endpoint.name)
        .map(|i| instance(service, caller, i))
        .collect();
    let scaling = &endpoint.scaling;
    json!({
        "name": endpoint.name,
        "kind": endpoint.kind,
        "backend": match &endpoint.backend {
            darkroom_core::endpoint::Backend::Process(_) if endpoint.runs_embedded_engine() => "engine",
            darkroom_core::endpoint::Backend::Process(_) => "process",
            darkroom_core::endpoint::Backend::Remote { .. } => "remote",
            darkroom_core::endpoint::Backend::External => "external",
        },
        "queued": view.counters.queued,
        "running": view.counters.running,
        "paused": view.counters.paused_since.is_some(),
        "paused_since": time(view.counters.paused_since),
        "instances": instances,
        "user_active_at": time(service.user_active_at(&endpoint.name)),
        "start_failures": start_failures(service, caller, &endpoint.name),
        "scaling": {
            "min_instances": scaling.min_instances,
            "max_instances": scaling.max_instances,
            "idle_timeout_s": scaling.idle_timeout.as_secs_f64(),
            "start_timeout_s": scaling.start_timeout.as_secs_f64(),
            "max_jobs_per_instance": scaling.max_jobs_per_instance,
            "max_rss_bytes": scaling.max_rss_bytes,
        },
    })
}
