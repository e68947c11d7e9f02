//! A job's events as its client's socket hears them: ComfyUI's messages in ComfyUI's order (`comfyui/behaviour.md` §8),
//! but nothing that names a file, and no end, before files and history are stored
//! (`protocols/comfyui-multi-instance.md`, rules 4 and 5).

use axum::extract::ws::Message;
use bytes::{BufMut, Bytes, BytesMut};
use darkroom_core::{
    JobId, JobState,
    event::{Event, EventKind},
    public_name,
};
use serde_json::{Value, json};

use super::{
    entry::{Saved, last_message, renamed},
    exec_info::exec_info,
    ids,
};
use crate::service::{
    follow::{Ephemeral, Step},
    jobs::JobRecord,
};

/// Turns steps of one job into frames.
pub struct Transcript {
    job: JobId,
    job_text: String,
    prompt_id: String,
    attempt: u32,
    /// `executed` messages that name files.
    executed: Vec<String>,
    /// The last word of the instance, by kind.
    last: Option<(EventKind, String)>,
}

impl Transcript {
    /// From the job's beginning.
    pub fn new(job: &JobRecord) -> Self {
        Transcript {
            job: job.id,
            job_text: job.id.to_string(),
            prompt_id: ids::prompt_id(job),
            attempt: 0,
            executed: Vec::new(),
            last: None,
        }
    }

    /// The message of a durable event, if it is one to be sent now.
    pub fn of_event(&mut self, event: &Event) -> Option<Message> {
        if event.attempt != self.attempt {
            // What an attempt that was lost had made is made again.
            self.attempt = event.attempt;
            self.executed.clear();
            self.last = None;
        }
        match event.kind {
            EventKind::Executing if names_no_node(&event.data) => None,
            EventKind::Executed if event.data.contains("\"filename\"") => {
                self.executed.push(event.data.clone());
                None
            }
            EventKind::ExecutionSuccess | EventKind::ExecutionError | EventKind::ExecutionInterrupted => {
                self.last = Some((event.kind, event.data.clone()));
                None
            }
            EventKind::ExecutionStart
            | EventKind::ExecutionCached
            | EventKind::Executing
            | EventKind::Executed => Some(self.message(event.kind.as_str(), &event.data)),
            // Ours, not ComfyUI's.
            _ => None,
        }
    }

    /// The frames of an ephemeral one.
    pub fn of_ephemeral(&self, what: &Ephemeral, with_metadata: bool) -> Option<Message> {
        match what {
            Ephemeral::Message(text) if text.contains("\"progress_text\"") => progress_text(text),
            Ephemeral::Message(text) => {
                let text = renamed(text, &self.job_text, &self.prompt_id);
                Some(Message::Text(text.into_owned().into()))
            }
            Ephemeral::Preview {
                node_id,
                content_type,
                bytes,
            } => Some(Message::Binary(match (with_metadata, node_id) {
                (true, Some(node)) => self.preview_with_metadata(node, content_type, bytes),
                _ => preview(content_type, bytes),
            })),
        }
    }

    /// The frames at the job's end: what was held back, and the end itself.
    pub fn of_end(self, job: &JobRecord, queue_remaining: u64) -> Vec<Message> {
        let mut frames = Vec::new();
        // One that was cancelled while it waited leaves without a word.
        if job.state != JobState::Cancelled || job.started_at.is_some() {
            let saved = (job.state != JobState::Succeeded).then(|| Saved::of(job));
            let executed = self.executed.iter();
            frames.extend(executed.filter_map(|data| self.executed_message(data, saved.as_ref())));
            let (kind, data) = last_message(job);
            frames.push(match &self.last {
                Some((told, data)) if told.as_str() == kind => self.message(kind, data),
                _ => text(&json!({ "type": kind, "data": data })),
            });
            frames.push(status(queue_remaining, None));
            let end = json!({ "node": null, "prompt_id": self.prompt_id });
            frames.push(text(&json!({ "type": "executing", "data": end })));
        }
        frames
    }

