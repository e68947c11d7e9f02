//! What goes on in a run, on its way to the server in its order: durable events wait for their answer, what is only shown goes
//! with the next of them or when the line is free, the oldest first to be dropped.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use darkroom_core::{attempt::Lease, event::NewEvent};
use darkroom_runner::{
    link::Ephemeral,
    wire::{Happening, Told},
};
use reqwest::Method;
use uuid::Uuid;

use crate::server::{Failed, Server};

/// What waits to be shown.
const MOST: usize = 64;

/// Of one attempt.
#[derive(Debug)]
pub struct Telling {
    /// By which the server knows this count of events from another.
    id: Uuid,
    waiting: Mutex<VecDeque<Happening>>,
    /// Durable events that were taken. Held while something is on its way, which keeps the order.
    taken: tokio::sync::Mutex<u64>,
    showing: AtomicBool,
}

impl Telling {
    /// Of an attempt of which nothing was told yet, by us.
    pub fn new(id: Uuid) -> Self {
        Telling {
            id,
            waiting: Mutex::default(),
            taken: tokio::sync::Mutex::default(),
            showing: AtomicBool::default(),
        }
    }

    /// Tells durable events, after what waits to be shown.
    ///
    /// # Errors
    /// [`Failed`]; told again, they are stored once.
    pub async fn durable(&self, server: &Server, lease: Lease, events: Vec<NewEvent>) -> Result<(), Failed> {
        let mut taken = self.taken.lock().await;
        let count = events.len() as u64;
        let mut items: Vec<Happening> = self.waiting().drain(..).collect();
        items.extend(events.into_iter().map(Happening::Durable));
        self.send(server, lease, *taken, items).await?;
        *taken += count;
        Ok(())
    }

    /// Something to show; `true`: somebody has to [`Telling::show`] it.
    pub fn push(&self, what: Ephemeral) -> bool {
        let mut waiting = self.waiting();
        if waiting.len() >= MOST {
            waiting.pop_front();
        }
        waiting.push_back(match what {
            Ephemeral::Message(text) => Happening::Message(text.to_string()),
            Ephemeral::Preview {
                node_id,
                content_type,
                bytes,
            } => Happening::Preview {
                node_id,
                content_type: content_type.to_owned(),
                base64: STANDARD.encode(bytes),
            },
        });
        !self.showing.swap(true, Ordering::AcqRel)
    }

    /// Shows what waits, once the line is free. What is lost on its way is lost.
    pub async fn show(&self, server: &Server, lease: Lease) {
        let taken = self.taken.lock().await;
        self.showing.store(false, Ordering::Release);
        let items: Vec<Happening> = self.waiting().drain(..).collect();
        if !items.is_empty() {
            let _ = self.send(server, lease, *taken, items).await;
        }
    }

    async fn send(
        &self,
        server: &Server,
        lease: Lease,
        first: u64,
        items: Vec<Happening>,
    ) -> Result<(), Failed> {
        let told = Told {
            teller: self.id,
            first,
            items,
        };
        let sent = server.about(lease, Method::POST, "told", |request| request.json(&told));
        sent.await.map(drop)
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<Happening>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
