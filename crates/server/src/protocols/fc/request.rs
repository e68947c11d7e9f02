//! What a caller of `run` says beside the workflow: flags in the query, ids in headers
//! (`protocols/comfyui-serverless-fc.md` §2).

use http::HeaderMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::FcError;

/// The query's flags. A flag is set by `true`, `1`, `yes`, or `on` in any case, and by nothing else.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flags {
    /// Fill `output.oss.object` and `url`.
    #[serde(default, deserialize_with = "truthy")]
    pub output_oss: bool,
    /// Fill `output.base64.content`.
    #[serde(default, deserialize_with = "truthy")]
    pub output_base64: bool,
    /// Answer with server-sent events.
    #[serde(default, deserialize_with = "truthy")]
    pub stream: bool,
}

fn truthy<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::Bool(set) => set,
        Value::String(text) => matches!(text.to_ascii_lowercase().as_str(), "true" | "1" | "yes" | "on"),
        Value::Null | Value::Number(_) | Value::Array(_) | Value::Object(_) => false,
    })
}

/// Which id the task gets, and whether the caller waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invocation {
    /// `X-Fc-Invocation-Type: Async`.
    pub asynchronous: bool,
    /// The caller's id for the task, and where it came from.
    pub task_id: Option<TaskId>,
}

/// A caller's id for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TaskId {
    /// `X-Fc-Async-Task-Id`: must be new.
    AsyncTask(String),
    /// `X-Fc-Trace-Id` (or its alias): the request's own id; a repeated request takes the name over.
    Trace(String),
}

impl TaskId {
    /// The id.
    pub fn as_str(&self) -> &str {
        match self {
            TaskId::AsyncTask(id) | TaskId::Trace(id) => id,
        }
    }
}

impl Invocation {
    /// Reads the headers. The platform's credentials headers (`x-fc-access-key-*`) are ignored: they are never a
    /// caller's to set.
    ///
    /// # Errors
    /// When an id breaks its rule.
    pub fn read(headers: &HeaderMap) -> Result<Self, FcError> {
        let text = |name: &str| headers.get(name).map(|v| v.to_str().map(str::trim));
        let id = |name: &str| match text(name) {
            None | Some(Ok("")) => Ok(None),
            Some(Ok(id)) => Ok(Some(id.to_owned())),
            Some(Err(_)) => Err(FcError::invalid(format!("{name} is not plain text"))),
        };
        let asynchronous =
            matches!(text("x-fc-invocation-type"), Some(Ok(t)) if t.eq_ignore_ascii_case("async"));
        let task_id = match id("x-fc-async-task-id")? {
            Some(id) if is_task_id(&id) => Some(TaskId::AsyncTask(id)),
            Some(_) => {
                return Err(FcError::invalid(
                    "X-Fc-Async-Task-Id must begin with a letter or '_' and hold at most 128 letters, digits, '_', '-'",
                ));
            }
            None => match id("x-fc-trace-id")?.or(id("x-serverless-api-task-id")?) {
                Some(id) if is_trace_id(&id) => Some(TaskId::Trace(id)),
                Some(_) => {
                    return Err(FcError::invalid(
                        "X-Fc-Trace-Id must be 1 to 128 printable characters without spaces",
                    ));
                }
                None => None,
            },
        };
        Ok(Invocation {
            asynchronous,
            task_id,
        })
    }
}

fn is_task_id(id: &str) -> bool {
    let first_ok = id.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    first_ok
        && id.len() <= 128
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

/// The sample's id is a UUID, which may begin with a digit; anything printable is a name in a table here, never a path.
fn is_trace_id(id: &str) -> bool {
    id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic())
}

/// The workflow of a body, bare or in the front end's wrapper `{"prompt": {...}, "extra_data": {...}}`.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    /// The graph.
    pub graph: Value,
    /// ComfyUI's `extra_data`; only from the wrapper.
    pub extra_data: Map<String, Value>,
    /// How large it came, in bytes.
    pub size_bytes: usize,
}

