//! Images that `SaveImageWebsocket` sends instead of writing files: outputs that only the socket ever carries
//! (`comfyui/behaviour.md` §8).
//!
//! A preview looks the same on the wire. So a frame counts only while a node of that class executes, and if the socket
//! was away meanwhile, nobody can know what is missing.

use std::collections::BTreeMap;

use bytes::Bytes;
use darkroom_comfy::{
    session::SessionEvent,
    wire::{BinaryFrame, Body, FileRef},
};
use serde_json::{Value, json};

use super::{
    mentioned::{Mentioned, What},
    piece::{Piece, Source},
};

/// The node class whose frames are outputs.
const CLASS: &str = "SaveImageWebsocket";

/// Frames are held in memory until the prompt has succeeded: at most this much of one attempt, in bytes (128 MiB, some
/// forty images of 1024 by 1024 pixels that do not compress at all, or hundreds that do). More belongs into files.
pub const MAX_BYTES: usize = 128 << 20;

/// The frames of one prompt.
#[derive(Debug, Clone, Default)]
pub struct SocketImages {
    /// Nodes of the class, and how far each is.
    senders: BTreeMap<String, Sender>,
    current: Option<String>,
    frames: Vec<(String, Bytes)>,
    held_bytes: usize,
    gap: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    /// It was not heard of.
    Quiet,
    /// It executes, and was heard of from its beginning.
    Sending,
    /// It executed, and the socket was there all the time.
    Complete,
    /// The socket was away meanwhile.
    Broken,
}

/// Why the frames of a prompt that succeeded are not its outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The run has to be repeated.
    #[error("images that the instance sent over its socket were missed while the socket was away")]
    Missed,
    /// It would be the same again.
    #[error(
        "the workflow sends more than {MAX_BYTES} bytes of images over the socket: save them as files instead"
    )]
    TooMany,
}

impl SocketImages {
    /// Of a graph in API format, of which only `targets` are executed if there are any. Without nodes of the class nothing
    /// is ever held.
    pub fn of(graph: &Value, targets: Option<&[String]>) -> Self {
        let nodes = graph.as_object().into_iter().flatten();
        // Nothing can depend on a node of the class: one that is no target does not run.
        let runs = |id: &String| targets.is_none_or(|targets| targets.contains(id));
        let senders = nodes
            .filter(|(id, node)| node["class_type"] == CLASS && runs(id))
            .map(|(id, _)| (id.clone(), Sender::Quiet))
            .collect();
        SocketImages {
            senders,
            ..SocketImages::default()
        }
    }

    /// Takes notice of what the session tells.
    pub fn take(&mut self, event: &SessionEvent) {
        if self.senders.is_empty() {
            return;
        }
        match event {
            SessionEvent::Durable(message) => match message.body() {
                // Said to a socket that was just opened again: the node began some time ago.
                Body::Executing {
                    node: Some(node),
                    prompt_id: None,
                    ..
                } => self.has_begun(node),
                Body::Executing { node, .. } => self.executing(node.clone()),
                Body::ExecutionSuccess { .. } => self.executing(None),
                _ => {}
            },
            SessionEvent::Image { node, frame } => self.frame(node.as_deref(), frame),
            SessionEvent::Gap => self.interrupted(),
            SessionEvent::Ephemeral(_) | SessionEvent::Text { .. } => {}
        }
    }

    /// The socket was or is away.
    pub fn interrupted(&mut self) {
        self.gap = true;
        if let Some(sender) = self.current.take().and_then(|id| self.senders.get_mut(&id)) {
            *sender = Sender::Broken;
            self.frames = Vec::new();
        }
    }

    /// The frames as outputs, in the order they came; for a prompt that succeeded.
    ///
    /// # Errors
    /// When they are not all there.
    pub fn pieces(&self) -> Result<Vec<Piece>, Error> {
        let missed = self.senders.values().any(|sender| match sender {
            // It did not run, or nobody heard that it did.
            Sender::Quiet => self.gap,
            Sender::Sending | Sender::Complete => false,
            Sender::Broken => true,
        });
        if missed {
            return Err(Error::Missed);
        }
        if self.held_bytes > MAX_BYTES {
            return Err(Error::TooMany);
        }
        let mut of_node: BTreeMap<&str, u32> = BTreeMap::new();
        let pieces = self.frames.iter().zip(1u32..).map(|((node, image), number)| {
            let index = of_node.entry(node).or_default();
            let piece = piece(node, *index, number, image);
            *index += 1;
            piece
        });
        Ok(pieces.collect())
    }

    fn executing(&mut self, node: Option<String>) {
        if self.current == node {
            return;
        }
        if let Some(last) = self.current.take().and_then(|id| self.senders.get_mut(&id)) {
            *last = Sender::Complete;
        }
        let next = node.as_ref().and_then(|id| self.senders.get_mut(id));
        if let Some(next) = next.filter(|sender| **sender != Sender::Broken) {
            *next = Sender::Sending;
            self.current = node;
        }
    }

