//! The messages of one prompt: who gets them, and which of them history keeps.

use std::cell::RefCell;

use bytes::Bytes;
use darkroom_comfy::{
    graph::NodeId,
    wire::{BinaryFrame, ImageFormat, PreviewMetadata},
};
use darkroom_core::Clock;
use serde_json::{Map, Value as Json, json};

use super::{Failure, Raised};
use crate::{
    hub::{Frame, Hub},
    nodes::call::Preview,
    pixels::encode,
};

const PREVIEW_QUALITY: u8 = 95;
/// zlib level of images that are sent and not stored.
const PREVIEW_PNG_LEVEL: u8 = 1;
const OUT_OF_MEMORY: &str = "torch.OutOfMemoryError";
const OUT_OF_MEMORY_TIPS: &str = "This error means you ran out of memory on your GPU.\n\nTIPS: If the workflow worked before you might have accidentally set the batch_size to a large number.";

/// Sends the messages of one prompt.
pub struct Report<'a> {
    hub: &'a Hub,
    clock: &'a dyn Clock,
    prompt: &'a str,
    client: Option<String>,
    messages: RefCell<Vec<Json>>,
}

impl<'a> Report<'a> {
    /// For a prompt of `client`; without a client most messages are not sent at all.
    pub fn new(hub: &'a Hub, clock: &'a dyn Clock, prompt: &'a str, client: Option<String>) -> Self {
        Report {
            hub,
            clock,
            prompt,
            client,
            messages: RefCell::default(),
        }
    }

    /// The prompt's id.
    pub fn prompt_id(&self) -> &str {
        self.prompt
    }

    /// What history keeps.
    pub fn into_messages(self) -> Vec<Json> {
        self.messages.into_inner()
    }

    /// The prompt begins.
    pub fn start(&self) {
        self.keep("execution_start", json!({"prompt_id": self.prompt}), false);
    }

    /// These nodes need not run.
    pub fn cached(&self, nodes: &[&NodeId]) {
        self.keep(
            "execution_cached",
            json!({"nodes": nodes, "prompt_id": self.prompt}),
            false,
        );
    }

    /// Everything ran.
    pub fn success(&self) {
        self.keep("execution_success", json!({"prompt_id": self.prompt}), false);
    }

