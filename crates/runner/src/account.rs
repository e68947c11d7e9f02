//! From a session's events to what followers get: which are stored, which are only shown, what is kept for the end.

use std::collections::BTreeSet;

use darkroom_comfy::{
    session::SessionEvent,
    wire::{BinaryFrame, Body, HistoryEntry, Message, parse_lenient},
};
use darkroom_core::event::{EventKind, NewEvent};
use serde::Deserialize;
use serde_json::{Map, Value, json, value::RawValue};

use crate::{
    collect::frames::SocketImages,
    feed::{Feed, Subject},
    history,
    link::Ephemeral,
};

/// A run whose last progress is longer than this is summed up as counts only.
const MAX_SUMMARY_BYTES: usize = 64 * 1024;

/// The account of one prompt.
#[derive(Debug)]
pub struct Account {
    prompt_id: String,
    /// Hold back an out-of-memory error and what follows it: the prompt will be tried once more.
    forgive_out_of_memory: bool,
    held: Vec<NewEvent>,
    last_progress: Option<Message>,
    gap: bool,
    seen: BTreeSet<(&'static str, Option<String>)>,
    /// Whether a node really ran; a fully cached prompt writes no files.
    pub ran_a_node: bool,
    /// Outputs that come over the socket.
    pub images: SocketImages,
}

impl Account {
    /// A fresh account; `images` of the prompt's graph.
    pub fn new(prompt_id: &str, forgive_out_of_memory: bool, images: SocketImages) -> Self {
        Account {
            prompt_id: prompt_id.to_owned(),
            forgive_out_of_memory,
            held: Vec::new(),
            last_progress: None,
            gap: false,
            seen: BTreeSet::new(),
            ran_a_node: false,
            images,
        }
    }

    /// Passes events on.
    pub fn take(&mut self, events: Vec<SessionEvent>, feed: &Feed) {
        for event in events {
            self.images.take(&event);
            match event {
                SessionEvent::Durable(message) => self.durable(&message, feed),
                SessionEvent::Ephemeral(message) => {
                    let subject = match message.body() {
                        Body::ProgressState { .. } => Subject::Run,
                        Body::Progress { node: Some(node), .. } => Subject::Node(node.clone()),
                        _ => Subject::Each,
                    };
                    feed.ephemeral(subject, Ephemeral::Message(message.raw_shared()));
                    if matches!(message.body(), Body::ProgressState { .. }) {
                        self.last_progress = Some(message);
                    }
                }
                SessionEvent::Image { node, frame } => image(node, &frame, feed),
                SessionEvent::Text { node, text } => {
                    let data = json!({"nodeId": node, "text": text, "prompt_id": self.prompt_id});
                    let text = json!({"type": "progress_text", "data": data}).to_string();
                    feed.ephemeral(Subject::Each, Ephemeral::Message(text.into()));
                }
                SessionEvent::Gap => self.interrupted(),
            }
        }
    }

    /// The socket was away: what came meanwhile is told from history at the end.
    pub fn interrupted(&mut self) {
        self.gap = true;
        self.images.interrupted();
    }

    /// The prompt is over for good: passes on what was held back, and what the socket missed.
    pub fn close(&mut self, history: Option<&HistoryEntry>, feed: &Feed) {
        for event in self.held.drain(..) {
            feed.durable(event);
        }
        if let (true, Some(history)) = (self.gap, history) {
            let seen = |kind: EventKind, node: Option<&str>| {
                self.seen.contains(&(kind.as_str(), node.map(str::to_owned)))
            };
            for event in history::missed_events(history, &self.prompt_id, seen) {
                feed.durable(event);
            }
        }
    }

    /// The last progress, made small: the one event about it that is stored.
    pub fn summary(&self) -> Option<NewEvent> {
        let Body::ProgressState { nodes, .. } = self.last_progress.as_ref()?.body() else {
            return None;
        };
        let compact: Map<String, Value> = nodes
            .iter()
            .map(|(id, node)| {
                let mut entry = json!({"value": node.value, "max": node.max, "state": node.state});
                if let Some(display) = node.extra.get("display_node_id") {
                    entry["display_node_id"] = display.clone();
                }
                (id.clone(), entry)
            })
            .collect();
        let mut data = json!({"prompt_id": self.prompt_id, "nodes": compact}).to_string();
        if data.len() > MAX_SUMMARY_BYTES {
            let finished = nodes.values().filter(|node| node.state == "finished").count();
            let counts =
                json!({"prompt_id": self.prompt_id, "nodes_total": nodes.len(), "nodes_finished": finished});
            data = counts.to_string();
        }
        Some(NewEvent {
            kind: EventKind::ProgressSummary,
            data,
        })
    }

    fn durable(&mut self, message: &Message, feed: &Feed) {
        // A custom node may send messages of any name.
        let kind = EventKind::parse(message.kind()).filter(|kind| kind.is_an_instances());
        let Some(kind) = kind else { return };
        let node = match message.body() {
            Body::Executing { node: Some(_), .. } => {
                self.ran_a_node = true;
                None
            }
            Body::Executed { node, .. } => Some(node.clone()),
            _ => None,
        };
        // Of `executing`, only the one that ends the prompt matters to what was missed.
        if !matches!(message.body(), Body::Executing { node: Some(_), .. }) {
            self.seen.insert((kind.as_str(), node));
        }
        let event = NewEvent {
            kind,
            data: data_of(message),
        };
        let forgiven =
            matches!(message.body(), Body::ExecutionError(error) if history::is_out_of_memory(error));
        if (forgiven && self.forgive_out_of_memory) || !self.held.is_empty() {
            self.held.push(event);
        } else {
            feed.durable(event);
        }
    }
}

fn image(node: Option<String>, frame: &BinaryFrame, feed: &Feed) {
    let Some((bytes, media_type)) = frame.image() else {
        return;
    };
    let (content_type, subject) = match media_type {
        "image/jpeg" => ("image/jpeg", Subject::Preview(node.clone())),
        // SaveImageWebsocket sends its final images this way: none may replace another.
        "image/png" => ("image/png", Subject::Each),
        _ => return,
    };
    let preview = Ephemeral::Preview {
        node_id: node,
        content_type,
        bytes: bytes.clone(),
    };
    feed.ephemeral(subject, preview);
}

/// The `data` of a message, exactly as the instance wrote it (Python's NaN excepted, which is not JSON).
fn data_of(message: &Message) -> String {
    #[derive(Deserialize)]
    struct Verbatim<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    #[derive(Deserialize)]
    struct Lenient {
        data: Value,
    }
    match serde_json::from_str::<Verbatim<'_>>(message.raw()) {
        Ok(verbatim) => verbatim.data.get().to_owned(),
        Err(_) => match parse_lenient::<Lenient>(message.raw().as_bytes()) {
            Ok(lenient) => lenient.data.to_string(),
            Err(_) => "{}".to_owned(),
        },
    }
}

/// An event for the operator.
pub fn log_event(text: &str) -> NewEvent {
    NewEvent {
        kind: EventKind::Log,
        data: json!({ "message": text }).to_string(),
    }
}
