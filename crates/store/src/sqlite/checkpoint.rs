//! Keeps the write-ahead log small without making commits wait: a thread of its own copies pages back, and only when the
//! log is long in spite of that does the writer stop to finish the copy, so that the log begins anew. The log's file keeps
//! its length meanwhile: writing over what is there is what the disk syncs fastest.

use std::{
    cell::Cell,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use rusqlite::Connection;

/// Each time so many pages (4 KiB) were added, the thread copies back: 4 MiB.
const COPY_EVERY_PAGES: u32 = 1024;
/// From here on the writer finishes the copy by itself, each time as many were added: 16 MiB. The next commit then begins
/// the log anew, unless somebody reads from it at that moment.
const FINISH_ABOVE_PAGES: u32 = 4 * COPY_EVERY_PAGES;
/// From here on the writer waits for who reads: 64 MiB.
const WAIT_ABOVE_PAGES: u32 = 16 * COPY_EVERY_PAGES;

/// The writer's side.
pub(super) struct Checkpointer {
    /// Pages in the log after the last commit.
    pages: Arc<AtomicU32>,
    /// How many there were when something was last done about them.
    done_at: Cell<u32>,
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
    /// For the writer's connection; the copier goes to [`run`].
    ///
    /// # Errors
    /// When SQLite refuses to tell how long the log is.
    pub(super) fn new(writer: &mut Connection) -> Result<(Self, Copier), rusqlite::Error> {
        let pages = Arc::new(AtomicU32::new(0));
        let counted = pages.clone();
        writer.wal_hook(Some(
            move |_: &mut rusqlite::hooks::Wal, in_log: std::ffi::c_int| {
                counted.store(in_log.unsigned_abs(), Ordering::Relaxed);
                Ok(())
            },
        ))?;
        let (wake, woken) = sync_channel(1);
        let turn = Turn::default();
        let this = Checkpointer {
            pages,
            done_at: Cell::new(0),
            wake,
            turn: turn.clone(),
        };
        Ok((this, Copier { woken, turn }))
    }

    /// Called by the writer between batches.
    pub(super) fn after_batch(&self, conn: &Connection) -> Result<(), rusqlite::Error> {
        let pages = self.pages.load(Ordering::Relaxed);
        if pages < self.done_at.get() {
            // It began anew.
            self.done_at.set(0);
        }
        if pages - self.done_at.get() < COPY_EVERY_PAGES {
            return Ok(());
        }
        self.done_at.set(pages);
        match pages {
            WAIT_ABOVE_PAGES.. => self.fold(conn),
            FINISH_ABOVE_PAGES.. => {
                let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
                checkpoint(conn, "PRAGMA wal_checkpoint(PASSIVE)")
            }
            _ => {
                // Full: it was woken already.
                let _ = self.wake.try_send(());
                Ok(())
            }
        }
    }

    /// Copies everything back and cuts the log to nothing, unless a reader still needs it. Waits for a copy that is under
    /// way.
    pub(super) fn truncate(&self, conn: &Connection) -> Result<(), rusqlite::Error> {
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        checkpoint(conn, "PRAGMA wal_checkpoint(TRUNCATE)")
    }

    /// Copies everything back, unless a reader still needs the log, and leaves the file as long as it is. Waits for a copy
    /// that is under way: the writer is what makes the log long, so it is the one to wait.
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

    fn add_pages(conn: &Connection, pages: u32) {
        conn.execute("INSERT INTO t VALUES (zeroblob(?1))", [pages * 4096])
            .unwrap();
    }

    fn open(file: &std::path::Path) -> (Connection, Checkpointer, Copier) {
        let mut conn = Connection::open(file).unwrap();
        conn.execute_batch(
            "PRAGMA page_size=4096; PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE t (x);",
        )
        .unwrap();
        let (checkpointer, copier) = Checkpointer::new(&mut conn).unwrap();
        (conn, checkpointer, copier)
    }

    #[test]
    fn the_copier_is_asked_each_four_mebibytes_and_a_long_log_begins_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (conn, checkpointer, copier) = open(&dir.path().join("db"));
        let asked = |pages| {
            add_pages(&conn, pages);
            checkpointer.after_batch(&conn).unwrap();
            copier.woken.try_recv().is_ok()
        };
        assert!(!asked(COPY_EVERY_PAGES / 2));
        assert!(asked(COPY_EVERY_PAGES / 2));
        assert!(!asked(1), "it was asked just now");
        assert!(!asked(FINISH_ABOVE_PAGES), "the writer did it");
        let long = checkpointer.pages.load(Ordering::Relaxed);
        assert!(!asked(1));
        let anew = checkpointer.pages.load(Ordering::Relaxed);
        assert!(anew < 10 && long > FINISH_ABOVE_PAGES, "{long} {anew}");
    }

    #[test]
    fn a_fold_that_falls_into_a_copy_waits_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let (conn, checkpointer, copier) = open(&dir.path().join("db"));
        add_pages(&conn, 100);
        let before = checkpointer.pages.load(Ordering::Relaxed);
        let copying = copier.turn.lock().unwrap();
        let (done, folded) = channel();
        let writer = thread::spawn(move || {
            checkpointer.fold(&conn).unwrap();
            add_pages(&conn, 1);
            done.send(checkpointer.pages.load(Ordering::Relaxed)).unwrap();
        });
        assert!(
            folded.recv_timeout(Duration::from_millis(50)).is_err(),
            "it does not go on with a long log"
        );
        drop(copying);
        let after = folded.recv().unwrap();
        assert!(before > 100 && after < 10, "{before} {after}");
        writer.join().unwrap();
    }
}
