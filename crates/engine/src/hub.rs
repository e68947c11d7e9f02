//! Who listens, and what they are told: the table of open sockets by client id.
//!
//! Knows nothing of WebSockets: a listener is a queue of frames that the server's socket task drains.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;

/// Frames a listener may be behind before it is dropped. A preview is about 40 kB, so a stuck socket holds 160 MB at worst.
const BACKLOG: usize = 4096;

/// One WebSocket message.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// JSON.
    Text(String),
    /// A preview, an image or a text for one node.
    Binary(Bytes),
}

impl Frame {
    /// The usual envelope.
    pub fn event(kind: &str, data: &Value) -> Frame {
        Frame::Text(json!({"type": kind, "data": data}).to_string())
    }
}

/// All listeners, and what the newest prompt's client should see when it comes back.
#[derive(Debug, Default)]
pub struct Hub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    listeners: HashMap<String, Listener>,
    connections: u64,
    current_client: Option<String>,
    current_node: Option<String>,
}

#[derive(Debug)]
struct Listener {
    connection: u64,
    frames: mpsc::Sender<Frame>,
    preview_metadata: bool,
}

/// A connection's end of the table.
#[derive(Debug)]
pub struct Subscription {
    /// The client id.
    pub sid: String,
    connection: u64,
    /// What to send; closed when the listener was replaced by a newer one or fell too far behind.
    pub frames: mpsc::Receiver<Frame>,
}

impl Hub {
    /// Adds a listener. A newer socket of the same id replaces the older one.
    pub fn subscribe(&self, sid: String, queue_remaining: usize) -> Subscription {
        let (sender, frames) = mpsc::channel(BACKLOG);
        let mut state = self.lock();
        state.connections += 1;
        let connection = state.connections;
        // Under the lock, so that no event overtakes the first message.
        let mut hello = status(queue_remaining);
        hello["sid"] = json!(sid);
        let _ = sender.try_send(Frame::event("status", &hello));
        if let (Some(client), Some(node)) = (&state.current_client, &state.current_node)
            && *client == sid
        {
            let _ = sender.try_send(Frame::event("executing", &json!({"node": node})));
        }
        state.listeners.insert(
            sid.clone(),
            Listener {
                connection,
                frames: sender,
                preview_metadata: false,
            },
        );
        Subscription {
            sid,
            connection,
            frames,
        }
    }

    /// Removes a listener, unless a newer socket has taken its place (there ComfyUI differs: it removes the newer one).
    pub fn unsubscribe(&self, subscription: &Subscription) {
        let mut state = self.lock();
        if state
            .listeners
            .get(&subscription.sid)
            .is_some_and(|l| l.connection == subscription.connection)
        {
            state.listeners.remove(&subscription.sid);
        }
    }

    /// True if another listener has the place of this one.
    pub fn is_replaced(&self, subscription: &Subscription) -> bool {
        let state = self.lock();
        state
            .listeners
            .get(&subscription.sid)
            .is_some_and(|l| l.connection != subscription.connection)
    }

    /// Remembers what a client announced about previews.
    pub fn announce(&self, subscription: &Subscription, preview_metadata: bool) {
        if let Some(listener) = self.lock().listeners.get_mut(&subscription.sid) {
            listener.preview_metadata = preview_metadata;
        }
    }

    /// True if the client understands previews that name their node.
    pub fn wants_preview_metadata(&self, client: Option<&str>) -> bool {
        let state = self.lock();
        client
            .and_then(|sid| state.listeners.get(sid))
            .is_some_and(|listener| listener.preview_metadata)
    }

    /// Whose prompt runs; a client that comes back meanwhile is told the current node.
    pub fn set_current_client(&self, client: Option<&str>) {
        self.lock().current_client = client.map(str::to_owned);
    }

    /// The node that runs, if any.
    pub fn set_current_node(&self, node: Option<&str>) {
        self.lock().current_node = node.map(str::to_owned);
    }

    /// Sends to one client, or to everyone. A client that is not connected misses it.
    pub fn send(&self, frame: Frame, to: Option<&str>) {
        let mut state = self.lock();
        match to {
            Some(sid) => {
                let stuck = state
                    .listeners
                    .get(sid)
                    .is_some_and(|l| l.frames.try_send(frame).is_err());
                if stuck {
                    state.listeners.remove(sid);
                }
            }
            None => state
                .listeners
                .retain(|_, listener| listener.frames.try_send(frame.clone()).is_ok()),
        }
    }

    /// Tells everyone how many prompts wait or run.
    pub fn send_status(&self, queue_remaining: usize) {
        self.send(Frame::event("status", &status(queue_remaining)), None);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The data of a `status` message and the answer of `GET /prompt`.
pub fn status(queue_remaining: usize) -> Value {
    json!({"status": {"exec_info": {"queue_remaining": queue_remaining}}})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(subscription: &mut Subscription) -> Vec<String> {
        let mut out = Vec::new();
        while let Ok(Frame::Text(text)) = subscription.frames.try_recv() {
            out.push(text);
        }
        out
    }

    #[test]
    fn a_newer_socket_replaces_the_older_and_survives_its_end() {
        let hub = Hub::default();
        let mut old = hub.subscribe("a".into(), 0);
        let mut new = hub.subscribe("a".into(), 0);
        hub.unsubscribe(&old);
        hub.send(Frame::event("x", &json!({})), Some("a"));
        assert_eq!(texts(&mut old).len(), 1, "only the hello");
        assert_eq!(texts(&mut new).len(), 2);
    }

    #[test]
    fn the_owner_of_the_running_prompt_is_told_the_node_on_return() {
        let hub = Hub::default();
        hub.set_current_client(Some("a"));
        hub.set_current_node(Some("7"));
        assert!(texts(&mut hub.subscribe("a".into(), 1))[1].contains(r#""node":"7""#));
        assert_eq!(texts(&mut hub.subscribe("b".into(), 1)).len(), 1);
    }

    #[test]
    fn a_stuck_listener_is_dropped() {
        let hub = Hub::default();
        let mut slow = hub.subscribe("a".into(), 0);
        for _ in 0..BACKLOG + 1 {
            hub.send_status(0);
        }
        assert_eq!(texts(&mut slow).len(), BACKLOG);
        assert!(matches!(
            slow.frames.try_recv(),
            Err(mpsc::error::TryRecvError::Disconnected)
        ));
    }
}
