//! `GET /history`, `GET /history/{prompt_id}`, `POST /history`: durable, from the store (`comfyui/behaviour.md` §2, §9).

use std::collections::{HashMap, HashSet};

use axum::{
    body::Body,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use darkroom_core::JobId;
use futures::{StreamExt, TryStreamExt};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::{
    body::Removal,
    call::NativeCall,
    entry::entry_of,
    error::{NativeError, Refused},
    ids, json_response,
    streamed::{Item, json_answer, memory_for, separated, text},
};
use crate::{
    beside::beside,
    service::{
        Error, Service,
        history::{HistoryFilter, HistoryOrder, HistoryPage, NamedJob},
        jobs::JobRecord,
    },
    state::AppState,
};

/// Entries of a list when no number is asked for.
const DEFAULT_ITEMS: u32 = 1000;
/// Entries of a list at most: what ComfyUI itself keeps.
const MOST_ITEMS: u32 = 10_000;

/// The query of the list; texts, because the refusal of a wrong one has this protocol's shape.
#[derive(Debug, Default, Deserialize)]
pub struct Query {
    max_items: Option<String>,
    offset: Option<String>,
}

/// `GET /history`: oldest first. `max_items` alone, or with a negative `offset`, means the newest ones; `offset` counts
/// from the oldest.
///
/// # Errors
/// Refusals in this protocol's shape.
pub async fn list(State(state): State<AppState>, call: NativeCall<Query>) -> Result<Response, Refused> {
    call.may_list()?;
    let page = page(&call.query).map_err(|error| call.refuse(error))?;
    let filter = HistoryFilter {
        tenant: call.caller.tenant.clone(),
        endpoint: call.endpoint.name.clone(),
        states: vec![],
        workflow_id: None,
    };
    let answer = async {
        let mut jobs = state.service.history_names(filter, page).await?;
        if page.descending {
            jobs.reverse();
        }
        Ok::<_, Error>(answer(&state.service, jobs))
    };
    answer.await.map_err(|error| call.refuse(error))
}

/// `GET /history/{prompt_id}`: `{}` while it has not ended, and for an unknown one.
///
/// # Errors
/// Refusals in this protocol's shape.
pub async fn show(
    State(state): State<AppState>,
    call: NativeCall,
    Path(path): Path<PromptPath>,
) -> Result<Response, Refused> {
    let service = &state.service;
    let answer = async {
        let found = ids::find(service, &call, &path.prompt_id).await?;
        match found.filter(|job| job.state.is_final()) {
            Some(job) if service.is_remembered(job.id).await? => {
                let job = NamedJob {
                    id: job.id,
                    external_id: job.external_id,
                };
                Ok(answer(service, vec![job]))
            }
            Some(_) | None => Ok::<_, NativeError>(json_response(b"{}".to_vec())),
        }
    };
    answer.await.map_err(|error| call.refuse(error))
}

/// The path of one prompt, below the root or below `/e/{endpoint}`.
#[derive(Debug, Deserialize)]
pub struct PromptPath {
    prompt_id: String,
}

/// `POST /history`: takes entries out of the caller's history. The jobs stay what they are for other protocols until
/// retention takes them.
///
/// # Errors
/// Refusals in this protocol's shape.
pub async fn change(
    State(state): State<AppState>,
    call: NativeCall,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    remove(&state.service, &call, &headers, body)
        .await
        .map_err(|error| call.refuse(error))?;
    Ok(StatusCode::OK.into_response())
}

async fn remove(
    service: &Service,
    call: &NativeCall,
    headers: &HeaderMap,
    body: Body,
) -> Result<(), NativeError> {
    let removal = Removal::read(headers, body, &service.memory).await?;
    let (tenant, endpoint) = (&call.caller.tenant, &call.endpoint.name);
    // Callers without a key share a tenant: they take out what they can name.
    if removal.clear && call.caller.may_list(endpoint).is_ok() {
        service.forget_all(tenant, endpoint).await?;
    }
    let named = ids::find_all(service, call, &removal.delete).await?;
    let named = named.iter().map(|job| job.id).collect();
    Ok(service.forget(tenant, endpoint, named).await?)
}

fn page(query: &Query) -> Result<HistoryPage, NativeError> {
    let items = number("max_items", query.max_items.as_deref())?;
    let offset = number("offset", query.offset.as_deref())?;
    let limit = match items {
        None => DEFAULT_ITEMS,
        Some(items) => u32::try_from(items.max(0)).unwrap_or(MOST_ITEMS).min(MOST_ITEMS),
    };
    let newest = HistoryPage {
        order: HistoryOrder::Ended,
        descending: true,
        offset: 0,
        limit,
    };
    Ok(match offset.map(u64::try_from) {
        Some(Ok(offset)) => HistoryPage {
            descending: false,
            offset,
            ..newest
        },
        Some(Err(_)) | None => newest,
    })
}

fn number(name: &str, text: Option<&str>) -> Result<Option<i64>, NativeError> {
    let Some(text) = text else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        NativeError::invalid(
            "invalid_request",
            &format!("{name} must be a whole number"),
            format!("{name}: '{shown}'"),
        )
    })
}

