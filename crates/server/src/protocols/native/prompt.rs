//! `POST /prompt`: validated against what the endpoint's instances can do, then durable, then answered
//! (`comfyui/behaviour.md` §3 to §5). What ComfyUI answers with a plain 500 is a 400 here.

use axum::{
    Json,
    body::Body,
    extract::State,
    response::{IntoResponse, Response},
};
use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::{
    body::{MAX_PROMPT_BYTES, Read, id_text, read_json, truthy},
    call::NativeCall,
    error::{NativeError, Refused},
    ids::{self, Options},
};
use crate::{
    http::cold_start_header,
    service::{
        intake::Fetch,
        jobs::{ExternalId, OnDuplicate},
        submit::{ComfySubmit, Entry},
    },
    state::AppState,
};

/// Longest id that a caller may give, in bytes.
const MAX_ID_BYTES: usize = 200;
/// Numbers beyond this are taken for it; far above any counter, and exact in a float.
const MAX_PLACE: f64 = 1e15;

/// The handler.
///
/// # Errors
/// Every refusal, in ComfyUI's shape.
pub async fn handler(
    State(state): State<AppState>,
    call: NativeCall,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refused> {
    submit(&state, &call, &headers, body)
        .await
        .map_err(|error| call.refuse(error))
}

async fn submit(
    state: &AppState,
    call: &NativeCall,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, NativeError> {
    let service = &state.service;
    let Read { json, size, held } = read_json(headers, body, MAX_PROMPT_BYTES, &service.memory).await?;
    let wish = Wish::read(json, service.now().as_millis())?;
    let unguessable = |id: &str| !call.caller.anonymous || id.parse::<uuid::Uuid>().is_ok();
    if let Some(id) = wish.prompt_id.as_deref().filter(|id| !unguessable(id)) {
        let details = format!("'{id}': callers without a key name prompts by UUIDs only");
        return Err(invalid_prompt_id(details));
    }
    let client = wish
        .options
        .client_id
        .as_deref()
        .and_then(|id| ids::client_name(call, id));
    let accepted = service
        .submit_comfy_at(
            ComfySubmit {
                tenant: call.caller.tenant.clone(),
                endpoint: call.endpoint.name.clone(),
                graph: wish.graph,
                extra_data: wish.extra_data,
                targets: wish.targets,
                priority: 0,
                external_id: wish.prompt_id.map(|id| ExternalId {
                    dialect: ids::DIALECT.to_owned(),
                    id,
                    on_duplicate: OnDuplicate::WhileLive,
                }),
                randomise_seeds: false,
                fetch: Fetch::Now,
                meta: wish.options.meta(call.caller.request_id.as_str()),
                size_bytes: size,
                memory: held,
            },
            wish.entry,
            client.as_ref(),
        )
        .await?;
    let job = service.job(Some(&call.caller.tenant), accepted.job).await?;
    let cold = cold_start_header(accepted.cold_start);
    let answer = json!({
        "prompt_id": ids::prompt_id(&job),
        "number": ids::number(&job),
        "node_errors": accepted.node_errors,
    });
    Ok((cold, Json(answer)).into_response())
}

/// What a body of `POST /prompt` asks for.
#[derive(Debug, PartialEq)]
struct Wish {
    graph: Value,
    extra_data: Map<String, Value>,
    targets: Option<Vec<String>>,
    prompt_id: Option<String>,
    options: Options,
    entry: Entry,
}

impl Wish {
    /// Reads one, in the order in which ComfyUI looks.
    fn read(json: Value, now_ms: i64) -> Result<Self, NativeError> {
        // A body that is no object has no `prompt` in it.
        let mut body = match json {
            Value::Object(body) => body,
            _ => Map::new(),
        };
        let number = body.get("number").map(number).transpose()?;
        let entry = match number {
            Some(number) => Entry::At(number.floor().clamp(-MAX_PLACE, MAX_PLACE) as i64),
            None if body.get("front").is_some_and(truthy) => Entry::Front,
            None => Entry::Back,
        };
        let graph = body
            .remove("prompt")
            .ok_or_else(|| NativeError::invalid("no_prompt", "No prompt provided", "No prompt provided"))?;
        let prompt_id = body.get("prompt_id").map(prompt_id).transpose()?.flatten();
        let targets = body
            .get("partial_execution_targets")
            .map(targets)
            .transpose()?
            .flatten();
        let client_id = body.remove("client_id").filter(|id| !id.is_null());
        let mut extra_data = match body.remove("extra_data") {
            None => Map::new(),
            // ComfyUI takes it where it has nothing to write into it.
            Some(Value::Null) if client_id.is_none() => Map::new(),
            Some(Value::Object(extra_data)) => extra_data,
            Some(_) => {
                let message = "extra_data must be an object";
                return Err(NativeError::invalid("invalid_extra_data", message, ""));
            }
        };
        let named = client_id.or_else(|| extra_data.get("client_id").cloned());
        let options = Options {
            client_id: named.as_ref().map(client_id_text).transpose()?,
            number,
            workflow_id: workflow_id(&extra_data),
        };
        if let Some(named) = named {
            extra_data.insert("client_id".to_owned(), named);
        }
        extra_data.insert("create_time".to_owned(), json!(now_ms));
        Ok(Wish {
            graph,
            extra_data,
            targets,
            prompt_id,
            options,
            entry,
        })
    }
}

/// A number, or a text that is one.
fn number(value: &Value) -> Result<f64, NativeError> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(value) => Some(f64::from(u8::from(*value))),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    number.filter(|number| number.is_finite()).ok_or_else(|| {
        let details = format!("number: {}", short(value));
        NativeError::invalid("invalid_number", "number must be a finite number", details)
    })
}

/// `None` for one that is left out: ComfyUI makes the text "None" of null, which every caller would share.
fn prompt_id(value: &Value) -> Result<Option<String>, NativeError> {
    if value.is_null() {
        return Ok(None);
    }
    id_text(value)
        .filter(|id| is_id(id))
        .map(Some)
        .ok_or_else(|| invalid_prompt_id(short(value)))
}

fn invalid_prompt_id(details: String) -> NativeError {
    NativeError::invalid(
        "invalid_prompt_id",
        "prompt_id must be a text of 1 to 200 bytes, best a UUID",
        details,
    )
}

fn client_id_text(value: &Value) -> Result<String, NativeError> {
    id_text(value).filter(|id| is_id(id)).ok_or_else(|| {
        let message = "client_id must be a text of 1 to 200 bytes";
        NativeError::invalid("invalid_client_id", message, short(value))
    })
}

/// Whether a caller may name something so.
pub fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= MAX_ID_BYTES && !id.chars().any(char::is_control)
}

