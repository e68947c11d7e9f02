//! The recorded conversations replayed, and the same with sockets cut, answers missing and instances dead.

mod recorded;

use std::collections::VecDeque;
use std::time::Duration;

use darkroom_comfy::session::{Action, Config, Failure, LostReason, Session, SessionEvent, Verdict};
use darkroom_comfy::wire::{BinaryFrame, HistoryEntry, Message, QueueItem, QueueSnapshot};
use darkroom_core::Timestamp;
use serde_json::{Value, json};

use crate::recorded::{Frame, Frames, socket, transcripts};

const START: Timestamp = Timestamp::from_millis(1_795_195_102_334);

/// An instance as the session sees it: a script of frames, and answers that depend on the time.
struct World {
    prompt_id: String,
    frames: VecDeque<(Timestamp, Frame)>,
    /// When the entry appears in the history (and leaves the queue), and the entry.
    history: Option<(Timestamp, HistoryEntry)>,
    queue: Queue,
    failure: Option<Failure>,
    /// False: a socket that closed cannot be opened again.
    reopens: bool,
    actions: Vec<Action>,
}

#[derive(Clone, Copy, PartialEq)]
enum Queue {
    Running,
    Pending,
    PendingBehind,
    Empty,
}

impl World {
    fn new(prompt_id: &str, frames: Frames) -> Self {
        let frames = frames
            .into_iter()
            .map(|(ms, frame)| (START.plus(Duration::from_millis(ms)), frame));
        Self {
            prompt_id: prompt_id.to_owned(),
            frames: frames.collect(),
            history: None,
            queue: Queue::Running,
            failure: None,
            reopens: true,
            actions: Vec::new(),
        }
    }

    fn session(&self) -> Session {
        Session::new(self.prompt_id.clone(), Config::default(), START)
    }

    /// Runs until the verdict; panics when `limit` passes without one.
    fn run(&mut self, mut session: Session, limit: Duration) -> (Verdict, Vec<SessionEvent>, Duration) {
        let mut now = START;
        let mut events = Vec::new();
        loop {
            while let Some(action) = session.poll_action(now) {
                self.actions.push(action);
                events.extend(self.answer(&mut session, action, now));
            }
            if let Some(verdict) = session.verdict() {
                return (verdict.clone(), events, now.since(START));
            }
            let due = session.poll_timeout().expect("no verdict yet");
            assert!(due > now, "the session spins at {now}");
            let frame = self.frames.pop_front_if(|(at, _)| *at <= due);
            now = frame.as_ref().map_or(due, |(at, _)| now.max(*at));
            assert!(
                now.since(START) <= limit,
                "no verdict after {limit:?}: {session:?}"
            );
            match frame {
                Some((_, Frame::Text(text))) => {
                    events.extend(session.on_message(Message::parse(&text).unwrap(), now));
                }
                Some((_, Frame::Binary { head, .. })) => {
                    if let Ok(frame) = BinaryFrame::parse(head.into()) {
                        events.extend(session.on_binary(frame, now));
                    }
                }
                Some((_, Frame::Closed)) => session.on_socket_closed(now),
                None => {}
            }
        }
    }

    fn answer(&self, session: &mut Session, action: Action, now: Timestamp) -> Vec<SessionEvent> {
        if let Some(failure) = self.failure {
            session.on_failed(action, failure, now);
            return Vec::new();
        }
        let entry = self
            .history
            .clone()
            .filter(|(at, _)| *at <= now)
            .map(|(_, entry)| entry);
        match action {
            Action::OpenSocket if self.reopens => return session.on_socket_opened(now),
            Action::OpenSocket => session.on_failed(action, Failure::NoAnswer, now),
            Action::FetchHistory => session.on_history(entry, now),
            Action::FetchQueue => {
                let queue = if entry.is_some() { Queue::Empty } else { self.queue };
                session.on_queue(&snapshot(&self.prompt_id, queue), now);
            }
        }
        Vec::new()
    }
}

