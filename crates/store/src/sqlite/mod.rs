//! The store on one box: SQLite in WAL mode, one writer thread with group commit, readers beside it.
//!
//! Start with [`writer`](self) for how writes wait, `jobs/life.rs` for how a job changes. Every verb is one operation:
//! a closure over the batch's transaction ([`tx::Tx`]) that runs in its own savepoint.

mod access;
mod assets;
mod catalog;
mod checkpoint;
mod files;
mod hub;
mod jobs;
mod migrations;
mod options;
mod outbox;
mod queue;
mod queues;
mod readers;
mod sql;
mod syncer;
#[cfg(test)]
mod tests;
mod tx;
mod watermark;
mod workflows;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use darkroom_core::{Clock, JobId};
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};
use tokio::sync::oneshot;

pub use options::{
    Committed, DISK_RESERVE_BYTES, Durability, Ended, Failpoint, FakeDisk, Fatal, FreeSpace, OnCommit,
    Options,
};
use queue::{Lane, Queue, Wait};
use tx::Tx;

use crate::{
    Error,
    wake::{EndSubscription, Subscription, Topic, Wakeups},
};

/// More claims than are made within one sync of the disk, by far; and starts enough for all times.
const FENCES_SKIPPED: i64 = 1_000_000;

/// A store in a SQLite file. Dropping it finishes what waits for the writer.
pub struct SqliteStore {
    clock: Arc<dyn Clock>,
    queue: Arc<Queue>,
    hub: Arc<hub::Hub>,
    readers: readers::Readers,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl SqliteStore {
    /// Opens or creates the database at `file`, migrating it if needed. Blocks.
    ///
    /// # Errors
    /// [`Error::NewerSchema`] for a database of a newer program; [`Error::Driver`] when it cannot be opened.
    pub fn open(file: &Path, options: Options) -> Result<SqliteStore, Error> {
        let mut conn = open(file, &options)?;
        migrations::migrate(&conn, file, migrations::STEPS)?;
        skip_fences(&conn)?;
        let checkpoints = open(file, &options)?;

        let clock = options.clock.clone();
        let queue = Arc::new(Queue::new(options.max_waiting_submits));
        let hub = Arc::new(hub::Hub::default());
        let watermark = Arc::new(watermark::Watermark::default());
        let vfs = options.disk.as_ref().map(|disk| disk.vfs.clone());
        let readers = readers::Readers::new(file.to_owned(), vfs, options.readers, watermark.clone());
        let (checkpointer, copier) = checkpoint::Checkpointer::new(&mut conn)?;
        let syncer = Arc::new(syncer::Syncer::default());
        let disk = syncer::Disk {
            sync: sync_log(file, &mut conn, &options)?,
            watermark: watermark.clone(),
            hub: hub.clone(),
            clock: clock.clone(),
            on_commit: options.on_commit.clone(),
            fatal: options.fatal.clone(),
            queue: queue.clone(),
        };
        let writer = writer::Writer {
            conn,
            queue: queue.clone(),
            syncer: syncer.clone(),
            watermark,
            hub: hub.clone(),
            options,
            file: file.to_owned(),
            checkpointer,
        };
        let threads = vec![
            spawn("store-writer", move || writer.run())?,
            spawn("store-sync", move || syncer.run(&disk))?,
            spawn("store-checkpoint", move || checkpoint::run(&checkpoints, &copier))?,
        ];
        Ok(SqliteStore {
            clock,
            queue,
            hub,
            readers,
            threads: Mutex::new(threads),
        })
    }

    /// Finishes what waits, folds the log into the database, closes all connections.
    pub async fn close(&self) {
        self.queue.close();
        self.readers.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        // The runtime may be going; then the threads end by themselves.
        let _ = tokio::task::spawn_blocking(move || join(threads)).await;
    }

    /// Runs an operation on the writer and waits for its commit. It may be run a second time, after all that it did was
    /// undone.
    async fn write<T, F>(&self, lane: Lane, wait: Wait, bytes: usize, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let op = writer::Closure {
            lane,
            wait,
            bytes,
            work,
            outcome: None,
            answer,
        };
        self.queue.push(Box::new(op)).await?;
        answered.await.unwrap_or(Err(Error::Closed))
    }

    /// A write whose answer waits for the disk.
    async fn durably<T, F>(&self, bytes: usize, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.write(Lane::First, Wait::ForDisk, bytes, work).await
    }

    /// A write that survives kill -9 when it is answered, and rides along with the next fsync.
    async fn riding<T, F>(&self, bytes: usize, work: F) -> Result<T, Error>
    where
        T: Send + 'static,
        F: Fn(&Tx<'_>) -> Result<T, Error> + Send + 'static,
    {
        self.write(Lane::First, Wait::RideAlong, bytes, work).await
    }
}

impl Wakeups for SqliteStore {
    fn subscribe(&self, topic: Topic) -> Subscription {
        self.hub.subscribe(topic)
    }

    fn subscribe_end(&self, job: JobId) -> EndSubscription {
        self.hub.subscribe_end(job)
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        self.queue.close();
        self.readers.close();
        join(std::mem::take(
            self.threads.get_mut().unwrap_or_else(PoisonError::into_inner),
        ));
    }
}

fn join(threads: Vec<JoinHandle<()>>) {
    for thread in threads {
        if thread.join().is_err() {
            tracing::error!("a thread of the store panicked");
        }
    }
}

fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(body)
        .map_err(|error| Error::Driver(Box::new(error)))
}

/// A claim is answered before it is on the disk, so a power cut may take its fence back; an agent elsewhere may hold it all the
/// same. No fence that was given before this start is given again.
fn skip_fences(conn: &Connection) -> Result<(), Error> {
    let sql = "UPDATE counters SET value = value + ?1 WHERE name = 'fence'";
    match conn.execute(sql, [FENCES_SKIPPED]) {
        // A server comes up on a full disk, too: results are still read, and space may come.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
            tracing::warn!("the disk is full: fences go on from where they were");
            Ok(())
        }
        Err(error) => Err(error.into()),
        Ok(_) => Ok(()),
    }
}