    /// A node failed, or the prompt was interrupted at it.
    pub fn failure<'n>(&self, failure: &Failure, class: &str, all: impl Iterator<Item = &'n NodeId>) {
        let mut data = json!({
            "prompt_id": self.prompt, "node_id": failure.node, "node_type": class, "executed": failure.executed,
        });
        let Raised::Error { kind, message } = &failure.raised else {
            self.keep("execution_interrupted", data, true);
            return;
        };
        let tips = if kind == OUT_OF_MEMORY {
            OUT_OF_MEMORY_TIPS
        } else {
            ""
        };
        data["exception_message"] = json!(format!("{message}\n{tips}"));
        data["exception_type"] = json!(kind);
        // There is no Python here to trace; the list is kept because clients join it.
        data["traceback"] = json!([format!("  in node {} ({class})\n", failure.node)]);
        data["current_inputs"] = Json::Object(failure.inputs.clone());
        data["current_outputs"] = json!(all.collect::<Vec<_>>());
        self.keep("execution_error", data, false);
    }

    /// A node begins.
    pub fn executing(&self, id: &NodeId) {
        self.hub.set_current_node(Some(id.as_str()));
        self.to_client(
            "executing",
            &json!({"node": id, "display_node": id, "prompt_id": self.prompt}),
        );
    }

    /// A node showed something, now or (from the cache) earlier; null for an output that shows nothing.
    pub fn executed(&self, id: &NodeId, output: Option<&Map<String, Json>>) {
        let data = json!({"node": id, "display_node": id, "output": output, "prompt_id": self.prompt});
        self.to_client("executed", &data);
    }

    /// The table of nodes changed; its entries are `"id":{...}`.
    ///
    /// Put together as text: the message holds all nodes and is sent three times for each of them, so building it as a
    /// value would be most of the work of a large graph of small nodes.
    pub fn progress_state<'n>(&self, entries: impl Iterator<Item = &'n str>) {
        let mut text = format!(
            r#"{{"type":"progress_state","data":{{"prompt_id":{},"nodes":{{"#,
            json!(self.prompt)
        );
        for (index, entry) in entries.enumerate() {
            text.push_str(if index > 0 { "," } else { "" });
            text.push_str(entry);
        }
        text.push_str("}}}");
        self.hub.send(Frame::Text(text), self.client.as_deref());
    }

    /// A node counts.
    pub fn progress(&self, id: &NodeId, value: u64, max: u64) {
        self.to_client_or_all(
            "progress",
            &json!({"value": value, "max": max, "prompt_id": self.prompt, "node": id}),
        );
    }

    /// True if previews should name their node.
    pub fn wants_preview_metadata(&self) -> bool {
        self.hub.wants_preview_metadata(self.client.as_deref())
    }

    /// A preview, for clients that cannot read metadata.
    pub fn preview(&self, preview: Preview<'_>) {
        let format = match preview {
            Preview::Jpeg(_) => ImageFormat::Jpeg,
            Preview::Png(_) => ImageFormat::Png,
        };
        self.send_preview(preview, |image| BinaryFrame::Preview { format, image });
    }

    /// A preview that says which node made it.
    pub fn preview_with_metadata(&self, id: &NodeId, preview: Preview<'_>) {
        let image_type = match preview {
            Preview::Jpeg(_) => "image/jpeg",
            Preview::Png(_) => "image/png",
        };
        let place = [
            ("display_node_id", json!(id)),
            ("parent_node_id", Json::Null),
            ("real_node_id", json!(id)),
        ];
        let metadata = PreviewMetadata {
            node_id: Some(id.as_str().to_owned()),
            prompt_id: Some(self.prompt.to_owned()),
            image_type: Some(image_type.to_owned()),
            extra: place
                .map(|(key, value)| (key.to_owned(), value))
                .into_iter()
                .collect(),
        };
        self.send_preview(preview, |image| BinaryFrame::PreviewWithMetadata {
            metadata,
            image,
        });
    }

    /// A line of text that a node shows while it runs.
    pub fn text(&self, id: &NodeId, text: &str) {
        let frame = BinaryFrame::Text {
            node_id: id.as_str().to_owned(),
            text: text.to_owned(),
        };
        self.hub
            .send(Frame::Binary(frame.encode()), self.client.as_deref());
    }

    fn send_preview(&self, preview: Preview<'_>, frame: impl FnOnce(Bytes) -> BinaryFrame) {
        let encoded = match preview {
            Preview::Jpeg(image) => encode::jpeg(image, PREVIEW_QUALITY),
            Preview::Png(image) => encode::png(image, PREVIEW_PNG_LEVEL, &[]),
        };
        match encoded {
            Ok(bytes) => self.hub.send(
                Frame::Binary(frame(bytes.into()).encode()),
                self.client.as_deref(),
            ),
            Err(error) => tracing::warn!(%error, "a preview could not be encoded"),
        }
    }

    /// Keeps a message for history and sends it to the owner, or to everyone if that is asked for and there is no owner.
    fn keep(&self, kind: &str, mut data: Json, broadcast: bool) {
        data["timestamp"] = json!(self.clock.now().as_millis());
        self.messages.borrow_mut().push(json!([kind, data]));
        if broadcast {
            self.to_client_or_all(kind, &data)
        } else {
            self.to_client(kind, &data)
        }
    }

    fn to_client(&self, kind: &str, data: &Json) {
        if self.client.is_some() {
            self.to_client_or_all(kind, data);
        }
    }

    fn to_client_or_all(&self, kind: &str, data: &Json) {
        self.hub.send(Frame::event(kind, data), self.client.as_deref());
    }
}