fn targets(value: &Value) -> Result<Option<Vec<String>>, NativeError> {
    let wrong = || {
        let message = "partial_execution_targets must be a list of node ids";
        NativeError::invalid("invalid_partial_execution_targets", message, short(value))
    };
    match value {
        Value::Null => Ok(None),
        Value::Array(ids) => {
            let ids: Option<Vec<String>> = ids.iter().map(id_text).collect();
            ids.map(Some).ok_or_else(wrong)
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => Err(wrong()),
    }
}

fn workflow_id(extra_data: &Map<String, Value>) -> Option<String> {
    let id = extra_data.get("extra_pnginfo")?.get("workflow")?.get("id")?;
    id.as_str().filter(|id| is_id(id)).map(str::to_owned)
}

/// The beginning of a value, for messages.
fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: Value) -> Result<Wish, NativeError> {
        Wish::read(json, 5)
    }

    fn wish(mut more: Value) -> Wish {
        more["prompt"] = json!({});
        read(more).unwrap()
    }

    #[test]
    fn places_follow_number_and_front_as_in_comfyui() {
        for (body, entry, number) in [
            (json!({}), Entry::Back, None),
            (json!({"front": false}), Entry::Back, None),
            (json!({"front": true}), Entry::Front, None),
            (json!({"number": -5, "front": true}), Entry::At(-5), Some(-5.0)),
            (json!({"number": "3.5"}), Entry::At(3), Some(3.5)),
            (json!({"number": -0.5}), Entry::At(-1), Some(-0.5)),
            (
                json!({"number": 1e300}),
                Entry::At(1_000_000_000_000_000),
                Some(1e300),
            ),
        ] {
            let wish = wish(body.clone());
            assert_eq!((wish.entry, wish.options.number), (entry, number), "{body}");
        }
        for wrong in [json!("x"), json!(null), json!([1]), json!("nan"), json!("inf")] {
            assert!(read(json!({"prompt": {}, "number": wrong})).is_err());
        }
    }

    #[test]
    fn ids_are_texts_and_null_is_none() {
        assert_eq!(wish(json!({"prompt_id": 7})).prompt_id.as_deref(), Some("7"));
        assert_eq!(
            wish(json!({"prompt_id": "图-1"})).prompt_id.as_deref(),
            Some("图-1")
        );
        assert_eq!(wish(json!({"prompt_id": null})).prompt_id, None);
        for wrong in [
            json!(""),
            json!("a\nb"),
            json!("x".repeat(201)),
            json!([]),
            json!(true),
        ] {
            assert!(read(json!({"prompt": {}, "prompt_id": wrong})).is_err());
            let as_client = read(json!({"prompt": {}, "client_id": wrong}));
            assert!(as_client.is_err());
        }
    }

    #[test]
    fn the_client_stands_in_extra_data_with_the_time() {
        let whole = wish(json!({"client_id": 5, "extra_data": {"extra_pnginfo": {"workflow": {"id": "w"}}}}));
        assert_eq!(whole.options.client_id.as_deref(), Some("5"));
        assert_eq!(whole.options.workflow_id.as_deref(), Some("w"));
        assert_eq!(whole.extra_data["client_id"], json!(5));
        assert_eq!(whole.extra_data["create_time"], json!(5));
        let inside = wish(json!({"extra_data": {"client_id": "c"}}));
        assert_eq!(inside.options.client_id.as_deref(), Some("c"));
        assert_eq!(wish(json!({"extra_data": null})).options.client_id, None);
        assert!(read(json!({"prompt": {}, "extra_data": null, "client_id": "c"})).is_err());
    }

    #[test]
    fn targets_are_a_list_of_ids() {
        let targets = |value: Value| wish(json!({"partial_execution_targets": value})).targets;
        assert_eq!(targets(json!(null)), None);
        assert_eq!(targets(json!([])), Some(vec![]));
        assert_eq!(targets(json!(["4", 5])), Some(vec!["4".into(), "5".into()]));
        assert!(read(json!({"prompt": {}, "partial_execution_targets": "4"})).is_err());
        assert!(read(json!({"prompt": {}, "partial_execution_targets": [{}]})).is_err());
    }

    #[test]
    fn a_body_without_a_prompt_is_told_so() {
        for body in [json!({}), json!([1]), json!(null), json!("x")] {
            assert_eq!(
                read(body),
                Err(NativeError::invalid(
                    "no_prompt",
                    "No prompt provided",
                    "No prompt provided"
                ))
            );
        }
    }
}
