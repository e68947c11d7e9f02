//! What a history entry means for an attempt: its result, its failure, and what followers may have missed. Pure.

use std::collections::BTreeSet;

use darkroom_comfy::wire::{ExecutionError, HistoryEntry};
use darkroom_core::{
    Failure,
    event::{EventKind, NewEvent},
    failure::FailureCode,
};
use serde_json::{Value, json};

/// The result of a job as JSON: `{outputs, status, meta}`, as the instance said it.
pub fn result_of(history: &HistoryEntry) -> Vec<u8> {
    let result = json!({"outputs": history.outputs, "status": history.status, "meta": history.meta});
    result.to_string().into_bytes()
}

/// Nodes that were served from ComfyUI's cache.
pub fn cached_nodes(history: &HistoryEntry) -> BTreeSet<String> {
    let messages = history.status.iter().flat_map(|status| &status.messages);
    messages
        .filter(|(kind, _)| kind == "execution_cached")
        .filter_map(|(_, data)| data.get("nodes")?.as_array())
        .flatten()
        .filter_map(|node| node.as_str().map(str::to_owned))
        .collect()
}

/// When the instance began the prompt, in milliseconds since the epoch by its clock.
pub fn started_at_ms(history: &HistoryEntry) -> Option<u64> {
    let messages = &history.status.as_ref()?.messages;
    let (_, data) = messages.iter().find(|(kind, _)| kind == "execution_start")?;
    data.get("timestamp")?.as_u64()
}

/// The failure of a job whose node raised.
pub fn failure_of(error: &ExecutionError) -> Failure {
    let what = error.exception_type.as_deref().unwrap_or("an error");
    let said = error.exception_message.as_deref().unwrap_or_default().trim();
    let place = match (&error.node_id, &error.node_type) {
        (Some(id), Some(class)) => format!("node {id} ({class}) raised {what}"),
        (Some(id), None) => format!("node {id} raised {what}"),
        (None, _) => format!("the workflow raised {what}"),
    };
    let code = if is_out_of_memory(error) {
        FailureCode::OutOfMemory
    } else {
        FailureCode::ExecutionError
    };
    let message = if said.is_empty() {
        place
    } else {
        format!("{place}: {said}")
    };
    Failure {
        node_id: error.node_id.clone(),
        node_type: error.node_type.clone(),
        detail: serde_json::to_value(error).ok(),
        ..Failure::new(code, message)
    }
}

/// Whether the device, not the graph, is to blame. PyTorch before 2.5 calls it `torch.cuda.OutOfMemoryError`.
pub fn is_out_of_memory(error: &ExecutionError) -> bool {
    let name = error.exception_type.as_deref().unwrap_or_default();
    let said = error.exception_message.as_deref().unwrap_or_default();
    name.rsplit('.').next() == Some("OutOfMemoryError")
        || DEVICE_IS_FULL.iter().any(|text| said.contains(text))
}

/// How PyTorch and its libraries say so where the exception has another name (`RuntimeError`, `AcceleratorError`). What the
/// machine's own memory lacks is not among them: no model that is unloaded from a device helps there.
const DEVICE_IS_FULL: [&str; 6] = [
    "CUDA out of memory",
    "CUDA error: out of memory",
    "HIP out of memory",
    "XPU out of memory",
    "MPS backend out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
];