/// From here on commits only write the log ([`syncer`]).
fn sync_log(file: &Path, writer: &mut Connection, options: &Options) -> Result<syncer::SyncLog, Error> {
    if options.durability == Durability::Promised {
        writer.execute_batch("PRAGMA synchronous=NORMAL")?;
    }
    let log = match &options.disk {
        Some(disk) => {
            let (sync, log) = (disk.sync.clone(), syncer::log_of(file));
            Ok(Box::new(move || sync(&log)) as syncer::SyncLog)
        }
        None => syncer::sync_log_of(file),
    };
    log.map_err(|error| Error::Driver(Box::new(error)))
}

fn open(file: &Path, options: &Options) -> Result<Connection, Error> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = match &options.disk {
        Some(disk) => Connection::open_with_flags_and_vfs(PathBuf::from(file), flags, disk.vfs.as_str())?,
        None => Connection::open_with_flags(file, flags)?,
    };
    conn.busy_timeout(std::time::Duration::from_millis(500))?;
    conn.set_prepared_statement_cache_capacity(128);
    plan_once(&conn)?;
    let synchronous = match options.durability {
        Durability::Promised => "FULL",
        Durability::Never => "OFF",
    };
    // Checkpoints are ours (checkpoint.rs). 4 MiB of pages, given back when idle. When the log begins anew, its file is cut
    // to `journal_size_limit`: long enough that it rarely has to grow again.
    conn.execute_batch(&format!(
        "PRAGMA page_size=4096; PRAGMA journal_mode=WAL; PRAGMA synchronous={synchronous};
         PRAGMA wal_autocheckpoint=0; PRAGMA journal_size_limit=20971520;
         PRAGMA cache_size=-4096; PRAGMA foreign_keys=OFF; PRAGMA temp_store=MEMORY;"
    ))?;
    Ok(conn)
}

/// Plans depend on no bound value. Else SQLite compiles a statement anew each time another value is bound that a plan might
/// profit from (a `LIMIT`, a column of a partial index): twenty times what running it costs.
fn plan_once(conn: &Connection) -> Result<(), rusqlite::Error> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}
