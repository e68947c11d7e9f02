//! What must leave the process, and what became of it.

use std::{collections::BTreeSet, time::Duration};

use darkroom_core::{JobId, Timestamp};

/// A message that must leave the process; written in the transaction of the state change that caused it.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxRow {
    /// Its number; grows for ever.
    pub id: i64,
    /// The job it is about.
    pub job: JobId,
    /// The kind of delivery (`webhook`, `sink`).
    pub kind: String,
    /// Tenant and receiver: rows of other lanes never wait behind this one. Empty where there is only one receiver.
    pub lane: String,
    /// Where to and what, JSON.
    pub body: String,
    /// Deliveries tried.
    pub tries: u32,
    /// Not before.
    pub due_at: Timestamp,
}

/// Which due rows are asked for.
#[derive(Debug, Clone, Default)]
pub struct Lanes {
    /// Rows in anybody's hands at a time, per lane.
    pub per_lane: usize,
    /// Rows at most.
    pub limit: usize,
    /// Rows that are in somebody's hands; they count towards their lanes.
    pub taken: BTreeSet<i64>,
    /// Lanes after this one come first, so that all have their turn when there are more than `limit`.
    pub after: String,
}

/// Rows to deliver now.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Due {
    /// The rows, oldest first within each lane.
    pub rows: Vec<OutboxRow>,
    /// When the next row becomes due.
    pub next_at: Option<Timestamp>,
}

/// A delivery that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The job.
    pub job: JobId,
    /// The message's id, the same at every try.
    pub message: String,
    /// When it was tried.
    pub at: Timestamp,
    /// How long that took.
    pub took: Duration,
    /// The status of the answer, where there was one.
    pub status: Option<u16>,
    /// Why it was not acknowledged; `None`: it was.
    pub problem: Option<String>,
    /// When it is tried again; `None`: not any more.
    pub next_at: Option<Timestamp>,
}

/// What became of a job's webhook.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct WebhookLog {
    /// Tries, oldest first; the newest hundred are kept as long as the job.
    pub tries: Vec<Delivery>,
    /// What waits to be delivered.
    pub waiting: Option<OutboxRow>,
}

/// What asking for another delivery did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Redelivery {
    /// It is due now.
    Queued,
    /// The job has not ended: there is nothing to tell yet.
    NotEnded,
    /// The job was submitted without a webhook.
    NoWebhook,
}