fn snapshot(prompt_id: &str, queue: Queue) -> QueueSnapshot {
    let item = |id: &str| QueueItem {
        prompt_id: id.to_owned(),
        ..QueueItem::default()
    };
    let (running, pending) = match queue {
        Queue::Running => (vec![item(prompt_id)], vec![]),
        Queue::Pending => (vec![], vec![item(prompt_id)]),
        Queue::PendingBehind => (vec![item("foreign")], vec![item(prompt_id)]),
        Queue::Empty => (vec![], vec![]),
    };
    QueueSnapshot { running, pending }
}

/// When `executing {node: null}` for this prompt comes: the history entry is there since just before.
fn end_of(prompt_id: &str, frames: &Frames) -> Option<Timestamp> {
    let ends = |frame: &Frame| {
        let Frame::Text(text) = frame else { return false };
        let value: Value = serde_json::from_str(text).unwrap();
        value["type"] == "executing"
            && value["data"]["node"].is_null()
            && value["data"]["prompt_id"] == prompt_id
    };
    let end = frames.iter().find(|(_, frame)| ends(frame));
    end.map(|(ms, _)| START.plus(Duration::from_millis(*ms)))
}

/// A recorded prompt as a world: scenario, client, which of the scenario's histories.
fn world(scenario: &str, client: &str, index: usize) -> World {
    let recording = &transcripts()[scenario];
    let entry = match &recording["history"] {
        Value::Array(entries) => entries[index].clone(),
        entry => entry.clone(),
    };
    let entry: HistoryEntry = serde_json::from_value(entry).unwrap();
    let prompt_id = entry.prompt.as_ref().unwrap().prompt_id.clone();
    let frames = socket(scenario, client);
    let end = end_of(&prompt_id, &frames).unwrap_or(START.plus(Duration::from_secs(2)));
    let mut world = World::new(&prompt_id, frames);
    world.history = Some((end, entry));
    world
}

const MINUTE: Duration = Duration::from_secs(60);

fn durable(events: &[SessionEvent]) -> Vec<&str> {
    let durable = events.iter().filter_map(|event| match event {
        SessionEvent::Durable(message) => Some(message.kind()),
        _ => None,
    });
    durable.collect()
}

#[test]
fn every_recorded_prompt_ends_as_its_history_says() {
    let mut seen = 0;
    for (scenario, recording) in transcripts() {
        let Some(entries) = recording["history"].as_array() else {
            continue;
        };
        for index in 0..entries.len() {
            let mut world = world(scenario, "", index);
            let (end, entry) = world.history.clone().unwrap();
            let session = world.session();
            let (verdict, events, took) = world.run(session, MINUTE);
            match &verdict {
                Verdict::Succeeded { history } => assert_eq!(history.succeeded(), Some(true), "{scenario}"),
                Verdict::Failed { error, .. } => {
                    assert_eq!(Some(&**error), entry.error().as_ref(), "{scenario}")
                }
                other => panic!("{scenario}: {other:?}"),
            }
            assert_eq!(verdict.history(), Some(&entry), "{scenario}");
            let late = took.saturating_sub(end.since(START));
            assert!(
                late <= Duration::from_millis(200),
                "{scenario}: {late:?} after the end"
            );
            let kinds = durable(&events);
            assert_eq!(&kinds[..2], ["execution_start", "execution_cached"], "{scenario}");
            assert!(kinds.iter().all(|kind| *kind != "status"));
            seen += 1;
        }
    }
    assert!(seen >= 25, "{seen}");
}

#[test]
fn a_cached_rerun_reports_its_outputs_and_no_node_of_the_first_run() {
    let mut second = world("cached_rerun", "", 1);
    let session = second.session();
    let (verdict, events, _) = second.run(session, MINUTE);
    assert!(matches!(verdict, Verdict::Succeeded { .. }));
    let kinds = durable(&events);
    // The entry is there before the end is announced, so the last messages may come too late to be seen.
    assert_eq!(
        kinds[..3],
        ["execution_start", "execution_cached", "executed"],
        "{kinds:?}"
    );
}

#[test]
fn an_interrupt_is_not_a_failure() {
    for scenario in ["interrupt", "interrupt_no_checkpoint"] {
        let mut world = world(scenario, "cid-A", 0);
        let session = world.session();
        let (verdict, events, _) = world.run(session, MINUTE);
        assert!(
            matches!(verdict, Verdict::Interrupted { .. }),
            "{scenario}: {verdict:?}"
        );
        assert!(durable(&events).contains(&"execution_interrupted"), "{scenario}");
    }
}

