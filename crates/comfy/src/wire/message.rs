//! Text messages of the WebSocket.

use std::sync::Arc;

use indexmap::IndexMap;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Error, parse_lenient};

/// One text message: what it says, and its text exactly as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    raw: Arc<str>,
    kind: String,
    body: Body,
}

/// What a message says. A known type with unexpected data is [`Body::Unknown`].
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// To everyone on each change of the queue; with `sid` it is the first message of a connection.
    Status {
        queue_remaining: Option<u64>,
        sid: Option<String>,
    },
    ExecutionStart {
        prompt_id: String,
        timestamp_ms: Option<i64>,
    },
    /// The nodes whose outputs are there already.
    ExecutionCached {
        prompt_id: String,
        nodes: Vec<String>,
        timestamp_ms: Option<i64>,
    },
    /// A node begins; without a node, the prompt is over *and* in the history. Right after connecting it may
    /// come without a prompt id.
    Executing {
        node: Option<String>,
        display_node: Option<String>,
        prompt_id: Option<String>,
    },
    /// A node's UI output; `None` for an output node that was cached without one.
    Executed {
        node: String,
        display_node: Option<String>,
        output: Option<Value>,
        prompt_id: String,
    },
    Progress {
        value: f64,
        max: f64,
        node: Option<String>,
        prompt_id: Option<String>,
    },
    ProgressState {
        prompt_id: String,
        nodes: IndexMap<String, NodeProgress>,
    },
    /// A node failed, or (an ExecutionBlocker with a message) was skipped without failing the prompt: only the
    /// history tells these apart.
    ExecutionError(Box<ExecutionError>),
    ExecutionInterrupted {
        prompt_id: String,
        node_id: Option<String>,
        node_type: Option<String>,
    },
    /// All nodes are done. The history entry may not exist yet.
    ExecutionSuccess {
        prompt_id: String,
        timestamp_ms: Option<i64>,
    },
    FeatureFlags(Map<String, Value>),
    /// Any other type, with the prompt it names, if it names one.
    Unknown {
        prompt_id: Option<String>,
    },
}

/// The state of one node in `progress_state`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeProgress {
    #[serde(default)]
    pub value: f64,
    #[serde(default)]
    pub max: f64,
    /// `pending`, `running`, `finished`, `error`.
    #[serde(default)]
    pub state: String,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// `execution_error`, in a message and in the history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExecutionError {
    #[serde(default)]
    pub prompt_id: String,
    #[serde(default)]
    pub node_id: Option<String>,
    #[serde(default)]
    pub node_type: Option<String>,
    /// The Python class, such as `ValueError` or `torch.OutOfMemoryError`.
    #[serde(default)]
    pub exception_type: Option<String>,
    #[serde(default)]
    pub exception_message: Option<String>,
    /// Python's stack, with paths of the instance's host.
    #[serde(default)]
    pub traceback: Value,
    /// `executed`, `current_inputs`, `current_outputs`, `timestamp`, …
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    data: Value,
}

impl Message {
    /// Reads one text frame.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let value: Value = parse_lenient(text.as_bytes())?;
        let envelope: Envelope = serde_json::from_value(value).map_err(|_| Error::NotAMessage {
            found: text.chars().take(100).collect(),
        })?;
        let body = Body::read(&envelope.kind, envelope.data);
        Ok(Self {
            raw: text.into(),
            kind: envelope.kind,
            body,
        })
    }

    /// Makes a message to send.
    pub fn new(kind: impl Into<String>, data: Value) -> Self {
        let kind = kind.into();
        let envelope = serde_json::json!({"type": kind, "data": data});
        let body = Body::read(&kind, data);
        Self {
            raw: envelope.to_string().into(),
            kind,
            body,
        }
    }

    /// The text as it came from the instance.
    pub fn raw(&self) -> &str {
        &self.raw
    }

    /// The text, shared.
    pub fn raw_shared(&self) -> Arc<str> {
        Arc::clone(&self.raw)
    }

    /// The `type` on the wire.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What it says.
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// The prompt it is about, where it names one.
    pub fn prompt_id(&self) -> Option<&str> {
        match &self.body {
            Body::Status { .. } | Body::FeatureFlags(_) => None,
            Body::ExecutionStart { prompt_id, .. }
            | Body::ExecutionCached { prompt_id, .. }
            | Body::Executed { prompt_id, .. }
            | Body::ProgressState { prompt_id, .. }
            | Body::ExecutionInterrupted { prompt_id, .. }
            | Body::ExecutionSuccess { prompt_id, .. } => Some(prompt_id),
            Body::ExecutionError(error) => Some(&error.prompt_id),
            Body::Executing { prompt_id, .. }
            | Body::Progress { prompt_id, .. }
            | Body::Unknown { prompt_id } => prompt_id.as_deref(),
        }
    }
}

impl Body {
    fn read(kind: &str, data: Value) -> Self {
        let prompt_id = data.get("prompt_id").and_then(Value::as_str).map(str::to_owned);
        Self::known(kind, data).unwrap_or(Self::Unknown { prompt_id })
    }

