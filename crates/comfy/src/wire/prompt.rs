//! `POST /prompt` and `POST /upload/image`.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::graph::NodeId;

/// What is posted to run a graph.
#[derive(Clone, Debug, Serialize)]
pub struct PromptRequest<'a> {
    pub prompt: &'a Value,
    /// Chosen by us and new for every attempt: a used one overwrites history, and with an equal `number` it
    /// kills the instance's worker thread.
    pub prompt_id: &'a str,
    /// The socket that gets the events.
    pub client_id: &'a str,
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub extra_data: Map<String, Value>,
    /// Only these output nodes; `None` for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partial_execution_targets: Option<&'a [NodeId]>,
}

/// The answer to an accepted prompt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PromptReply {
    pub prompt_id: String,
    #[serde(default)]
    pub number: Value,
    /// Outputs that were left out although the prompt was accepted; `{}` normally.
    #[serde(default)]
    pub node_errors: Value,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Where an uploaded file ended up. The name may differ from the one asked for (`a (1).png`).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UploadReply {
    pub name: String,
    #[serde(default)]
    pub subfolder: String,
    #[serde(rename = "type", default)]
    pub kind: String,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl UploadReply {
    /// The value to put into a LoadImage's `image`: the subfolder is part of the name there.
    pub fn input_value(&self) -> String {
        match self.subfolder.as_str() {
            "" => self.name.clone(),
            subfolder => format!("{subfolder}/{}", self.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_names_only_what_is_set() {
        let prompt = json!({"1": {}});
        let (prompt_id, client_id) = ("p", "c");
        let mut request = PromptRequest {
            prompt: &prompt,
            prompt_id,
            client_id,
            extra_data: Map::new(),
            partial_execution_targets: None,
        };
        let text = serde_json::to_string(&request).unwrap();
        assert_eq!(text, r#"{"prompt":{"1":{}},"prompt_id":"p","client_id":"c"}"#);
        let targets = [NodeId::from("9")];
        request.partial_execution_targets = Some(&targets);
        assert!(
            serde_json::to_string(&request)
                .unwrap()
                .ends_with(r#""partial_execution_targets":["9"]}"#)
        );
    }

    #[test]
    fn replies_are_read_with_what_newer_versions_add() {
        let reply: PromptReply =
            serde_json::from_value(json!({"prompt_id": "p", "number": 46, "node_errors": {}, "x": 1}))
                .unwrap();
        assert_eq!(reply.extra["x"], 1);
        let upload: UploadReply =
            serde_json::from_value(json!({"name": "up2.png", "subfolder": "a/b", "type": "input"})).unwrap();
        assert_eq!(upload.input_value(), "a/b/up2.png");
    }
}