#[test]
fn both_framings_of_previews_belong_to_the_sampler() {
    let mut world = world("sd15_tiny", "", 0);
    let session = world.session();
    let (_, events, _) = world.run(session, Duration::from_secs(120));
    let nodes: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            SessionEvent::Image { node, .. } => Some(node.as_deref()),
            _ => None,
        })
        .collect();
    assert_eq!(nodes, [Some("5"); 4], "one preview per step");

    let mut session = Session::new("p", Config::default(), START);
    let metadata = |prompt_id: &str| {
        serde_json::from_value(json!({"node_id": "5", "prompt_id": prompt_id, "image_type": "image/jpeg"}))
            .unwrap()
    };
    let preview = |prompt_id| BinaryFrame::PreviewWithMetadata {
        metadata: metadata(prompt_id),
        image: "x".into(),
    };
    assert!(session.on_binary(preview("other"), START).is_empty());
    let events = session.on_binary(preview("p"), START);
    assert!(matches!(&events[..], [SessionEvent::Image { node: Some(node), .. }] if node == "5"));
    let plain = BinaryFrame::Text {
        node_id: "1".into(),
        text: "x".into(),
    };
    assert!(
        session.on_binary(plain, START).is_empty(),
        "nothing of ours runs yet"
    );
}

#[test]
fn text_frames_and_socket_images_are_passed_on() {
    let mut text = world("ok_list_value", "", 0);
    let session = text.session();
    let (_, events, _) = text.run(session, MINUTE);
    assert!(events.contains(&SessionEvent::Text {
        node: "1".into(),
        text: "hello from 1".into()
    }));
    let mut image = world("ok_ws_image", "", 0);
    let session = image.session();
    let (_, events, _) = image.run(session, MINUTE);
    assert!(
        events
            .iter()
            .any(|e| matches!(e, SessionEvent::Image { node: Some(n), .. } if n == "2"))
    );
}

#[test]
fn messages_of_other_prompts_are_ignored() {
    let frames = socket("two_clients", "cid-A");
    let mut session = Session::new("somebody-else", Config::default(), START);
    for (_, frame) in frames {
        if let Frame::Text(text) = frame {
            assert_eq!(session.on_message(Message::parse(&text).unwrap(), START), []);
        }
    }
    assert!(!session.has_started());
    // A prompt without client id is broadcast to everybody, but for start and end.
    for (_, frame) in socket("no_client_id", "cid-watch") {
        if let Frame::Text(text) = frame {
            assert_eq!(session.on_message(Message::parse(&text).unwrap(), START), []);
        }
    }
}

#[test]
fn wherever_the_socket_breaks_the_verdict_is_the_same() {
    for scenario in ["success", "run_raise", "cached_rerun"] {
        let frames = socket(scenario, "").len();
        for cut in 0..frames {
            for reopens in [true, false] {
                let mut world = world(scenario, "", 0);
                let (end, entry) = world.history.clone().unwrap();
                let at = world.frames[cut].0;
                world.frames.truncate(cut);
                world.frames.push_back((at, Frame::Closed));
                world.reopens = reopens;
                let session = world.session();
                let (verdict, events, took) = world.run(session, MINUTE);
                assert_eq!(verdict.history(), Some(&entry), "{scenario} cut at {cut}");
                let late = took.saturating_sub(end.since(START));
                assert!(
                    late <= Duration::from_secs(3),
                    "{scenario} cut at {cut}: {late:?} late"
                );
                let gap = events.contains(&SessionEvent::Gap);
                assert!(reopens || !gap);
            }
        }
    }
}

#[test]
fn a_resumed_session_asks_what_happened_meanwhile() {
    let mut world = world("success", "", 0);
    world.frames.clear();
    world.history.as_mut().unwrap().0 = START;
    let session = Session::resume(world.prompt_id.clone(), Config::default(), START);
    let (verdict, events, took) = world.run(session, MINUTE);
    assert!(matches!(verdict, Verdict::Succeeded { .. }));
    assert_eq!((events, took), (vec![SessionEvent::Gap], Duration::ZERO));
    assert_eq!(
        world.actions,
        [Action::OpenSocket, Action::FetchQueue, Action::FetchHistory]
    );
}

