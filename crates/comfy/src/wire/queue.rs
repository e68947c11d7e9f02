//! `GET /queue`.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// The queue of one instance. Pending items come in heap order, which is not the order of execution.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct QueueSnapshot {
    #[serde(rename = "queue_running", default)]
    pub running: Vec<QueueItem>,
    #[serde(rename = "queue_pending", default)]
    pub pending: Vec<QueueItem>,
}

/// `[number, prompt_id, prompt, extra_data, output ids, …]`: an item of the queue, and `prompt` of a history
/// entry. `extra_data` may hold other people's API keys; never log it.
#[derive(Clone, Default, PartialEq)]
pub struct QueueItem {
    pub number: Value,
    pub prompt_id: String,
    pub prompt: Value,
    pub extra_data: Value,
    /// The output nodes that are run.
    pub outputs: Vec<String>,
    /// What newer versions add.
    pub rest: Vec<Value>,
}

impl QueueSnapshot {
    /// True if this prompt is being executed.
    pub fn is_running(&self, prompt_id: &str) -> bool {
        self.running.iter().any(|item| item.prompt_id == prompt_id)
    }

    /// True if this prompt waits.
    pub fn is_pending(&self, prompt_id: &str) -> bool {
        self.pending.iter().any(|item| item.prompt_id == prompt_id)
    }
}

impl std::fmt::Debug for QueueItem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueueItem")
            .field("prompt_id", &self.prompt_id)
            .finish_non_exhaustive()
    }
}

impl<'de> Deserialize<'de> for QueueItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut parts = Vec::<Value>::deserialize(deserializer)?.into_iter();
        let mut next = || parts.next().unwrap_or_default();
        let number = next();
        let Value::String(prompt_id) = next() else {
            return Err(serde::de::Error::custom("a queue item has no prompt id"));
        };
        let (prompt, extra_data) = (next(), next());
        let outputs = match next() {
            Value::Array(ids) => ids
                .into_iter()
                .filter_map(|id| id.as_str().map(str::to_owned))
                .collect(),
            _ => Vec::new(),
        };
        Ok(Self {
            number,
            prompt_id,
            prompt,
            extra_data,
            outputs,
            rest: parts.collect(),
        })
    }
}

impl Serialize for QueueItem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self {
            number,
            prompt_id,
            prompt,
            extra_data,
            outputs,
            rest,
        } = self;
        let head = [
            number.clone(),
            prompt_id.clone().into(),
            prompt.clone(),
            extra_data.clone(),
        ];
        let outputs = Value::from(outputs.clone());
        serializer.collect_seq(head.iter().chain([&outputs]).chain(rest))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_snapshot_is_read_and_written_back() {
        let value = json!({
            "queue_running": [[77, "a", {"1": {}}, {"client_id": "c"}, ["3"]]],
            "queue_pending": [[-1.5, "b", {}, {}, ["2"], {"sensitive": 1}]],
        });
        let snapshot: QueueSnapshot = serde_json::from_value(value.clone()).unwrap();
        assert!(snapshot.is_running("a") && !snapshot.is_running("b") && snapshot.is_pending("b"));
        assert_eq!(serde_json::to_value(&snapshot).unwrap(), value);
        assert!(!format!("{snapshot:?}").contains("client_id"));
    }

    #[test]
    fn an_item_without_an_id_is_refused() {
        assert!(serde_json::from_value::<QueueItem>(json!([1])).is_err());
        assert!(serde_json::from_value::<QueueItem>(json!({})).is_err());
    }
}