    fn message(&self, kind: &str, data: &str) -> Message {
        let data = renamed(data, &self.job_text, &self.prompt_id);
        Message::Text(format!("{{\"type\":\"{kind}\",\"data\":{data}}}").into())
    }

    /// `None` where none of its files is there.
    fn executed_message(&self, data: &str, saved: Option<&Saved>) -> Option<Message> {
        let data = renamed(data, &self.job_text, &self.prompt_id);
        let mut data: Value = serde_json::from_str(&data).unwrap_or_default();
        let node = data["node"].as_str().unwrap_or_default().to_owned();
        if saved.is_some_and(|saved| !saved.has_of(&node)) {
            return None;
        }
        if let Some(output) = data.get_mut("output") {
            if let Some(saved) = saved {
                saved.keep_only(&node, output);
            }
            public_name::publish(output, self.job);
        }
        Some(text(&json!({ "type": "executed", "data": data })))
    }

    fn preview_with_metadata(&self, node: &str, content_type: &str, bytes: &Bytes) -> Bytes {
        let metadata = json!({
            "node_id": node, "prompt_id": self.prompt_id, "display_node_id": node,
            "parent_node_id": null, "real_node_id": node, "image_type": content_type,
        })
        .to_string();
        let mut frame = BytesMut::with_capacity(8 + metadata.len() + bytes.len());
        frame.put_u32(PREVIEW_WITH_METADATA);
        frame.put_u32(u32::try_from(metadata.len()).unwrap_or(0));
        frame.put_slice(metadata.as_bytes());
        frame.put_slice(bytes);
        frame.freeze()
    }
}

/// Events of binary frames, big-endian at their beginning (`comfyui/behaviour.md` §8).
const PREVIEW: u32 = 1;
const TEXT: u32 = 3;
const PREVIEW_WITH_METADATA: u32 = 4;
const JPEG: u32 = 1;
const PNG: u32 = 2;

fn preview(content_type: &str, bytes: &Bytes) -> Bytes {
    let mut frame = BytesMut::with_capacity(8 + bytes.len());
    frame.put_u32(PREVIEW);
    frame.put_u32(if content_type == "image/png" { PNG } else { JPEG });
    frame.put_slice(bytes);
    frame.freeze()
}

fn progress_text(message: &str) -> Option<Message> {
    let message: Value = serde_json::from_str(message).ok()?;
    if message.get("type")? != "progress_text" {
        return None;
    }
    let part = |key: &str| message.pointer(key).and_then(Value::as_str).unwrap_or_default();
    let (node, text) = (part("/data/nodeId"), part("/data/text"));
    let mut frame = BytesMut::with_capacity(8 + node.len() + text.len());
    frame.put_u32(TEXT);
    frame.put_u32(u32::try_from(node.len()).ok()?);
    frame.put_slice(node.as_bytes());
    frame.put_slice(text.as_bytes());
    Some(Message::Binary(frame.freeze()))
}

/// `status` with the number of prompts, and the session's id in the first one.
pub fn status(queue_remaining: u64, sid: Option<&str>) -> Message {
    let mut data = json!({ "status": exec_info(queue_remaining) });
    if let Some(sid) = sid {
        data["sid"] = json!(sid);
    }
    text(&json!({ "type": "status", "data": data }))
}

/// A message as a text frame.
pub fn text(message: &Value) -> Message {
    Message::Text(message.to_string().into())
}

/// The node that runs, from an `executing` event.
pub fn node_of(data: &str) -> Option<String> {
    let data: Value = serde_json::from_str(data).ok()?;
    data.get("node")?.as_str().map(str::to_owned)
}

fn names_no_node(data: &str) -> bool {
    serde_json::from_str::<Value>(data).is_ok_and(|v| v.get("node").is_some_and(Value::is_null))
}

/// The frame of one step before the end; the end takes [`Transcript::of_end`].
pub fn of_step(transcript: &mut Transcript, step: &Step, with_metadata: bool) -> Option<Message> {
    match step {
        Step::Event(event) => transcript.of_event(event),
        Step::Ephemeral(what) => transcript.of_ephemeral(what, with_metadata),
        Step::Cancelling | Step::End(_) => None,
    }
}