#[test]
fn a_history_that_comes_late_is_waited_for() {
    let mut world = world("success", "", 0);
    let (end, entry) = world.history.clone().unwrap();
    world.history = Some((end.plus(Duration::from_secs(20)), entry));
    let session = world.session();
    let (verdict, _, took) = world.run(session, MINUTE);
    assert!(matches!(verdict, Verdict::Succeeded { .. }), "{verdict:?}");
    assert!(took < Duration::from_secs(23), "{took:?}");
}

#[test]
fn an_announced_success_without_a_history_is_lost() {
    let mut world = world("success", "", 0);
    world.history = None;
    world.queue = Queue::Empty;
    let session = world.session();
    let (verdict, _, took) = world.run(session, MINUTE);
    assert_eq!(
        verdict,
        Verdict::Lost {
            reason: LostReason::Gone
        }
    );
    assert!(took < Duration::from_secs(10), "{took:?}");
}

#[test]
fn a_blocked_branch_does_not_fail_the_prompt() {
    let message = |kind: &str, data: Value| {
        let mut data = data;
        data["prompt_id"] = "p".into();
        Frame::Text(json!({"type": kind, "data": data}).to_string())
    };
    let frames = vec![
        (1, message("execution_start", json!({}))),
        (2, message("executing", json!({"node": "1"}))),
        (
            3,
            message(
                "execution_error",
                json!({"node_id": "2", "exception_message": "blocked"}),
            ),
        ),
        (5_000, message("executing", json!({"node": "3"}))),
        (60_000, message("executed", json!({"node": "3", "output": {}}))),
        (60_001, message("execution_success", json!({}))),
        (60_002, message("executing", json!({"node": null}))),
    ];
    let mut world = World::new("p", frames);
    let status = json!({"status_str": "success", "completed": true, "messages": [["execution_success", {}]]});
    let entry: HistoryEntry = serde_json::from_value(json!({"outputs": {}, "status": status})).unwrap();
    world.history = Some((START.plus(Duration::from_millis(60_002)), entry));
    let session = world.session();
    let (verdict, events, _) = world.run(session, 2 * MINUTE);
    assert!(matches!(verdict, Verdict::Succeeded { .. }), "{verdict:?}");
    assert!(durable(&events).contains(&"execution_error"));
}

#[test]
fn a_dead_worker_is_found_within_half_a_minute() {
    let mut world = World::new("p", Vec::new());
    world.queue = Queue::Pending;
    let session = world.session();
    let (verdict, _, took) = world.run(session, MINUTE);
    assert_eq!(
        verdict,
        Verdict::Lost {
            reason: LostReason::WorkerDead
        }
    );
    assert!(took <= Duration::from_secs(16), "{took:?}");
}

#[test]
fn a_forgotten_prompt_is_found_within_half_a_minute() {
    let mut world = World::new("p", Vec::new());
    world.queue = Queue::Empty;
    let session = world.session();
    let (verdict, _, took) = world.run(session, MINUTE);
    assert_eq!(
        verdict,
        Verdict::Lost {
            reason: LostReason::Gone
        }
    );
    assert!(took <= Duration::from_secs(10), "{took:?}");
}

#[test]
fn waiting_behind_a_foreign_prompt_is_neither_a_stall_nor_a_death() {
    let mut world = World::new("p", Vec::new());
    world.queue = Queue::PendingBehind;
    let done: HistoryEntry =
        serde_json::from_value(json!({"status": {"status_str": "success", "completed": true}})).unwrap();
    world.history = Some((START.plus(60 * MINUTE), done));
    let session = world.session();
    let (verdict, _, _) = world.run(session, 61 * MINUTE);
    assert!(matches!(verdict, Verdict::Succeeded { .. }), "{verdict:?}");
}

