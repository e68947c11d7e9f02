//! Reading: a few connections of their own, used on the blocking pool, each read bounded in time so that none keeps the
//! log from being cut.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, InterruptHandle, OpenFlags};
use tokio::sync::Semaphore;

use crate::Error;

/// No read transaction lasts longer.
const MAX_READ: Duration = Duration::from_secs(1);

/// The pool.
pub(super) struct Readers {
    file: PathBuf,
    vfs: Option<String>,
    idle: Arc<Mutex<Vec<Connection>>>,
    room: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(file: PathBuf, vfs: Option<String>, size: usize) -> Self {
        Readers {
            file,
            vfs,
            idle: Arc::default(),
            room: Arc::new(Semaphore::new(size.max(1))),
        }
    }

    /// Runs a read in one transaction (one snapshot).
    pub(super) async fn run<T, F>(&self, read: F) -> Result<T, Error>
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
        let conn = match kept {
            Some(conn) => conn,
            None => {
                let (file, vfs) = (self.file.clone(), self.vfs.clone());
                blocking(move || open(file, vfs.as_deref())).await?
            }
        };
        let reading = Reading {
            interrupt: conn.get_interrupt_handle(),
            over: Arc::default(),
        };
        let over = reading.over.clone();
        let mut work = std::pin::pin!(blocking(move || {
            let result = in_transaction(&conn, read);
            *over.lock().unwrap_or_else(PoisonError::into_inner) = true;
            lock(&idle).push(conn);
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
    interrupt: InterruptHandle,
    over: Arc<Mutex<bool>>,
}

impl Reading {
    fn stop(&self) {
        // Locked, so that the connection cannot be lent to another read between the look and the interrupt.
        let over = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        if !*over {
            self.interrupt.interrupt();
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop();
    }
}

fn lock(idle: &Mutex<Vec<Connection>>) -> std::sync::MutexGuard<'_, Vec<Connection>> {
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

fn open(file: PathBuf, vfs: Option<&str>) -> Result<Connection, Error> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = match vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(file, flags, vfs)?,
        None => Connection::open_with_flags(file, flags)?,
    };
    conn.busy_timeout(MAX_READ)?;
    conn.set_prepared_statement_cache_capacity(64);
    // 512 KiB of pages each; the system's own cache holds the rest.
    conn.execute_batch("PRAGMA cache_size=-512; PRAGMA query_only=ON;")?;
    Ok(conn)
}

fn in_transaction<T>(
    conn: &Connection,
    read: impl FnOnce(&Connection) -> Result<T, Error>,
) -> Result<T, Error> {
    conn.prepare_cached("BEGIN")?.execute([])?;
    let result = read(conn);
    // A failed read may have ended the transaction already.
    if !conn.is_autocommit() {
        conn.prepare_cached("COMMIT")?.execute([])?;
    }
    result
}
