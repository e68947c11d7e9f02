//! A job's events as the messages that callers of this protocol read: ComfyUI's own text messages, verbatim, and last
//! the result or the error (`protocols/comfyui-serverless-fc.md` §5).

use darkroom_core::{
    JobState,
    event::{Event, EventKind},
};
use serde_json::json;

use super::{error::FcError, request::Flags, result};
use crate::service::{
    Error, Service,
    follow::{Ephemeral, Step},
    jobs::JobRecord,
};

/// Turns steps of one job into JSON texts, in the order the vendor sends them.
pub struct Transcript {
    service: Service,
    flags: Flags,
    base_url: String,
}

impl Transcript {
    /// For one reader.
    pub fn new(service: Service, flags: Flags, base_url: String) -> Self {
        Transcript {
            service,
            flags,
            base_url,
        }
    }

    /// The first message of a live reader: `status` with a session id.
    pub fn opening(&self, sid: &str, queue_remaining: u64) -> String {
        json!({ "type": "status",
                "data": { "status": { "exec_info": { "queue_remaining": queue_remaining } }, "sid": sid } })
        .to_string()
    }

    /// The messages of one step; after [`Step::End`] there are no more.
    ///
    /// # Errors
    /// When an output cannot be read.
    pub async fn of_step(&self, step: &Step) -> Result<Vec<String>, Error> {
        match step {
            Step::Event(event) => Ok(of_event(event)),
            Step::Ephemeral(Ephemeral::Message(text)) => Ok(vec![text.to_string()]),
            // Binary previews are not part of this protocol.
            Step::Ephemeral(Ephemeral::Preview { .. }) | Step::Cancelling => Ok(vec![]),
            Step::End(job) => self.of_end(job).await,
        }
    }

    /// The messages after the last event.
    ///
    /// # Errors
    /// When an output cannot be read.
    pub async fn of_end(&self, job: &JobRecord) -> Result<Vec<String>, Error> {
        let mut messages = Vec::new();
        if job.started_at.is_some() {
            messages.push(status(0));
            messages
                .push(json!({"type": "executing", "data": {"node": null, "prompt_id": job.id}}).to_string());
        }
        messages.push(match FcError::of_job(job) {
            Some(error) => error.message().to_string(),
            None if job.state == JobState::Succeeded => {
                result::of_job(&self.service, job, self.flags, &self.base_url).await?
            }
            None => return Ok(vec![]),
        });
        Ok(messages)
    }
}

/// The messages of one durable event.
pub fn of_event(event: &Event) -> Vec<String> {
    let message = |kind: EventKind| format!("{{\"type\":\"{}\",\"data\":{}}}", kind.as_str(), event.data);
    match event.kind {
        EventKind::ExecutionStart => vec![status(1), message(event.kind)],
        // The last one, without a node, is sent after the files are stored.
        EventKind::Executing if names_no_node(&event.data) => vec![],
        EventKind::Executing
        | EventKind::ExecutionCached
        | EventKind::Executed
        | EventKind::ExecutionSuccess
        | EventKind::ExecutionError
        | EventKind::ExecutionInterrupted => vec![message(event.kind)],
        // Ours, not ComfyUI's.
        EventKind::State
        | EventKind::Output
        | EventKind::Chunk
        | EventKind::Log
        | EventKind::ProgressSummary
        | EventKind::Truncated => vec![],
    }
}

fn names_no_node(data: &str) -> bool {
    serde_json::from_str::<serde_json::Value>(data).is_ok_and(|v| v.get("node").is_some_and(|n| n.is_null()))
}

fn status(queue_remaining: u64) -> String {
    json!({ "type": "status", "data": { "status": { "exec_info": { "queue_remaining": queue_remaining } } } })
        .to_string()
}

#[cfg(test)]
mod tests {
    use darkroom_core::Timestamp;

    use super::*;

    fn event(kind: EventKind, data: &str) -> Event {
        Event {
            seq: 1,
            at: Timestamp::ZERO,
            attempt: 1,
            kind,
            data: data.into(),
        }
    }

    #[test]
    fn messages_are_verbatim_and_the_last_executing_waits() {
        let data = r#"{"node":"3","big":9007199254740993,"x": 1.0}"#;
        let sent = of_event(&event(EventKind::Executing, data));
        assert_eq!(sent, [format!(r#"{{"type":"executing","data":{data}}}"#)]);
        assert!(of_event(&event(EventKind::Executing, r#"{"node":null,"prompt_id":"p"}"#)).is_empty());
        assert_eq!(of_event(&event(EventKind::ExecutionStart, "{}")).len(), 2);
        assert!(of_event(&event(EventKind::State, "{}")).is_empty());
    }
}
