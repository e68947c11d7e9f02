//! What can go wrong in any store, as few kinds as callers can act on.

/// A failure of the store. "Not found" of a lookup is not one: lookups return `Ok(None)`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The queue to the writer is full; try again after a moment. Only submits ever get this.
    #[error("the store is busy")]
    Busy,
    /// The disk reserve is reached: submits are refused, results are still taken.
    #[error("the disk is nearly full; {available_bytes} bytes are left")]
    DiskFull {
        /// Free bytes of the file system.
        available_bytes: u64,
    },
    /// The store is closing.
    #[error("the store is shutting down")]
    Closed,
    /// The database is newer than this program.
    #[error("the database has schema {found}, this program knows up to {known}: use a newer darkroom")]
    NewerSchema {
        /// Version in the file.
        found: i64,
        /// Newest version this program can read.
        known: i64,
    },
    /// A row holds what it cannot hold.
    #[error("inconsistent row in {table}: {what}")]
    Inconsistent {
        /// Which table.
        table: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The driver failed.
    #[error("the database failed")]
    Driver(#[source] Box<dyn std::error::Error + Send + Sync>),
}
