//! Reading: a few connections of their own, used on the blocking pool, each read bounded in time so that none keeps the
//! log from being cut.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use super::watermark::Watermark;
use crate::Error;

/// No read transaction lasts longer.
const MAX_READ: Duration = Duration::from_secs(1);
/// A read looks this often whether it was cut off: 1,000 steps of SQLite's machine are some 10 us.
const LOOK_EVERY_STEPS: std::ffi::c_int = 1_000;

/// The pool.
pub(super) struct Readers {
    file: PathBuf,
    vfs: Option<String>,
    idle: Arc<Mutex<Vec<Reader>>>,
    room: Arc<Semaphore>,
    watermark: Arc<Watermark>,
}

/// A connection, and the flag by which its read is cut off. SQLite's own interrupt would be lost on a read that has not
/// begun yet, and one that nobody waits for any more would then go on for ever.
struct Reader {
    conn: Connection,
    cut: Arc<AtomicBool>,
}

impl Readers {
    pub(super) fn new(file: PathBuf, vfs: Option<String>, size: usize, watermark: Arc<Watermark>) -> Self {
        Readers {
            file,
            vfs,
            idle: Arc::default(),
            room: Arc::new(Semaphore::new(size.max(1))),
            watermark,
        }
    }

    /// Runs a read in one transaction (one snapshot). What it saw is on the disk when it is told.
    pub(super) async fn run<T, F>(&self, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let result = self.read(read).await;
        self.watermark.reached().await;
        result
    }

    async fn read<T, F>(&self, read: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, Error> + Send + 'static,
    {
        let permit = self
            .room
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| Error::Closed)?;
        let idle = self.idle.clone();
        let kept = lock(&idle).pop();
        let reader = match kept {
            Some(reader) => reader,
            None => {
                let (file, vfs) = (self.file.clone(), self.vfs.clone());
                blocking(move || open(file, vfs.as_deref())).await?
            }
        };
        let reading = Reading {
            cut: reader.cut.clone(),
            over: Arc::default(),
        };
        let over = reading.over.clone();
        let mut work = std::pin::pin!(blocking(move || {
            let end = || {
                *over.lock().unwrap_or_else(PoisonError::into_inner) = true;
                reader.cut.store(false, Ordering::Relaxed);
            };
            let result = in_transaction(&reader.conn, read, end);
            // One that is still in a transaction is of no use to the next read.
            if reader.conn.is_autocommit() {
                lock(&idle).push(reader);
            }
            drop(permit);
            result
        }));
        match tokio::time::timeout(MAX_READ, &mut work).await {
            Ok(result) => result,
            Err(_elapsed) => {
                reading.stop();
                work.await
            }
        }
    }

    /// Lets go of all connections; later reads get [`Error::Closed`].
    pub(super) fn close(&self) {
        self.room.close();
        lock(&self.idle).clear();
    }
}

/// A read under way: cut off when it takes too long, or when its caller goes away.
struct Reading {
    cut: Arc<AtomicBool>,
    over: Arc<Mutex<bool>>,
}

impl Reading {
    fn stop(&self) {
        // Locked, so that the connection cannot be lent to another read between the look and the cut.
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if !*over {
            self.cut.store(true, Ordering::Relaxed);
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(idle: &Mutex<Vec<Reader>>) -> std::sync::MutexGuard<'_, Vec<Reader>> {
    idle.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_runtime_is_going) => Err(Error::Closed),
    }
}

fn open(file: PathBuf, vfs: Option<&str>) -> Result<Reader, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut conn = match vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(file, flags, vfs)?,
        None => Connection::open_with_flags(file, flags)?,
    };
    conn.busy_timeout(MAX_READ)?;
    conn.set_prepared_statement_cache_capacity(64);
    super::plan_once(&conn)?;
    // 512 KiB of pages each; the system's own cache holds the rest.
    conn.execute_batch("PRAGMA cache_size=-512; PRAGMA query_only=ON;")?;
    let cut = Arc::new(AtomicBool::new(false));
    let seen = cut.clone();
    conn.progress_handler(LOOK_EVERY_STEPS, Some(move || seen.load(Ordering::Relaxed)))?;
    Ok(Reader { conn, cut })
}

/// `end` is called after the read, before anything that must not be cut off.
fn in_transaction<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, Error>,
    end: impl FnOnce(),
) -> Result<T, Error> {
    let begun = conn
        .prepare_cached("BEGIN")
        .and_then(|mut begin| begin.execute([]));
    let result = match begun {
        Ok(_) => read(conn),
        Err(error) => Err(error.into()),
    };
    end();
    // A failed read may have ended the transaction already.
    if !conn.is_autocommit() {
        conn.prepare_cached("COMMIT")?.execute([])?;
    }
    result
}