/// What followers did not see because the socket was away at the end: the outputs and the end itself.
///
/// `seen` tells which events were passed on, by kind and node.
pub fn missed_events(
    history: &HistoryEntry,
    prompt_id: &str,
    seen: impl Fn(EventKind, Option<&str>) -> bool,
) -> Vec<NewEvent> {
    let mut missed = Vec::new();
    let mut miss = |kind: EventKind, data: Value| {
        missed.push(NewEvent {
            kind,
            data: data.to_string(),
        });
    };
    for (node, output) in &history.outputs {
        if !seen(EventKind::Executed, Some(node)) {
            let display = history.meta.get(node).and_then(|meta| meta.get("display_node"));
            let display = display.cloned().unwrap_or_else(|| json!(node));
            let data =
                json!({"node": node, "display_node": display, "output": output, "prompt_id": prompt_id});
            miss(EventKind::Executed, data);
        }
    }
    let ends = history.status.iter().flat_map(|status| &status.messages);
    for (kind, data) in ends {
        let end = EventKind::parse(kind).filter(|kind| {
            let ends = [
                EventKind::ExecutionSuccess,
                EventKind::ExecutionError,
                EventKind::ExecutionInterrupted,
            ];
            ends.contains(kind)
        });
        if let Some(end) = end.filter(|end| !seen(*end, None)) {
            miss(end, data.clone());
        }
    }
    if !seen(EventKind::Executing, None) {
        miss(
            EventKind::Executing,
            json!({"node": null, "prompt_id": prompt_id}),
        );
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(value: Value) -> HistoryEntry {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_failure_names_node_class_and_exception_and_keeps_all_that_was_said() {
        let error: ExecutionError = serde_json::from_value(json!({
            "prompt_id": "p", "node_id": "2", "node_type": "H1Raise", "exception_type": "ValueError",
            "exception_message": "boom\n", "traceback": ["x"], "current_inputs": {"a": [1]},
        }))
        .unwrap();
        let failure = failure_of(&error);
        assert_eq!(failure.message, "node 2 (H1Raise) raised ValueError: boom");
        assert_eq!(failure.code, FailureCode::ExecutionError);
        assert_eq!(failure.detail.unwrap()["current_inputs"], json!({"a": [1]}));
    }

    #[test]
    fn an_exhausted_device_is_known_by_name_or_words() {
        for (name, said, expected) in [
            ("torch.OutOfMemoryError", "Allocation on device", true),
            ("torch.cuda.OutOfMemoryError", "", true),
            (
                "RuntimeError",
                "CUDA error: out of memory\nCUDA kernel errors might be",
                true,
            ),
            (
                "RuntimeError",
                "MPS backend out of memory (MPS allocated: 9 GB)",
                true,
            ),
            ("RuntimeError", "cuda:0 and cpu", false),
            (
                "RuntimeError",
                "DefaultCPUAllocator: can't allocate memory",
                false,
            ),
            ("MemoryError", "", false),
        ] {
            let error = ExecutionError {
                exception_type: Some(name.into()),
                exception_message: Some(said.into()),
                ..ExecutionError::default()
            };
            assert_eq!(is_out_of_memory(&error), expected, "{name}: {said}");
        }
    }

    #[test]
    fn only_what_was_not_seen_is_told_after_a_gap() {
        let history = entry(json!({
            "outputs": {"9": {"images": []}, "4": {"text": ["x"]}},
            "meta": {"9": {"display_node": "90"}},
            "status": {"status_str": "success", "completed": true, "messages": [
                ["execution_start", {"prompt_id": "p"}], ["execution_cached", {"nodes": ["4"]}],
                ["execution_success", {"prompt_id": "p", "timestamp": 5}]]},
        }));
        let missed = missed_events(&history, "p", |kind, node| {
            kind == EventKind::Executed && node == Some("4")
        });
        let told: Vec<_> = missed
            .iter()
            .map(|e| format!("{} {}", e.kind.as_str(), e.data))
            .collect();
        assert_eq!(
            told,
            [
                r#"executed {"node":"9","display_node":"90","output":{"images":[]},"prompt_id":"p"}"#,
                r#"execution_success {"prompt_id":"p","timestamp":5}"#,
                r#"executing {"node":null,"prompt_id":"p"}"#,
            ]
        );
        assert!(missed_events(&history, "p", |_, _| true).is_empty());
        assert_eq!(cached_nodes(&history), BTreeSet::from(["4".to_owned()]));
    }
}