    fn known(kind: &str, data: Value) -> Option<Self> {
        Some(match kind {
            "status" => {
                let remaining = data.pointer("/status/exec_info/queue_remaining")?;
                let sid = data.get("sid").and_then(Value::as_str).map(str::to_owned);
                Self::Status {
                    queue_remaining: remaining.as_u64(),
                    sid,
                }
            }
            "execution_start" => {
                let Timed {
                    prompt_id, timestamp, ..
                } = read(data)?;
                Self::ExecutionStart {
                    prompt_id,
                    timestamp_ms: timestamp,
                }
            }
            "execution_success" => {
                let Timed {
                    prompt_id, timestamp, ..
                } = read(data)?;
                Self::ExecutionSuccess {
                    prompt_id,
                    timestamp_ms: timestamp,
                }
            }
            "execution_cached" => {
                let Timed {
                    prompt_id,
                    timestamp,
                    nodes,
                } = read(data)?;
                Self::ExecutionCached {
                    prompt_id,
                    nodes,
                    timestamp_ms: timestamp,
                }
            }
            "executing" => {
                let Place {
                    node,
                    display_node,
                    prompt_id,
                } = read(data)?;
                Self::Executing {
                    node,
                    display_node,
                    prompt_id,
                }
            }
            "executed" => {
                let Executed {
                    node,
                    display_node,
                    output,
                    prompt_id,
                } = read(data)?;
                Self::Executed {
                    node,
                    display_node,
                    output,
                    prompt_id,
                }
            }
            "progress" => {
                let Progress {
                    value,
                    max,
                    node,
                    prompt_id,
                } = read(data)?;
                Self::Progress {
                    value,
                    max,
                    node,
                    prompt_id,
                }
            }
            "progress_state" => {
                let ProgressState { prompt_id, nodes } = read(data)?;
                Self::ProgressState { prompt_id, nodes }
            }
            "execution_error" => Self::ExecutionError(Box::new(read(data)?)),
            "execution_interrupted" => {
                let Interrupted {
                    prompt_id,
                    node_id,
                    node_type,
                } = read(data)?;
                Self::ExecutionInterrupted {
                    prompt_id,
                    node_id,
                    node_type,
                }
            }
            "feature_flags" => Self::FeatureFlags(read(data)?),
            _ => return None,
        })
    }
}

fn read<T: DeserializeOwned>(data: Value) -> Option<T> {
    serde_json::from_value(data).ok()
}

#[derive(Deserialize)]
struct Timed {
    prompt_id: String,
    #[serde(default)]
    timestamp: Option<i64>,
    #[serde(default)]
    nodes: Vec<String>,
}

#[derive(Deserialize)]
struct Place {
    node: Option<String>,
    display_node: Option<String>,
    prompt_id: Option<String>,
}

#[derive(Deserialize)]
struct Executed {
    node: String,
    display_node: Option<String>,
    output: Option<Value>,
    prompt_id: String,
}

#[derive(Deserialize)]
struct Progress {
    value: f64,
    max: f64,
    node: Option<String>,
    prompt_id: Option<String>,
}

#[derive(Deserialize)]
struct ProgressState {
    prompt_id: String,
    #[serde(default)]
    nodes: IndexMap<String, NodeProgress>,
}

#[derive(Deserialize)]
struct Interrupted {
    prompt_id: String,
    node_id: Option<String>,
    node_type: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_text_is_kept_with_fields_nobody_knows() {
        let text =
            r#"{ "type":"progress","data":{"value":1,"max":4.0,"prompt_id":"p","node":"2","new":[1]} }"#;
        let message = Message::parse(text).unwrap();
        assert_eq!(message.raw(), text);
        let expected = Body::Progress {
            value: 1.0,
            max: 4.0,
            node: Some("2".into()),
            prompt_id: Some("p".into()),
        };
        assert_eq!(message.body(), &expected);
    }

    #[test]
    fn unknown_types_and_odd_data_are_unknown_but_keep_their_prompt() {
        for text in [
            r#"{"type":"crystools.monitor","data":{"prompt_id":"p"}}"#,
            r#"{"type":"executed","data":{"node":5,"prompt_id":"p"}}"#,
        ] {
            let message = Message::parse(text).unwrap();
            assert_eq!(
                message.body(),
                &Body::Unknown {
                    prompt_id: Some("p".into())
                }
            );
            assert_eq!(message.prompt_id(), Some("p"));
        }
        assert_eq!(Message::parse(r#"{"type":"x"}"#).unwrap().prompt_id(), None);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for text in ["", "[]", "{}", r#"{"type":5}"#, "not json"] {
            assert!(Message::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_made_message_reads_as_itself() {
        let message = Message::new("executing", json!({"node": null, "prompt_id": "p"}));
        assert_eq!(Message::parse(message.raw()).unwrap(), message);
        assert_eq!(
            message.raw(),
            r#"{"type":"executing","data":{"node":null,"prompt_id":"p"}}"#
        );
    }

    #[test]
    fn an_output_with_nan_is_still_read() {
        let text = r#"{"type":"executed","data":{"node":"1","output":{"loss":[NaN]},"prompt_id":"p"}}"#;
        let message = Message::parse(text).unwrap();
        let Body::Executed { output, .. } = message.body() else {
            panic!("{message:?}")
        };
        assert_eq!(output, &Some(json!({"loss": [null]})));
        assert_eq!(message.raw(), text);
    }
}
