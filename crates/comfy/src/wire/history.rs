//! `GET /history/{id}`: what became of one prompt. The only proof that it is over.

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{ExecutionError, QueueItem};

/// One entry of the history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryEntry {
    #[serde(default)]
    pub prompt: Option<QueueItem>,
    /// Node id to what the node showed (`{"images": [..]}`), cached outputs included.
    #[serde(default)]
    pub outputs: IndexMap<String, Value>,
    #[serde(default)]
    pub status: Option<HistoryStatus>,
    /// Node id to `{node_id, display_node, parent_node, real_node_id}`.
    #[serde(default)]
    pub meta: IndexMap<String, Value>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How a prompt ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistoryStatus {
    /// `success` or `error`; an interrupted prompt is an `error` too.
    #[serde(default)]
    pub status_str: String,
    #[serde(default)]
    pub completed: bool,
    /// `[type, data]` of start, cached, and success, error or interrupted, with millisecond timestamps.
    #[serde(default)]
    pub messages: Vec<(String, Value)>,
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl HistoryEntry {
    /// True if the prompt succeeded; `None` where the entry has no status.
    pub fn succeeded(&self) -> Option<bool> {
        self.status
            .as_ref()
            .map(|status| status.completed || status.status_str == "success")
    }

    /// True if the prompt was ended by an interrupt.
    pub fn was_interrupted(&self) -> bool {
        self.end()
            .is_some_and(|(kind, _)| kind == "execution_interrupted")
    }

    /// The error that ended the prompt.
    pub fn error(&self) -> Option<ExecutionError> {
        let (_, data) = self.end().filter(|(kind, _)| kind == "execution_error")?;
        serde_json::from_value(data.clone()).ok()
    }

    /// How long the prompt ran, by the instance's own clock.
    pub fn run_time_ms(&self) -> Option<u64> {
        let messages = &self.status.as_ref()?.messages;
        let at = |data: &Value| data.get("timestamp").and_then(Value::as_i64);
        let start = messages
            .iter()
            .find(|(kind, _)| kind == "execution_start")
            .and_then(|(_, data)| at(data))?;
        let end = self.end().and_then(|(_, data)| at(data))?;
        u64::try_from(end.checked_sub(start)?).ok()
    }

    /// The last message that ends a prompt. (An ExecutionBlocker leaves an error before a success.)
    fn end(&self) -> Option<&(String, Value)> {
        let ends = ["execution_success", "execution_error", "execution_interrupted"];
        let messages = &self.status.as_ref()?.messages;
        messages
            .iter()
            .rev()
            .find(|(kind, _)| ends.contains(&kind.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(status: Value) -> HistoryEntry {
        serde_json::from_value(json!({"outputs": {}, "status": status})).unwrap()
    }

    #[test]
    fn the_last_ending_message_decides() {
        let interrupted = entry(json!({"status_str": "error", "completed": false, "messages": [
            ["execution_start", {"timestamp": 100}], ["execution_interrupted", {"timestamp": 350}]]}));
        assert_eq!(
            (interrupted.succeeded(), interrupted.was_interrupted()),
            (Some(false), true)
        );
        assert_eq!(
            (interrupted.error(), interrupted.run_time_ms()),
            (None, Some(250))
        );
        let blocked = entry(json!({"status_str": "success", "completed": true, "messages": [
            ["execution_error", {"exception_message": "blocked"}], ["execution_success", {}]]}));
        assert_eq!((blocked.succeeded(), blocked.error()), (Some(true), None));
        let failed =
            entry(json!({"status_str": "error", "messages": [["execution_error", {"node_id": "2"}]]}));
        assert_eq!(failed.error().unwrap().node_id.as_deref(), Some("2"));
    }

    #[test]
    fn an_entry_without_a_status_says_nothing() {
        assert_eq!(entry(Value::Null).succeeded(), None);
        assert_eq!(entry(Value::Null).run_time_ms(), None);
    }
}