    fn has_begun(&mut self, node: &str) {
        if self.current.as_deref() != Some(node)
            && let Some(sender) = self.senders.get_mut(node)
        {
            *sender = Sender::Broken;
        }
    }

    fn frame(&mut self, node: Option<&str>, frame: &BinaryFrame) {
        let (Some(node), Some((image, "image/png"))) = (node, frame.image()) else {
            return;
        };
        if self.current.as_deref() != Some(node) {
            return;
        }
        self.held_bytes = self.held_bytes.saturating_add(image.len());
        if self.held_bytes <= MAX_BYTES {
            // A copy: the frame's own buffer may be a larger one that other frames share.
            self.frames.push((node.to_owned(), Bytes::copy_from_slice(image)));
        } else {
            self.frames = Vec::new();
        }
    }
}

fn piece(node: &str, index: u32, number: u32, image: &Bytes) -> Piece {
    let filename = format!("websocket_{number:05}.png");
    Piece {
        item: Mentioned {
            node_id: node.to_owned(),
            kind: "images".to_owned(),
            index,
            raw: json!({"filename": filename, "subfolder": "", "type": "output"}),
            what: What::File(FileRef {
                filename,
                subfolder: String::new(),
                kind: "output".to_owned(),
            }),
        },
        known: None,
        source: Source::Held(image.clone()),
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use darkroom_comfy::{
        session::{Config, Session},
        wire::{ImageFormat, Message},
    };
    use darkroom_core::Timestamp;

    use super::*;

    /// A prompt whose session hears what a test says.
    struct Told {
        session: Session,
        images: SocketImages,
    }

    impl Told {
        fn new(graph: Value) -> Self {
            Told {
                session: Session::new("p", Config::default(), Timestamp::ZERO),
                images: SocketImages::of(&graph, None),
            }
        }

        fn say(&mut self, kind: &str, mut data: Value) -> &mut Self {
            data["prompt_id"] = "p".into();
            let text = json!({"type": kind, "data": data}).to_string();
            let events = self
                .session
                .on_message(Message::parse(&text).unwrap(), Timestamp::ZERO);
            events.iter().for_each(|event| self.images.take(event));
            self
        }

        fn executing(&mut self, node: Value) -> &mut Self {
            self.say("executing", json!({ "node": node }))
        }

        fn frame(&mut self, format: ImageFormat, image: &'static str) -> &mut Self {
            let image = Bytes::from_static(image.as_bytes());
            let frame = BinaryFrame::Preview { format, image };
            let events = self.session.on_binary(frame, Timestamp::ZERO);
            events.iter().for_each(|event| self.images.take(event));
            self
        }

        fn held(&self) -> Vec<(String, u32, String)> {
            let pieces = self.images.pieces().unwrap();
            pieces
                .into_iter()
                .map(|piece| match piece.source {
                    Source::Held(bytes) => (
                        piece.item.node_id,
                        piece.item.index,
                        String::from_utf8(bytes.to_vec()).unwrap(),
                    ),
                    other => panic!("{other:?}"),
                })
                .collect()
        }
    }

    fn graph() -> Value {
        json!({
            "1": {"class_type": "KSampler", "inputs": {}},
            "2": {"class_type": "SaveImageWebsocket", "inputs": {}},
            "3": {"class_type": "SaveImageWebsocket", "inputs": {}},
        })
    }

    #[test]
    fn frames_count_only_while_a_node_of_the_class_executes() {
        let mut told = Told::new(graph());
        told.say("execution_start", json!({}))
            .executing(json!("1"))
            .frame(ImageFormat::Png, "a preview of the sampler")
            .executing(json!("2"))
            .frame(ImageFormat::Jpeg, "a preview all the same")
            .frame(ImageFormat::Png, "first")
            .frame(ImageFormat::Png, "second")
            .executing(json!("1"))
            .frame(ImageFormat::Png, "a preview")
            .executing(json!("3"))
            .frame(ImageFormat::Png, "third")
            .say("execution_success", json!({}))
            .frame(ImageFormat::Png, "after the end")
            .executing(Value::Null);
        let expected = [("2", 0, "first"), ("2", 1, "second"), ("3", 0, "third")];
        assert_eq!(
            told.held(),
            expected.map(|(node, index, image)| (node.to_owned(), index, image.to_owned()))
        );
        let names: Vec<Value> = told
            .images
            .pieces()
            .unwrap()
            .into_iter()
            .map(|p| p.item.raw)
            .collect();
        assert_eq!(names[2]["filename"], "websocket_00003.png");
    }

    /// What ComfyUI 0.3.64 sent in this scenario (of binary frames the first 64 bytes), and how many frames there were.
    fn recorded(scenario: &str, graph: Value) -> (SocketImages, usize) {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../comfy/tests/data/transcripts.json"
        );
        let all: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let recording = &all[scenario];
        let id = recording["submit"][0]["response"]["prompt_id"].as_str().unwrap();
        let mut session = Session::new(id, Config::default(), Timestamp::ZERO);
        let (mut images, mut frames) = (SocketImages::of(&graph, None), 0);
        for message in recording["messages"].as_array().unwrap() {
            let events = if message["text"].is_object() {
                let text = message["text"].to_string();
                session.on_message(Message::parse(&text).unwrap(), Timestamp::ZERO)
            } else if let Some(head) = message["b64_first_64"].as_str() {
                let head = base64::engine::general_purpose::STANDARD.decode(head).unwrap();
                session.on_binary(BinaryFrame::parse(head.into()).unwrap(), Timestamp::ZERO)
            } else {
                continue;
            };
            for event in &events {
                images.take(event);
                frames += usize::from(matches!(event, SessionEvent::Image { .. }));
            }
        }
        (images, frames)
    }

    #[test]
    fn the_recorded_run_has_one_image_and_the_samplers_previews_none() {
        let (images, _) = recorded("ok_ws_image", json!({"2": {"class_type": CLASS}}));
        let pieces = images.pieces().unwrap();
        let [
            Piece {
                item,
                source: Source::Held(image),
                ..
            },
        ] = &pieces[..]
        else {
            panic!("{pieces:?}")
        };
        assert_eq!((item.node_id.as_str(), &image[..4]), ("2", &b"\x89PNG"[..]));
        // A node of the class is there, and the frames are of others.
        for scenario in ["sd15_tiny", "sd15_seed_change"] {
            let (images, frames) = recorded(scenario, json!({"99": {"class_type": CLASS}}));
            assert!(frames > 0, "{scenario} has previews");
            assert_eq!(images.pieces(), Ok(vec![]), "{scenario}");
        }
    }

    #[test]
    fn what_was_not_to_run_was_not_missed() {
        let mut told = Told::new(graph());
        told.images = SocketImages::of(&graph(), Some(&["2".to_owned()]));
        told.executing(json!("2"))
            .frame(ImageFormat::Png, "all there is")
            .executing(json!("1"));
        told.images.interrupted();
        told.executing(Value::Null);
        assert_eq!(told.held().len(), 1);
    }

    #[test]
    fn more_than_fits_is_refused_and_not_held() {
        let image = Bytes::from(vec![0; MAX_BYTES / 8]);
        let mut told = Told::new(graph());
        told.executing(json!("2"));
        for _ in 0..9 {
            let frame = BinaryFrame::Preview {
                format: ImageFormat::Png,
                image: image.clone(),
            };
            let events = told.session.on_binary(frame, Timestamp::ZERO);
            events.iter().for_each(|event| told.images.take(event));
        }
        told.executing(Value::Null);
        assert_eq!(told.images.pieces(), Err(Error::TooMany));
        assert!(told.images.frames.is_empty());
    }

    #[test]
    fn what_the_socket_may_have_missed_is_not_taken_for_all() {
        let mut before = Told::new(graph());
        before.executing(json!("1"));
        before.images.interrupted();
        before
            .executing(json!("2"))
            .frame(ImageFormat::Png, "a")
            .executing(json!("3"))
            .executing(Value::Null);
        assert_eq!(before.held().len(), 1, "both were heard from their beginning");

        let mut during = Told::new(graph());
        during.executing(json!("3")).executing(json!("2"));
        during.images.interrupted();
        during.executing(Value::Null);
        assert_eq!(during.images.pieces(), Err(Error::Missed));

        let mut whole = Told::new(graph());
        whole.executing(json!("2")).executing(json!("1"));
        whole.images.interrupted();
        assert_eq!(
            whole.images.pieces(),
            Err(Error::Missed),
            "the other one may have run"
        );

        let mut again = Told::new(graph());
        again.images.interrupted();
        let events = again.session.on_message(
            Message::parse(r#"{"type": "executing", "data": {"node": "2"}}"#).unwrap(),
            Timestamp::ZERO,
        );
        events.iter().for_each(|event| again.images.take(event));
        again
            .frame(ImageFormat::Png, "not the first")
            .executing(json!("3"))
            .executing(Value::Null);
        assert_eq!(
            again.images.pieces(),
            Err(Error::Missed),
            "it began while the socket was away"
        );

        let mut other = Told::new(json!({"1": {"class_type": "SaveImage"}}));
        other.images.interrupted();
        assert_eq!(other.images.pieces(), Ok(vec![]), "there is nothing to miss");
    }
}
