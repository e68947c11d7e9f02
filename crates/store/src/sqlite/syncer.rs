//! The second half of a commit: a thread that puts the log on the disk while the writer goes on writing.
//!
//! The writer commits with `synchronous=NORMAL`: in WAL mode that writes the log without syncing it, which survives the death
//! of the process though not of the machine. Commits that callers wait for come here; one sync covers every commit before
//! it, so those that come while one is under way share the next. Order is kept: what was committed first is acknowledged
//! first.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use darkroom_core::Clock;

use super::{
    hub::{End, Hub},
    options::{Committed, Fatal, OnCommit},
    queue::{Op, Queue},
    watermark::Watermark,
};
use crate::wake::Topic;

/// Operations that may wait for a sync; then the writer waits too, so that a disk that hangs is felt by who asks.
const MAX_WAITING: usize = 4096;

/// Syncs the log.
pub(super) type SyncLog = Box<dyn Fn() -> io::Result<()> + Send>;

/// A commit that is in the log and not yet on the disk.
pub(super) struct Written {
    /// Its place among such commits ([`Watermark::write`]).
    pub(super) number: u64,
    /// The operations whose callers wait for it.
    pub(super) done: Vec<Box<dyn Op>>,
    /// Whom to wake when it is on the disk.
    pub(super) wakes: Vec<Topic>,
    /// The jobs that ended in it.
    pub(super) ends: Vec<End>,
    /// What to tell of it, if it came about; `took` is the time since this began.
    pub(super) commit: Option<Committed>,
    /// When its COMMIT began, on the monotonic clock.
    pub(super) began: Duration,
}

/// The line between the writer and the disk.
#[derive(Default)]
pub(super) struct Syncer {
    line: Mutex<Line>,
    changed: Condvar,
}

#[derive(Default)]
struct Line {
    waiting: Vec<Written>,
    operations: usize,
    closed: bool,
}

/// What the thread works with.
pub(super) struct Disk {
    pub(super) sync: SyncLog,
    pub(super) watermark: Arc<Watermark>,
    pub(super) hub: Arc<Hub>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) on_commit: Option<OnCommit>,
    pub(super) fatal: Fatal,
    /// Takes no more when a sync failed.
    pub(super) queue: Arc<Queue>,
}

impl Syncer {
    /// Hands a commit over; waits while too many wait. After [`Syncer::close`] its callers are told that the store is
    /// closed.
    pub(super) fn push(&self, written: Written) {
        let mut line = self
            .changed
            .wait_while(self.lock(), |line| line.operations > MAX_WAITING && !line.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if !line.closed {
            line.operations += written.done.len();
            line.waiting.push(written);
            drop(line);
            self.changed.notify_all();
        }
    }

    /// Takes no more; what was handed over is still synced.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Syncs and acknowledges until closed, or until a sync fails: then the kernel may have dropped the pages, and nothing
    /// more is acknowledged.
    pub(super) fn run(&self, disk: &Disk) {
        // Whatever ends this thread, also a panic, no caller and no reader may wait for ever, and nothing more be written.
        struct Abandon<'a>(&'a Syncer, &'a Disk);
        impl Drop for Abandon<'_> {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    (self.1.fatal)("the thread that syncs the log panicked");
                }
                self.1.queue.abandon();
                self.0.close();
                self.0.lock().waiting.clear();
                self.1.watermark.give_up();
            }
        }
        let _abandon = Abandon(self, disk);
        while let Some(batch) = self.next() {
            if let Err(error) = (disk.sync)() {
                tracing::error!(%error, "the log could not be synced");
                (disk.fatal)(&format!("the log could not be synced: {error}"));
                return;
            }
            let now = disk.clock.monotonic();
            if let Some(last) = batch.last() {
                disk.watermark.synced(last.number);
            }
            for written in batch {
                if let (Some(on_commit), Some(commit)) = (&disk.on_commit, written.commit) {
                    on_commit(Committed {
                        took: now.saturating_sub(written.began),
                        ..commit
                    });
                }
                for op in written.done {
                    op.reply(Ok(()));
                }
                disk.hub.ended(written.ends);
                disk.hub.wake(written.wakes);
            }
        }
    }

    /// All that waits, as soon as anything does.
    fn next(&self) -> Option<Vec<Written>> {
        let mut line = self
            .changed
            .wait_while(self.lock(), |line| line.waiting.is_empty() && !line.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if line.waiting.is_empty() {
            return None;
        }
        let full = std::mem::take(&mut line.operations) > MAX_WAITING;
        let batch = std::mem::take(&mut line.waiting);
        drop(line);
        if full {
            self.changed.notify_all();
        }
        Some(batch)
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where SQLite keeps the log of a database.
pub(super) fn log_of(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push("-wal");
    name.into()
}

/// Syncs the log of an open database through a handle of its own. SQLite neither locks that file nor replaces it while a
/// connection is open, so the handle stays good and closing it takes no lock away.
///
/// # Errors
/// When the log cannot be opened, or its directory not be synced.
pub(super) fn sync_log_of(database: &Path) -> io::Result<SyncLog> {
    let log = File::open(log_of(database))?;
    // The file is new after a clean stop; SQLite would sync its directory with its own first sync.
    let dir = database
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()?;
    Ok(Box::new(move || log.sync_data()))
}
