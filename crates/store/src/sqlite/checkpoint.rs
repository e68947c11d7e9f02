//! Keeps the write-ahead log small without making commits wait: a thread of its own copies pages back, and only when the
//! log is long in spite of that does the writer stop to cut it.

use std::{
    cell::Cell,
    path::PathBuf,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use rusqlite::Connection;

/// The log's length is looked at after this many batches: one `stat`.
const LOOK_EVERY: u32 = 32;
/// Above this the thread copies pages back.
const COPY_ABOVE_BYTES: u64 = 4 * 1024 * 1024;
/// Above this the writer cuts the log.
const CUT_ABOVE_BYTES: u64 = 64 * 1024 * 1024;

/// The writer's side.
pub(super) struct Checkpointer {
    log: PathBuf,
    batches: Cell<u32>,
    wake: SyncSender<()>,
}

impl Checkpointer {
    /// For the database at `file`; the receiver goes to [`run`].
    pub(super) fn new(file: &std::path::Path) -> (Self, Receiver<()>) {
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let (wake, woken) = sync_channel(1);
        let this = Checkpointer {
            log: log.into(),
            batches: Cell::new(0),
            wake,
        };
        (this, woken)
    }

    /// Called by the writer between batches.
    pub(super) fn after_batch(&self, conn: &Connection) -> Result<(), rusqlite::Error> {
        self.batches.set(self.batches.get() + 1);
        if self.batches.get() < LOOK_EVERY {
            return Ok(());
        }
        self.batches.set(0);
        let length = std::fs::metadata(&self.log).map_or(0, |m| m.len());
        if length > CUT_ABOVE_BYTES {
            self.truncate(conn)
        } else {
            if length > COPY_ABOVE_BYTES {
                // Full: it was woken already.
                let _ = self.wake.try_send(());
            }
            Ok(())
        }
    }

    /// Copies everything back and cuts the log to nothing, unless a reader still needs it.
    pub(super) fn truncate(&self, conn: &Connection) -> Result<(), rusqlite::Error> {
        checkpoint(conn, "PRAGMA wal_checkpoint(TRUNCATE)")
    }
}

/// The thread: copies pages back whenever the writer asks; never blocks the writer or readers.
pub(super) fn run(conn: &Connection, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        // An error here acknowledged nothing: the writer meets the same disk and decides.
        if let Err(error) = checkpoint(conn, "PRAGMA wal_checkpoint(PASSIVE)") {
            tracing::warn!(%error, "the log could not be copied back");
        }
    }
}

fn checkpoint(conn: &Connection, pragma: &str) -> Result<(), rusqlite::Error> {
    match conn.query_row(pragma, [], |_| Ok(())) {
        Err(error)
            if matches!(
                error.sqlite_error_code(),
                Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}