#[test]
fn a_silent_node_is_left_alone_until_the_stall_timeout() {
    // The recorded SystemExit: the worker is gone, the prompt stays "running", and nothing else is ever said.
    let frames = socket("crash", "node_raises_SystemExit");
    let frames: Frames = frames
        .into_iter()
        .filter(|(_, frame)| !matches!(frame, Frame::Closed))
        .collect();
    let id = &transcripts()["crash"]["node_raises_SystemExit"]["submit"]["prompt_id"];
    let mut world = World::new(id.as_str().unwrap(), frames);
    let session = world.session();
    let (verdict, _, took) = world.run(session, 16 * MINUTE);
    assert!(
        matches!(
            verdict,
            Verdict::Lost {
                reason: LostReason::Stalled { .. }
            }
        ),
        "{verdict:?}"
    );
    assert!(took >= 15 * MINUTE, "{took:?}");
}

#[test]
fn an_instance_that_is_gone_is_unreachable_and_a_slow_one_is_not() {
    let mut dead = World::new("p", socket("crash", "SIGKILL_mid_prompt"));
    dead.failure = Some(Failure::Refused);
    let session = dead.session();
    let (verdict, _, took) = dead.run(session, MINUTE);
    assert!(
        matches!(
            verdict,
            Verdict::Lost {
                reason: LostReason::Unreachable { .. }
            }
        ),
        "{verdict:?}"
    );
    assert!(took <= Duration::from_secs(30), "{took:?}");

    let mut slow = World::new("p", vec![executing(0, "1")]);
    slow.failure = Some(Failure::NoAnswer);
    let session = slow.session();
    let (verdict, _, _) = slow.run(session, 16 * MINUTE);
    assert!(
        matches!(
            verdict,
            Verdict::Lost {
                reason: LostReason::Stalled { .. }
            }
        ),
        "{verdict:?}"
    );
}

fn executing(at_ms: u64, node: &str) -> (u64, Frame) {
    let message = json!({"type": "executing", "data": {"node": node, "prompt_id": "p"}});
    (at_ms, Frame::Text(message.to_string()))
}

#[test]
fn an_instance_that_answers_nothing_or_nonsense_is_given_up_long_before_a_stall() {
    for (failure, expected) in [
        (Failure::NoAnswer, "answered nothing"),
        (Failure::Garbage, "no ComfyUI"),
    ] {
        let mut world = World::new("p", Vec::new());
        world.failure = Some(failure);
        let session = world.session();
        let (verdict, _, took) = world.run(session, 2 * MINUTE);
        let Verdict::Lost { reason } = verdict else {
            panic!("{verdict:?}")
        };
        assert!(reason.to_string().contains(expected), "{reason}");
        assert!(took <= Duration::from_secs(90), "{took:?}");
    }
    // A node that runs may hold the interpreter, so that nothing is answered; it never makes it talk nonsense.
    let mut world = World::new("p", vec![executing(0, "1")]);
    world.failure = Some(Failure::Garbage);
    let session = world.session();
    let (verdict, _, _) = world.run(session, MINUTE);
    assert!(
        matches!(
            verdict,
            Verdict::Lost {
                reason: LostReason::Garbage { .. }
            }
        ),
        "{verdict:?}"
    );
}

#[test]
fn a_node_that_is_silent_for_five_minutes_completes() {
    let mut world = World::new("p", vec![executing(0, "1")]);
    let done: HistoryEntry =
        serde_json::from_value(json!({"status": {"status_str": "success", "completed": true}})).unwrap();
    world.history = Some((START.plus(5 * MINUTE), done));
    let session = world.session();
    let (verdict, _, took) = world.run(session, 6 * MINUTE);
    assert!(matches!(verdict, Verdict::Succeeded { .. }), "{verdict:?}");
    assert!(took >= 5 * MINUTE, "{took:?}");
}

#[test]
fn certain_knowledge_ends_it_at_once_and_only_once() {
    let mut session = Session::new("p", Config::default(), START);
    session.give_up(LostReason::InstanceDied {
        how: "exit code 9".into(),
    });
    session.give_up(LostReason::Gone);
    let lost = Verdict::Lost {
        reason: LostReason::InstanceDied {
            how: "exit code 9".into(),
        },
    };
    assert_eq!(session.verdict(), Some(&lost));
    assert_eq!((session.poll_action(START), session.poll_timeout()), (None, None));
    let done: HistoryEntry = serde_json::from_value(json!({"status": {"status_str": "success"}})).unwrap();
    session.on_history(Some(done), START);
    assert_eq!(session.into_verdict(), Some(lost));
}
