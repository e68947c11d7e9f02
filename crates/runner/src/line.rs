//! The one socket to an instance. Never two at a time: ComfyUI silences the older one, and when that closes, the newer
//! one too.

use std::sync::{Mutex, PoisonError};

use darkroom_comfy::{
    client::{Incoming, Socket},
    wire::{BinaryFrame, Message},
};

/// What came over it.
#[derive(Debug)]
pub enum Heard {
    /// A text message.
    Message(Message),
    /// A binary frame.
    Frame(BinaryFrame),
    /// It is closed now.
    Closed,
}

/// Open or not.
#[derive(Debug, Default)]
pub struct Line {
    /// Only ever reached through `get_mut`: the mutex makes the line shareable, which an upgraded connection is not.
    socket: Mutex<Option<Socket>>,
    is_open: bool,
}

impl Line {
    /// Whether it is open, as far as is known.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Takes a socket that was opened while this one was closed.
    pub fn opened(&mut self, socket: Socket) {
        self.socket = Mutex::new(Some(socket));
        self.is_open = true;
    }

    /// The next thing; never comes while it is closed. Safe to drop and call again.
    pub async fn hear(&mut self) -> Heard {
        let Some(socket) = self.socket.get_mut().unwrap_or_else(PoisonError::into_inner) else {
            return std::future::pending().await;
        };
        match socket.next().await {
            Ok(Some(Incoming::Message(message))) => Heard::Message(message),
            Ok(Some(Incoming::Binary(frame))) => Heard::Frame(frame),
            Ok(None) => self.close(),
            Err(error) => {
                tracing::debug!(%error, "the socket of an instance failed");
                self.close()
            }
        }
    }

    fn close(&mut self) -> Heard {
        self.socket = Mutex::new(None);
        self.is_open = false;
        Heard::Closed
    }
}
