//! Keeps the write-ahead log small without making commits wait: a thread of its own copies pages back, and only when the
//! log is long in spite of that does the writer stop to cut it.

use std::{
    cell::Cell,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use rusqlite::Connection;

/// The log's length is looked at after this many batches: one `stat`. At 4 MB each at most 32 MB are written between.
const LOOK_EVERY: u32 = 8;
/// Above this the thread copies pages back.
const COPY_ABOVE_BYTES: u64 = 4 * 1024 * 1024;
/// Above this the writer cuts the log.
const CUT_ABOVE_BYTES: u64 = 64 * 1024 * 1024;

/// The writer's side.
pub(super) struct Checkpointer {
    log: PathBuf,
    batches: Cell<u32>,
    wake: SyncSender<()>,
    turn: Turn,
}

/// Held by whoever copies pages back. SQLite refuses a second checkpoint beside a first at once, without waiting: without
/// this, a writer whose wish to cut falls into a long copy (a busy machine, a slow disk) would write on, and the log grow.
type Turn = Arc<Mutex<()>>;

/// The thread's side.
pub(super) struct Copier {
    woken: Receiver<()>,
    turn: Turn,
}

impl Checkpointer {
    /// For the database at `file`; the copier goes to [`run`].
    pub(super) fn new(file: &std::path::Path) -> (Self, Copier) {
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let (wake, woken) = sync_channel(1);
        let turn = Turn::default();
        let this = Checkpointer {
            log: log.into(),
            batches: Cell::new(0),
            wake,
            turn: turn.clone(),
        };
        (this, Copier { woken, turn })
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

    /// Copies everything back and cuts the log to nothing, unless a reader still needs it. Waits for a copy that is under
    /// way: the writer is what makes the log long, so it is the one to wait.
    pub(super) fn truncate(&self, conn: &Connection) -> Result<(), rusqlite::Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoint(conn, "PRAGMA wal_checkpoint(TRUNCATE)")
    }

    /// Copies everything back, unless a reader still needs the log, and leaves the file as long as it is: writing over what
    /// is there is what the disk syncs fastest, since no length changes.
    pub(super) fn fold(&self, conn: &Connection) -> Result<(), rusqlite::Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoint(conn, "PRAGMA wal_checkpoint(RESTART)")
    }
}

/// The thread: copies pages back whenever the writer asks; blocks neither readers nor a writer that does not want to cut.
pub(super) fn run(conn: &Connection, copier: &Copier) {
    while copier.woken.recv().is_ok() {
        let _turn = copier.turn.lock().unwrap_or_else(PoisonError::into_inner);
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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc::channel, thread, time::Duration};

    use super::*;

    #[test]
    fn a_cut_that_falls_into_a_copy_waits_for_it_and_then_cuts() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("db");
        let conn = Connection::open(&file).unwrap();
        conn.execute_batch("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t (x);")
            .unwrap();
        let (checkpointer, copier) = Checkpointer::new(&file);
        let log = checkpointer.log.clone();
        let copying = copier.turn.lock().unwrap();
        let (done, cut) = channel();
        let writer = thread::spawn(move || {
            checkpointer.truncate(&conn).unwrap();
            done.send(()).unwrap();
            // Closing it would remove the log.
            conn
        });
        assert!(
            cut.recv_timeout(Duration::from_millis(50)).is_err(),
            "it does not go on uncut"
        );
        assert!(std::fs::metadata(&log).unwrap().len() > 0);
        drop(copying);
        cut.recv().unwrap();
        assert_eq!(std::fs::metadata(&log).unwrap().len(), 0);
        drop(writer.join().unwrap());
    }
}
