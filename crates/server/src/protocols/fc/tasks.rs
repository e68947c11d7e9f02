//! `GET /api/serverless/task/{id}` and `/tasks`: tasks as records (`protocols/comfyui-serverless-fc.md` §7.8).

use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use darkroom_core::{JobState, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    DIALECT,
    call::FcCall,
    error::{FcError, Refused},
    run::common_headers,
    status,
};
use crate::{
    service::{
        Service,
        jobs::{JobFilter, JobRecord, Page},
    },
    state::AppState,
};

/// The query of one task.
#[derive(Debug, Deserialize)]
pub struct ShowParams {
    #[serde(default, rename = "withDetail")]
    with_detail: String,
}

/// The query of a list. Everything is text, so that a bad value gets an answer in this protocol's shape.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ListParams {
    status: String,
    started_time_begin: String,
    started_time_end: String,
    limit: String,
    next_token: String,
    sort_order_by_time: String,
    prefix: String,
}

/// One task.
///
/// # Errors
/// 404 for an unknown one, also for another tenant's.
pub async fn show(
    State(state): State<AppState>,
    Path(path): Path<std::collections::HashMap<String, String>>,
    call: FcCall<ShowParams>,
) -> Result<Response, Refused> {
    let task_id = path.get("task_id").map(String::as_str).unwrap_or_default();
    let service = &state.service;
    let found = status::find(service, &call.caller, &call.endpoint, task_id)
        .await
        .map_err(|e| call.refuse(e))?;
    let job = found.ok_or_else(|| call.refuse(FcError::no_such_task()))?;
    let mut body = record(&job);
    if let Some(progress) = progress(service, &job) {
        body["progress"] = progress;
    }
    if call.query.with_detail.eq_ignore_ascii_case("true") {
        let messages = status::messages(service, &job, call.base_url.clone())
            .await
            .map_err(|e| call.refuse(e))?;
        let messages: Vec<Value> = messages
            .iter()
            .filter_map(|m| serde_json::from_str(m).ok())
            .collect();
        let payload = service.graph_of(&job).await.map_err(|e| call.refuse(e))?;
        body["detail"] = json!({ "payload": payload, "messages": messages });
    }
    Ok(answer(&call, body))
}

/// The last progress that ComfyUI told of a running task, as it told it; ours, beside the vendor's keys.
fn progress(service: &Service, job: &JobRecord) -> Option<Value> {
    let last = service
        .last_progress(job.id)
        .filter(|_| job.state == JobState::Running);
    serde_json::from_str(&last?).ok()
}

fn answer<Q>(call: &FcCall<Q>, body: Value) -> Response {
    let mut response = Json(body).into_response();
    common_headers(response.headers_mut(), call.caller.request_id.as_str());
    response
}

/// A page of tasks.
///
/// # Errors
/// 400 for a bad parameter.
pub async fn list(State(state): State<AppState>, call: FcCall<ListParams>) -> Result<Response, Refused> {
    call.caller.may_list(&call.endpoint).map_err(|e| call.refuse(e))?;
    let (Some(mut filter), page) = parse(&call.query).map_err(|e| call.refuse(e))? else {
        return Ok(answer(&call, json!({ "tasks": [], "nextToken": null })));
    };
    filter.tenant = Some(call.caller.tenant.clone());
    filter.endpoint = Some(call.endpoint.clone());
    let limit = page.limit as usize;
    let wanted = Page {
        limit: page.limit + 1,
        ..page
    };
    let mut jobs = state
        .service
        .jobs(filter, wanted)
        .await
        .map_err(|e| call.refuse(e))?;
    let more = jobs.len() > limit;
    jobs.truncate(limit);
    let next = more.then(|| jobs.last().map(|j| j.id.to_string())).flatten();
    let tasks: Vec<Value> = jobs.iter().map(record).collect();
    Ok(answer(&call, json!({ "tasks": tasks, "nextToken": next })))
}