/// An object by prompt id, in this order.
fn answer(service: &Service, jobs: Vec<NamedJob>) -> Response {
    let (ids, mut names): (Vec<JobId>, HashMap<JobId, String>) = named(jobs);
    let making = service.clone();
    let entries = service.records(ids).and_then(move |job| {
        let name = names.remove(&job.id).unwrap_or_else(|| job.id.to_string());
        named_entry(making.clone(), name, job)
    });
    json_answer(text("{").chain(separated(entries)).chain(text("}")))
}

/// A name that was used again is its newest job's; the older ones stand under their own ids.
fn named(jobs: Vec<NamedJob>) -> (Vec<JobId>, HashMap<JobId, String>) {
    let mut seen = HashSet::new();
    let newest_first = jobs.iter().rev().map(|job| {
        let name = ids::name_of(job.id, job.external_id.as_ref());
        match seen.insert(name.clone()) {
            true => (job.id, name),
            false => (job.id, job.id.to_string()),
        }
    });
    let names = newest_first.collect();
    (jobs.into_iter().map(|job| job.id).collect(), names)
}

async fn named_entry(service: Service, name: String, job: JobRecord) -> Result<Option<Item>, Error> {
    let held = memory_for(&service, &job).await?;
    let Some(entry) = entry_of(&service, &job).await? else {
        return Ok(None);
    };
    let json = beside(entry.prompt.size(), move || {
        let mut json = serde_json::to_vec(&name)?;
        json.push(b':');
        serde_json::to_writer(&mut json, &entry)?;
        Ok::<_, serde_json::Error>(json)
    });
    let json = json.await.map_err(|error| Error::Internal(error.into()))?;
    Ok(Some(Item { json, held }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_the_newest_or_from_an_offset() {
        let read = |max_items: Option<&str>, offset: Option<&str>| {
            page(&Query {
                max_items: max_items.map(str::to_owned),
                offset: offset.map(str::to_owned),
            })
            .map(|page| (page.descending, page.offset, page.limit))
            .ok()
        };
        assert_eq!(read(None, None), Some((true, 0, DEFAULT_ITEMS)));
        assert_eq!(read(Some("20"), None), Some((true, 0, 20)));
        assert_eq!(read(Some("20"), Some("-1")), Some((true, 0, 20)));
        assert_eq!(read(Some("2"), Some("0")), Some((false, 0, 2)));
        assert_eq!(read(None, Some("7")), Some((false, 7, DEFAULT_ITEMS)));
        assert_eq!(read(Some("99999999999"), None), Some((true, 0, MOST_ITEMS)));
        assert_eq!(read(Some("-3"), None), Some((true, 0, 0)));
        assert_eq!(read(Some("abc"), None), None);
        assert_eq!(read(None, Some("1.5")), None);
    }
}