impl Workflow {
    /// Reads a body.
    ///
    /// # Errors
    /// When it is not a JSON object.
    pub fn read(body: &[u8]) -> Result<Self, FcError> {
        let value = serde_json::from_slice(body)
            .map_err(|e| FcError::invalid(format!("the body is not JSON: {e}")))?;
        Workflow::of(value, body.len())
    }

    /// The workflow of a parsed body that was so many bytes long.
    ///
    /// # Errors
    /// When it is not an object.
    pub fn of(value: Value, size_bytes: usize) -> Result<Self, FcError> {
        let Value::Object(mut object) = value else {
            return Err(FcError::invalid(
                "the body must be a JSON object: the workflow in API format",
            ));
        };
        let wrapped = object
            .get("prompt")
            .and_then(Value::as_object)
            .is_some_and(|p| !p.contains_key("class_type"));
        if !wrapped {
            return Ok(Workflow {
                graph: Value::Object(object),
                extra_data: Map::new(),
                size_bytes,
            });
        }
        let extra_data = match object.remove("extra_data") {
            Some(Value::Object(extra)) => extra,
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(FcError::invalid("extra_data must be an object")),
        };
        let graph = object.remove("prompt").unwrap_or(Value::Null);
        Ok(Workflow {
            graph,
            extra_data,
            size_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(k, v)| (http::HeaderName::from_static(k), v.parse().unwrap()))
            .collect()
    }

    #[test]
    fn flags_are_set_by_four_words_in_any_case() {
        let parse = |query: &str| serde_urlencoded_flags(query);
        assert!(parse("output_oss=true&stream=ON").output_oss);
        assert!(parse("output_oss=true&stream=ON").stream);
        assert!(parse("output_base64=Yes").output_base64);
        assert!(parse("output_base64=1").output_base64);
        assert_eq!(
            parse("output_oss=false&stream=0&output_base64="),
            Flags::default()
        );
        assert_eq!(parse("unknown=1"), Flags::default());
    }

    fn serde_urlencoded_flags(query: &str) -> Flags {
        let uri: http::Uri = format!("/?{query}").parse().unwrap();
        axum::extract::Query::<Flags>::try_from_uri(&uri).unwrap().0
    }

    #[test]
    fn task_ids_have_a_rule_and_trace_ids_may_begin_with_a_digit() {
        let read = |list: &[(&'static str, &str)]| Invocation::read(&headers(list));
        let digit = "0b9d7b6e-6c1e-4b5e-8f0a-0d4c0a7b1c2d";
        assert_eq!(
            read(&[("x-fc-trace-id", digit)]).unwrap().task_id,
            Some(TaskId::Trace(digit.into()))
        );
        assert!(read(&[("x-fc-async-task-id", digit)]).is_err());
        assert!(read(&[("x-fc-async-task-id", "../../x")]).is_err());
        assert!(read(&[("x-fc-async-task-id", &"a".repeat(129))]).is_err());
        let both = read(&[("x-fc-async-task-id", "task-1"), ("x-fc-trace-id", digit)]).unwrap();
        assert_eq!(both.task_id, Some(TaskId::AsyncTask("task-1".into())));
        assert!(!both.asynchronous);
        assert!(read(&[("x-fc-invocation-type", "ASYNC")]).unwrap().asynchronous);
        assert!(!read(&[("x-fc-invocation-type", "Sync")]).unwrap().asynchronous);
        assert!(read(&[("x-fc-trace-id", "a b")]).is_err());
    }

    #[test]
    fn bodies_are_bare_or_wrapped() {
        let bare = Workflow::read(br#"{"prompt":{"class_type":"X","inputs":{}}}"#).unwrap();
        assert!(bare.graph.get("prompt").is_some(), "a node may be called prompt");
        let wrapped = Workflow::read(br#"{"prompt":{"1":{}},"client_id":"c","extra_data":{"a":1}}"#).unwrap();
        assert!(wrapped.graph.get("1").is_some());
        assert_eq!(wrapped.extra_data["a"], 1);
        for bad in [
            &b"[]"[..],
            b"nonsense",
            b"",
            b"3",
            br#"{"prompt":{},"extra_data":3}"#,
            b"{\"a\":",
        ] {
            assert!(Workflow::read(bad).is_err());
        }
    }
}
