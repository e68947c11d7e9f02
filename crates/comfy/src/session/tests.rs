//! What has to hold in any order of observations.

use std::time::Duration;

use darkroom_core::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::wire::{BinaryFrame, HistoryEntry, ImageFormat, Message, QueueItem, QueueSnapshot};

#[derive(Clone, Debug)]
enum Step {
    Message(&'static str, Option<&'static str>, Value),
    Preview,
    Queue {
        running: bool,
        pending: bool,
        foreign: bool,
    },
    NoHistory,
    History(bool),
    Closed,
    Opened,
    Failed(Action, Failure),
    Wait(u32),
}

fn step(with_history: bool) -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![
        "status",
        "execution_start",
        "execution_cached",
        "executing",
        "executed",
        "progress",
        "progress_state",
        "execution_error",
        "execution_interrupted",
        "execution_success",
        "feature_flags",
        "custom",
    ]);
    let data = prop_oneof![
        Just(json!({})),
        Just(json!({"node": "1", "output": null, "value": 1, "max": 2, "nodes": []})),
        Just(json!({"node": null, "status": {"exec_info": {"queue_remaining": 0}}})),
        Just(json!({"node": 5, "nodes": {"1": {}}})),
    ];
    let id = prop::sample::select(vec![Some("p"), Some("p"), Some("other"), None]);
    let action = prop::sample::select(vec![Action::FetchQueue, Action::FetchHistory, Action::OpenSocket]);
    let failure = prop::sample::select(vec![Failure::Refused, Failure::NoAnswer, Failure::Garbage]);
    let history = if with_history { 1 } else { 0 };
    prop_oneof![
        8 => (kind, id, data).prop_map(|(kind, id, data)| Step::Message(kind, id, data)),
        1 => Just(Step::Preview),
        2 => any::<(bool, bool, bool)>().prop_map(|(running, pending, foreign)| Step::Queue { running, pending, foreign }),
        2 => Just(Step::NoHistory),
        history => any::<bool>().prop_map(Step::History),
        1 => Just(Step::Closed),
        1 => Just(Step::Opened),
        1 => (action, failure).prop_map(|(action, failure)| Step::Failed(action, failure)),
        3 => (0..20_000u32).prop_map(Step::Wait),
    ]
}

fn apply(session: &mut Session, step: Step, now: &mut Timestamp) -> Vec<SessionEvent> {
    match step {
        Step::Message(kind, id, mut data) => {
            if let Some(id) = id {
                data["prompt_id"] = id.into();
            }
            session.on_message(Message::new(kind, data), *now)
        }
        Step::Preview => session.on_binary(
            BinaryFrame::Preview {
                format: ImageFormat::Jpeg,
                image: "x".into(),
            },
            *now,
        ),
        Step::Queue {
            running,
            pending,
            foreign,
        } => {
            let item = |id: &str| QueueItem {
                prompt_id: id.into(),
                ..QueueItem::default()
            };
            let mut queue = QueueSnapshot::default();
            queue.running.extend(running.then(|| item("p")));
            queue.running.extend(foreign.then(|| item("other")));
            queue.pending.extend(pending.then(|| item("p")));
            session.on_queue(&queue, *now);
            Vec::new()
        }
        Step::NoHistory => {
            session.on_history(None, *now);
            Vec::new()
        }
        Step::History(success) => {
            session.on_history(Some(entry(success)), *now);
            Vec::new()
        }
        Step::Closed => {
            session.on_socket_closed(*now);
            Vec::new()
        }
        Step::Opened => session.on_socket_opened(*now),
        Step::Failed(action, failure) => {
            session.on_failed(action, failure, *now);
            Vec::new()
        }
        Step::Wait(millis) => {
            *now = now.plus(Duration::from_millis(u64::from(millis)));
            Vec::new()
        }
    }
}

fn entry(success: bool) -> HistoryEntry {
    let status = if success { "success" } else { "error" };
    let end = if success {
        "execution_success"
    } else {
        "execution_error"
    };
    let status = json!({"status_str": status, "completed": success, "messages": [[end, {"prompt_id": "p"}]]});
    serde_json::from_value(json!({"outputs": {}, "status": status})).expect("an entry")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn without_a_history_entry_nothing_ever_ends_but_by_loss(steps in prop::collection::vec(step(false), 0..60)) {
        let mut now = Timestamp::from_millis(1_000_000);
        let mut session = Session::new("p", Config::default(), now);
        for step in steps {
            apply(&mut session, step, &mut now);
            let ended = session.verdict().is_some_and(|verdict| !matches!(verdict, Verdict::Lost { .. }));
            prop_assert!(!ended, "{:?}", session.verdict());
        }
    }

    #[test]
    fn a_verdict_is_final_and_there_is_always_something_to_wait_for(
        steps in prop::collection::vec(step(true), 0..60),
    ) {
        let mut now = Timestamp::from_millis(1_000_000);
        let mut session = Session::new("p", Config::default(), now);
        let mut verdict: Option<Verdict> = None;
        for step in steps {
            let had_verdict = verdict.is_some();
            let is_history = match &step { Step::History(success) => Some(*success), _ => None };
            let events = apply(&mut session, step, &mut now);
            if had_verdict {
                prop_assert!(events.is_empty());
                prop_assert_eq!(session.verdict(), verdict.as_ref());
            } else if let Some(success) = is_history {
                prop_assert_eq!(matches!(session.verdict(), Some(Verdict::Succeeded { .. })), success);
            }
            let mut actions = 0;
            while session.poll_action(now).is_some() {
                actions += 1;
                prop_assert!(actions <= 2, "the session asks without end");
            }
            verdict = session.verdict().cloned();
            match session.poll_timeout() {
                Some(due) => prop_assert!(verdict.is_none() && due > now),
                None => prop_assert!(verdict.is_some()),
            }
        }
    }

    #[test]
    fn events_are_only_about_the_own_prompt(steps in prop::collection::vec(step(true), 0..60)) {
        let mut now = Timestamp::from_millis(1_000_000);
        let mut session = Session::new("p", Config::default(), now);
        for step in steps {
            for event in apply(&mut session, step, &mut now) {
                if let SessionEvent::Durable(message) | SessionEvent::Ephemeral(message) = event {
                    prop_assert_ne!(message.prompt_id(), Some("other"));
                }
            }
        }
    }
}

#[test]
fn the_death_of_the_worker_is_recognised_in_the_log() {
    assert!(is_worker_death("Exception in thread Thread-1 (prompt_worker):"));
    assert!(!is_worker_death("Exception in thread Thread-7 (heartbeat):"));
    assert!(!is_worker_death("got prompt"));
}
