//! Durable state behind seven traits, one per noun: [`Jobs`], [`Queues`] (items, groups and deliveries of the EAS queue
//! service), [`Catalog`], [`Workflows`], [`Files`], [`Assets`], [`Access`].
//!
//! The verbs are the domain's (`claim`, `renew`, `finish`), never a table's, and every one of them fits Postgres as
//! well as SQLite: the store's own clock decides leases, numbers come from counters that are advanced under the
//! parent's row lock, and subscriptions carry wake-ups only. Nothing here knows HTTP, ComfyUI, or blobs' bytes.
//!
//! Start with [`jobs`]; `sqlite` is the implementation for one box; `conformance` is the suite that every
//! implementation runs.

pub mod access;
pub mod assets;
pub mod catalog;
#[cfg(test)]
mod conformance;
pub mod error;
pub mod files;
pub mod jobs;
pub mod outbox;
pub mod queues;
pub mod sqlite;
pub mod wake;
pub mod workflows;

pub use access::Access;
pub use assets::Assets;
pub use catalog::Catalog;
pub use error::Error;
pub use files::Files;
pub use jobs::Jobs;
pub use queues::Queues;
pub use sqlite::SqliteStore;
pub use wake::{Topic, Wakeups};
pub use workflows::Workflows;

/// All of the traits together: what the server holds.
pub trait Store: Jobs + Queues + Catalog + Workflows + Files + Assets + Access + Wakeups {}
impl<T: Jobs + Queues + Catalog + Workflows + Files + Assets + Access + Wakeups> Store for T {}
