//! Every recorded message, history entry and queue is understood and written back as it was.

mod recorded;

use std::collections::BTreeMap;

use darkroom_comfy::wire::{BinaryFrame, Body, HistoryEntry, Message, QueueSnapshot};
use serde_json::Value;

use crate::recorded::{Frame, sockets, transcripts};

#[test]
fn every_recorded_text_is_a_known_message() {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (scenario, client, frames) in sockets() {
        for (_, frame) in frames {
            let Frame::Text(text) = frame else { continue };
            let message = Message::parse(text).unwrap();
            assert_eq!(message.raw(), text);
            assert!(
                !matches!(message.body(), Body::Unknown { .. }),
                "{scenario}/{client}: {text}"
            );
            *kinds.entry(message.kind().to_owned()).or_default() += 1;
        }
    }
    let expected = [
        "executed",
        "executing",
        "execution_cached",
        "execution_error",
        "execution_interrupted",
        "execution_start",
        "execution_success",
        "feature_flags",
        "progress",
        "progress_state",
        "status",
    ];
    assert_eq!(kinds.keys().map(String::as_str).collect::<Vec<_>>(), expected);
    assert!(kinds.values().sum::<usize>() > 700, "{kinds:?}");
}

#[test]
fn recorded_binary_frames_are_read_as_their_kind() {
    let mut previews = 0;
    for (scenario, _, frames) in sockets() {
        for (_, frame) in frames {
            let Frame::Binary { head, whole } = frame else {
                continue;
            };
            let event = head[3];
            let parsed = BinaryFrame::parse(head.clone().into());
            match (event, whole, parsed) {
                (1, _, Ok(BinaryFrame::Preview { .. })) => previews += 1,
                (3, true, Ok(frame @ BinaryFrame::Text { .. })) => assert_eq!(&frame.encode()[..], head),
                // The recording ends inside of the metadata.
                (4, false, Err(_)) => previews += 1,
                (event, whole, parsed) => panic!("{scenario}: event {event}, whole {whole}: {parsed:?}"),
            }
        }
    }
    assert!(previews > 10, "{previews}");
}

#[test]
fn every_recorded_history_entry_is_written_back_as_it_was() {
    let mut seen = 0;
    for (scenario, recording) in transcripts() {
        let entries = match recording.get("history") {
            Some(Value::Array(entries)) => entries.clone(),
            Some(entry @ Value::Object(_)) => vec![entry.clone()],
            _ => continue,
        };
        for value in entries {
            let entry: HistoryEntry = serde_json::from_value(value.clone()).unwrap();
            assert_eq!(serde_json::to_value(&entry).unwrap(), value, "{scenario}");
            let ended = entry.succeeded() == Some(true) || entry.was_interrupted() || entry.error().is_some();
            assert!(ended, "{scenario}: {value}");
            seen += 1;
        }
    }
    assert!(seen >= 25, "{seen}");
}

#[test]
fn recorded_queues_are_read() {
    let recording = &transcripts()["queued_behind"];
    let queue: QueueSnapshot =
        serde_json::from_value(recording["GET /queue while A runs"][1].clone()).unwrap();
    let id = |key: &str| recording[key]["prompt_id"].as_str().unwrap().to_owned();
    assert!(queue.is_running(&id("submitA")), "{queue:?}");
    assert!(queue.is_pending(&id("submitB")), "{queue:?}");
    // A worker that died: what it ran stays "running" for ever.
    let crash = &transcripts()["crash"]["node_raises_SystemExit"];
    let queue: QueueSnapshot = serde_json::from_value(crash["queue_after_second"].clone()).unwrap();
    assert_eq!((queue.running.len(), queue.pending.len()), (1, 1));
}