/// The filter, unless nothing can pass it, and the page.
fn parse(params: &ListParams) -> Result<(Option<JobFilter>, Page), FcError> {
    let time = |name: &str, text: &str| match text {
        "" => Ok(None),
        text => match text.parse::<i64>() {
            Ok(ms) if ms >= 0 => Ok(Some(Timestamp::from_millis(ms))),
            _ => Err(FcError::invalid(format!(
                "{name} must be milliseconds since 1970"
            ))),
        },
    };
    let limit = match params.limit.as_str() {
        "" => 20,
        text => text
            .parse()
            .ok()
            .filter(|n| (1..=100).contains(n))
            .ok_or_else(|| FcError::invalid("limit must be 1 to 100"))?,
    };
    let after = match params.next_token.as_str() {
        "" => None,
        text => Some(
            text.parse()
                .map_err(|_| FcError::invalid("nextToken is not one of ours"))?,
        ),
    };
    let oldest_first = match params.sort_order_by_time.to_ascii_lowercase().as_str() {
        "" | "desc" => false,
        "asc" => true,
        _ => return Err(FcError::invalid("sortOrderByTime must be asc or desc")),
    };
    let filter = JobFilter {
        dialect: Some("fc".to_owned()),
        external_id_prefix: (!params.prefix.is_empty()).then(|| params.prefix.clone()),
        started_from: time("startedTimeBegin", &params.started_time_begin)?,
        started_before: time("startedTimeEnd", &params.started_time_end)?,
        oldest_first,
        ..JobFilter::default()
    };
    Ok((with_status(&params.status, filter)?, Page { limit, after }))
}

/// Narrows a filter to the tasks that [`record`] shows in this state; `None`: there are never any. The vendor's states
/// of stopping are not supported there either.
fn with_status(name: &str, filter: JobFilter) -> Result<Option<JobFilter>, FcError> {
    let (states, attempted) = match name {
        "" => (vec![], None),
        "Enqueued" => (vec![JobState::Queued], Some(false)),
        "Retrying" => (vec![JobState::Queued], Some(true)),
        // Here a task that leaves the queue runs.
        "Dequeued" => return Ok(None),
        "Running" => (vec![JobState::Running], None),
        "Succeeded" => (vec![JobState::Succeeded], None),
        "Failed" => (vec![JobState::Failed, JobState::Cancelled], None),
        "Expired" => (vec![JobState::Expired], None),
        other => {
            let other: String = other.chars().take(40).collect();
            return Err(FcError::invalid(format!("status '{other}' is not supported")));
        }
    };
    Ok(Some(JobFilter {
        states,
        attempted,
        ..filter
    }))
}

fn record(job: &JobRecord) -> Value {
    let status = match job.state {
        JobState::Queued if job.attempts > 0 => "Retrying",
        JobState::Queued => "Enqueued",
        JobState::Running => "Running",
        JobState::Succeeded => "Succeeded",
        JobState::Failed | JobState::Cancelled => "Failed",
        JobState::Expired => "Expired",
    };
    let duration = match (job.started_at, job.finished_at) {
        (Some(start), Some(end)) => Some(u64::try_from(end.since(start).as_millis()).unwrap_or(u64::MAX)),
        _ => None,
    };
    let named = job.external_id.as_ref().filter(|(dialect, _)| dialect == DIALECT);
    json!({
        "taskId": named.map_or_else(|| job.id.to_string(), |(_, id)| id.clone()),
        "status": status,
        "startTime": job.started_at.map(Timestamp::as_millis),
        "endTime": job.finished_at.map(Timestamp::as_millis),
        "durationMs": duration,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_refuse_what_they_do_not_know() {
        let with = |change: &dyn Fn(&mut ListParams)| {
            let mut params = ListParams::default();
            change(&mut params);
            parse(&params)
        };
        assert!(with(&|_| ()).is_ok());
        for bad in ["0", "101", "x", "-1"] {
            assert!(with(&|p| p.limit = bad.into()).is_err(), "{bad}");
        }
        for bad in ["Stopping", "Stopped", "Invalid", "succeeded"] {
            assert!(with(&|p| p.status = bad.into()).is_err(), "{bad}");
        }
        assert!(with(&|p| p.next_token = "../x".into()).is_err());
        assert!(with(&|p| p.started_time_begin = "yesterday".into()).is_err());
        assert!(with(&|p| p.sort_order_by_time = "up".into()).is_err());
        let (filter, page) = with(&|p| {
            p.limit = "100".into();
            p.sort_order_by_time = "ASC".into();
        })
        .unwrap();
        assert!(filter.unwrap().oldest_first);
        assert!(with(&|p| p.status = "Dequeued".into()).unwrap().0.is_none());
        assert_eq!(page.limit, 100);
    }
}
