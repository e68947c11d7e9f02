//! `POST /jobs`: checked, durable, then 201 with a job that is queued, also while no instance runs
//! (`protocols/comfy-v2.md` §2.1, §8).

use std::{collections::BTreeMap, time::Duration};

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use darkroom_core::JobState;
use http::{HeaderMap, StatusCode};
use serde_json::{Map, Value};

use super::{
    body::{Read, read_json},
    call::V2Call,
    error::ApiError,
    labels, references, view,
};
use crate::{
    service::{
        intake::Fetch,
        jobs::{ExternalId, JobMeta, JobRecord, OnDuplicate},
        submit::ComfySubmit,
    },
    state::AppState,
};

/// Largest body, in bytes: a workflow with small files inside.
const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// This protocol in a job's facts, and the namespace of its Idempotency-Keys.
const DIALECT: &str = "comfy_v2";
const KEY_HEADER: &str = "idempotency-key";
const MAX_KEY_CHARS: usize = 255;
/// A key may be used again after this (§8).
const KEY_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Of the wish; each is refused while the protocol reserves it.
const RESERVED: [&str; 2] = ["webhook_url", "inputs"];
/// All that `extra_data` may hold; never stored as it is, and never told.
const CREDENTIAL: &str = "api_key_comfy_org";

/// The handler.
///
/// # Errors
/// Every refusal, in the protocol's order: nothing is half-accepted, and a key that came with it is good again.
pub async fn handler(
    State(state): State<AppState>,
    call: V2Call,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let service = &state.service;
    let Read { json, size, held } = read_json(&headers, body, MAX_BODY_BYTES, &service.memory).await?;
    let wish = Wish::read(json)?;
    let graph = references::check(service, &call, wish.graph, size).await?;
    let key = idempotency_key(&headers)?;
    let accepted = service
        .submit_comfy(ComfySubmit {
            tenant: call.caller.tenant.clone(),
            endpoint: call.endpoint.name.clone(),
            graph,
            extra_data: wish.extra_data,
            targets: None,
            priority: 0,
            external_id: key.map(|id| ExternalId {
                dialect: DIALECT.to_owned(),
                id,
                on_duplicate: OnDuplicate::RejectWithin(KEY_LIFE),
            }),
            randomise_seeds: false,
            fetch: Fetch::Now,
            meta: JobMeta {
                dialect: DIALECT.to_owned(),
                request_id: call.caller.request_id.as_str().to_owned(),
                labels: wish.labels,
                ..JobMeta::default()
            },
            size_bytes: size,
            memory: held,
        })
        .await
        .map_err(ApiError::of_submit)?;
    let job = service.job(Some(&call.caller.tenant), accepted.job).await?;
    let view = view::job(service, &call, &as_accepted(job)).await?;
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// The job as it was when it was accepted: a slot may have it by now, and the answer is `queued` all the same.
fn as_accepted(job: JobRecord) -> JobRecord {
    JobRecord {
        state: JobState::Queued,
        started_at: None,
        finished_at: None,
        delete_at: None,
        failure: None,
        outputs: Vec::new(),
        ..job
    }
}

/// What a body asks for.
#[derive(Debug, PartialEq)]
struct Wish {
    graph: Value,
    labels: BTreeMap<String, String>,
    extra_data: Map<String, Value>,
}

impl Wish {
    fn read(mut body: Map<String, Value>) -> Result<Self, ApiError> {
        let wrong = |message: &str| ApiError::unprocessable("invalid_workflow", message);
        if let Some(key) = RESERVED
            .iter()
            .find(|key| body.get(**key).is_some_and(|v| !v.is_null()))
        {
            return Err(wrong(&format!("'{key}' is reserved and must not be sent")));
        }
        let graph = match body.remove("workflow") {
            Some(Value::Object(graph)) => graph,
            Some(_) => return Err(wrong("workflow must be an object")),
            None => return Err(wrong("workflow is missing")),
        };
        if graph.get("nodes").is_some_and(Value::is_array) {
            return Err(ApiError::unprocessable(
                "workflow_format_ui",
                "the workflow is the editor's own file; export it with \"Export (API)\"",
            ));
        }
        if graph.is_empty() {
            return Err(wrong("the workflow has no nodes"));
        }
        Ok(Wish {
            graph: Value::Object(graph),
            labels: labels::read(body.remove("metadata"))?,
            extra_data: extra_data(body.remove("extra_data"))?,
        })
    }
}

/// A closed object.
fn extra_data(value: Option<Value>) -> Result<Map<String, Value>, ApiError> {
    match value {
        None => Ok(Map::new()),
        Some(Value::Object(object)) => match object
            .iter()
            .find(|(key, v)| *key != CREDENTIAL || !v.is_string())
        {
            None => Ok(object),
            Some((key, _)) if key == CREDENTIAL => Err(ApiError::invalid(format!(
                "extra_data: '{CREDENTIAL}' must be a text"
            ))),
            Some(_) => Err(ApiError::invalid(format!(
                "extra_data may hold '{CREDENTIAL}' and nothing else"
            ))),
        },
        Some(_) => Err(ApiError::invalid("extra_data must be an object")),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(KEY_HEADER) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
    match (1..=MAX_KEY_CHARS).contains(&text.chars().count()) {
        true => Ok(Some(text.to_owned())),
        false => Err(ApiError::invalid("Idempotency-Key must have 1 to 255 characters")),
    }
}

#[cfg(test)]
mod tests {
    use axum::response::IntoResponse;
    use http::HeaderValue;
    use serde_json::json;

    use super::*;

    fn status(body: Value) -> u16 {
        let Value::Object(body) = body else { panic!() };
        match Wish::read(body) {
            Ok(_) => 201,
            Err(error) => error.into_response().status().as_u16(),
        }
    }

    #[test]
    fn bodies_are_judged_by_their_form() {
        let node = json!({"1": {"class_type": "A", "inputs": {}}});
        for (more, expected) in [
            (json!({}), 201),
            (
                json!({"metadata": null, "webhook_url": null, "inputs": null}),
                201,
            ),
            (
                json!({"metadata": {"a": "b"}, "extra_data": {}, "priority": 3}),
                201,
            ),
            (json!({"extra_data": {"api_key_comfy_org": "k"}}), 201),
            (json!({"extra_data": {"api_key_comfy_org": null}}), 400),
            (json!({"extra_data": {"other": "k"}}), 400),
            (json!({"extra_data": null}), 400),
            (json!({"extra_data": []}), 400),
            (json!({"webhook_url": "http://x"}), 422),
            (json!({"inputs": {}}), 422),
            (json!({"metadata": "a text"}), 422),
            (json!({"workflow": {}}), 422),
            (json!({"workflow": null}), 422),
            (json!({"workflow": [1]}), 422),
            (json!({"workflow": {"nodes": [], "links": []}}), 422),
        ] {
            let mut body = json!({ "workflow": node });
            body.as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            assert_eq!(status(body), expected, "{more}");
        }
        assert_eq!(status(json!({})), 422);
    }

    #[test]
    fn keys_have_1_to_255_characters() {
        let read = |key: &str| {
            let value = HeaderValue::from_bytes(key.as_bytes()).unwrap();
            let headers = HeaderMap::from_iter([(http::HeaderName::from_static(KEY_HEADER), value)]);
            idempotency_key(&headers).is_ok()
        };
        assert!(read("k") && read(&"k".repeat(255)) && read(&"é".repeat(255)));
        assert!(!read("") && !read(&"k".repeat(256)));
        assert_eq!(idempotency_key(&HeaderMap::new()), Ok(None));
    }
}
