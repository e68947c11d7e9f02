//! The one thread that writes: takes what waits, runs it in one transaction, commits, answers.
//!
//! Group commit: what waits when a batch begins goes with it, and nobody waits for company. A commit only writes the log,
//! which survives the death of the process: who rides along is answered then, and waiting slots hear of new jobs. Whoever
//! waits for the disk is answered by the [`Syncer`], which syncs while the next batch is written. An operation that fails
//! undoes only itself: if it wrote anything, the batch is undone and run again with a savepoint around each, which nearly
//! never happens and so costs nothing.

use std::{path::PathBuf, sync::Arc, time::Duration};

use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use super::{
    checkpoint::Checkpointer,
    hub::{End, Hub},
    jobs::read,
    options::{Committed, Durability, Options},
    queue::{Failed, Lane, Next, Op, Queue, Wait},
    syncer::{Syncer, Written},
    tx::{Batch, Tx},
    watermark::Watermark,
};
use crate::{Error, wake::Topic};

/// Bounds of a batch: what waits behind it waits at most about this long before its own begins.
const MAX_BATCH_OPS: usize = 256;
const MAX_BATCH_BYTES: usize = 4 * 1024 * 1024;
const MAX_BATCH_TIME: Duration = Duration::from_millis(5);
/// An undone batch whose second run another process keeps from beginning is given up after so many tries.
const MAX_TRIES_AGAIN: u32 = 60;
/// Without work for this long, the log is folded into the database and the page cache is given back.
const IDLE_AFTER: Duration = Duration::from_secs(2);

/// Everything the writer's thread owns.
pub(super) struct Writer {
    pub(super) conn: Connection,
    pub(super) queue: Arc<Queue>,
    pub(super) syncer: Arc<Syncer>,
    pub(super) watermark: Arc<Watermark>,
    pub(super) hub: Arc<Hub>,
    pub(super) options: Options,
    pub(super) file: PathBuf,
    pub(super) checkpointer: Checkpointer,
}

/// Why the writer cannot go on.
struct Broken;

/// How what a failed operation wrote is undone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Undo {
    /// With the whole batch, which is then run again.
    Batch,
    /// Alone.
    Operation,
}

fn undone(code: i32) -> rusqlite::Error {
    let what = "the whole transaction was undone".to_owned();
    rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), Some(what))
}

impl Writer {
    /// Works until the queue is closed and empty.
    pub(super) fn run(mut self) {
        // Whatever ends this thread, also a panic, no caller may wait for ever. What is in the log is still synced.
        struct Abandon(Arc<Queue>, Arc<Syncer>);
        impl Drop for Abandon {
            fn drop(&mut self) {
                self.0.abandon();
                self.1.close();
            }
        }
        let _abandon = Abandon(self.queue.clone(), self.syncer.clone());

        let mut rested = true;
        loop {
            match self.queue.wait(IDLE_AFTER) {
                Next::Work => {}
                Next::Idle => {
                    if !rested {
                        self.rest(Checkpointer::fold);
                        rested = true;
                    }
                    continue;
                }
                Next::Closed => break,
            }
            rested = false;
            if let Err(Broken) = self.batch() {
                return;
            }
            if let Err(error) = self.checkpointer.after_batch(&self.conn) {
                self.fatal("the log could not be folded into the database", &error);
                return;
            }
        }
        self.rest(Checkpointer::truncate);
    }

    fn batch(&mut self) -> Result<(), Broken> {
        match self.run_cached("BEGIN IMMEDIATE") {
            Ok(()) => {}
            // Another process (an offline command) writes: what waits goes on waiting.
            Err(error) if is_busy(&error) => return Ok(()),
            Err(error) => return Err(self.fatal("no transaction could be begun", &error)),
        }
        let mut batch = Batch::default();
        let mut undo = Undo::Batch;
        let started = self.options.clock.monotonic();
        let mut done: Vec<Box<dyn Op>> = Vec::new();
        let mut bytes = 0;
        while done.len() < MAX_BATCH_OPS
            && bytes < MAX_BATCH_BYTES
            && self.options.clock.monotonic().saturating_sub(started) < MAX_BATCH_TIME
        {
            let Some(op) = self.queue.pop() else {
                break;
            };
            bytes += op.bytes();
            done.push(op);
            if let Err(error) = self.run_last(&mut done, &mut batch, &mut undo) {
                // SQLite rolled the whole transaction back (disk full), or cannot undo a part of it.
                return self.give_up(done, error);
            }
        }
        // On top of the bounds, which a flood reaches in every batch.
        let more = [self.queue.pop_submit(), self.queue.pop_sweep()];
        let mut more = more.into_iter().flatten();
        while let Some(op) = more.next() {
            done.push(op);
            if let Err(error) = self.run_last(&mut done, &mut batch, &mut undo) {
                done.extend(more);
                return self.give_up(done, error);
            }
        }
        let ends = self.read_ends(&batch);
        self.failpoint("before_commit");
        let waits = self.options.durability == Durability::Promised
            && done.iter().any(|op| op.wait() == Wait::ForDisk);
        let number = waits.then(|| self.watermark.write());
        let began = self.options.clock.monotonic();
        let committed = self.run_cached("COMMIT");
        let took = self.options.clock.monotonic().saturating_sub(began);
        if let Err(error) = committed {
            if let Some(number) = number {
                // Readers that came meanwhile wait for that number.
                self.syncer.push(Written {
                    number,
                    done: vec![],
                    wakes: vec![],
                    ends: vec![],
                    commit: None,
                    began,
                });
            }
            return self.give_up(done, error);
        }
        let commit = Committed {
            operations: done.len(),
            took,
            durable: waits,
            ended: batch.ended.take(),
        };
        let mut wakes = batch.wakes.take();
        self.failpoint("commit_reply");
        if let Some(number) = number {
            let (done, riding) = done.into_iter().partition(|op| op.wait() == Wait::ForDisk);
            answer(riding);
            // A slot may begin while the disk is at work: if the machine dies now, nobody was told of the job.
            let early = |topic: &mut Topic| matches!(topic, Topic::Queue(_));
            self.hub.wake(wakes.extract_if(.., early));
            self.syncer.push(Written {
                number,
                done,
                wakes,
                ends,
                commit: Some(commit),
                began,
            });
        } else {
            if let Some(on_commit) = &self.options.on_commit {
                on_commit(commit);
            }
            answer(done);
            self.hub.ended(ends);
            self.hub.wake(wakes);
        }
        Ok(())
    }

    /// The jobs that ended, as whoever waits for them will find them: here they are at hand, and who waits need not read.
    fn read_ends(&self, batch: &Batch) -> Vec<End> {
        let read = |job| {
            let awaited = self.hub.is_awaited(job);
            let record = awaited.then(|| read::job(&self.conn, None, job));
            (job, record.and_then(Result::ok).flatten().map(Arc::new))
        };
        batch.ends.take().into_iter().map(read).collect()
    }

    /// Runs the last of a batch's operations; and all of them again, with care, where it is the first that fails.
    fn run_last(
        &self,
        done: &mut [Box<dyn Op>],
        batch: &mut Batch,
        undo: &mut Undo,
    ) -> Result<(), rusqlite::Error> {
        let Some(last) = done.last_mut() else {
            return Ok(());
        };
        if *undo == Undo::Operation {
            return self.run_with_savepoint(last.as_mut(), batch);
        }
        let (marks, changes) = (batch.marks(), self.conn.total_changes());
        let tx = batch.tx(&self.conn, &self.options, &self.file);
        match last.run(&tx) {
            Ok(()) => return Ok(()),
            Err(Failed(Some(ErrorCode::SystemIoFailure))) => return Err(undone(rusqlite::ffi::SQLITE_IOERR)),
            Err(Failed(_)) => {}
        }
        if !self.conn.is_autocommit() && self.conn.total_changes() == changes {
            // It was refused before it wrote anything: there is nothing to undo.
            batch.forget_since(marks);
            return Ok(());
        }
        *undo = Undo::Operation;
        // SQLite has done so itself when the disk is full.
        if !self.conn.is_autocommit() {
            self.run_cached("ROLLBACK")?;
        }
        // Another process (an offline command) may have come between: each try waits for half a second.
        let mut tries = 1;
        while let Err(error) = self.run_cached("BEGIN IMMEDIATE") {
            if !is_busy(&error) || tries == MAX_TRIES_AGAIN {
                return Err(error);
            }
            tries += 1;
        }
        *batch = Batch::default();
        for op in done {
            self.run_with_savepoint(op.as_mut(), batch)?;
        }
        Ok(())
    }

    fn run_with_savepoint(&self, op: &mut dyn Op, batch: &Batch) -> Result<(), rusqlite::Error> {
        let marks = batch.marks();
        self.run_cached("SAVEPOINT op")?;
        let tx = batch.tx(&self.conn, &self.options, &self.file);
        if let Err(failed) = op.run(&tx) {
            if failed.0 == Some(ErrorCode::SystemIoFailure) {
                return Err(undone(rusqlite::ffi::SQLITE_IOERR));
            }
            if self.conn.is_autocommit() {
                return Err(undone(rusqlite::ffi::SQLITE_FULL));
            }
            self.run_cached("ROLLBACK TO op")?;
            batch.forget_since(marks);
        }
        self.run_cached("RELEASE op")
    }

    fn run_cached(&self, statement: &str) -> Result<(), rusqlite::Error> {
        self.conn.prepare_cached(statement)?.execute([])?;
        Ok(())
    }

    /// The batch could not be committed. Nothing of it was acknowledged; a full disk is told to the callers, anything
    /// else ends the process.
    fn give_up(&mut self, done: Vec<Box<dyn Op>>, error: rusqlite::Error) -> Result<(), Broken> {
        let busy = is_busy(&error);
        if !busy && error.sqlite_error_code() != Some(ErrorCode::DiskFull) {
            return Err(self.fatal("a batch could not be committed", &error));
        }
        if !self.conn.is_autocommit()
            && let Err(error) = self.conn.execute_batch("ROLLBACK")
        {
            return Err(self.fatal("a batch could not be rolled back", &error));
        }
        if busy {
            done.into_iter().for_each(|op| op.reply(Err(Error::Busy)));
            return Ok(());
        }
        let available_bytes = (self.options.free_space)(&self.file).unwrap_or(0);
        tracing::error!(operations = done.len(), available_bytes, "the disk is full");
        for op in done {
            op.reply(Err(Error::DiskFull { available_bytes }));
        }
        Ok(())
    }

    fn rest(&self, tidy: impl Fn(&Checkpointer, &Connection) -> Result<(), rusqlite::Error>) {
        if let Err(error) = tidy(&self.checkpointer, &self.conn) {
            self.fatal("the log could not be folded into the database", &error);
        }
        if let Err(error) = self.conn.execute_batch("PRAGMA shrink_memory") {
            tracing::warn!(%error, "the page cache could not be given back");
        }
    }

    fn fatal(&self, what: &str, error: &rusqlite::Error) -> Broken {
        tracing::error!(%error, what, "the store's writer failed");
        (self.options.fatal)(&format!("{what}: {error}"));
        Broken
    }

    fn failpoint(&self, name: &'static str) {
        if let Some(failpoint) = &self.options.failpoint {
            failpoint(name);
        }
    }
}

fn is_busy(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

fn answer(done: Vec<Box<dyn Op>>) {
    for op in done {
        op.reply(Ok(()));
    }
}

/// An operation made of a closure, and where its answer goes.
pub(super) struct Closure<T, F> {
    pub(super) lane: Lane,
    pub(super) wait: Wait,
    pub(super) bytes: usize,
    pub(super) work: F,
    pub(super) outcome: Option<Result<T, Error>>,
    pub(super) answer: oneshot::Sender<Result<T, Error>>,
}

impl<T, F> Op for Closure<T, F>
where
    T: Send,
    F: Fn(&Tx<'_>) -> Result<T, Error> + Send,
{
    fn lane(&self) -> Lane {
        self.lane
    }

    fn wait(&self) -> Wait {
        self.wait
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn run(&mut self, tx: &Tx<'_>) -> Result<(), Failed> {
        let outcome = (self.work)(tx);
        let told = match &outcome {
            Ok(_) => Ok(()),
            Err(Error::DiskFull { .. }) => Err(Failed(Some(ErrorCode::DiskFull))),
            Err(Error::Driver(error)) => {
                let error = error.downcast_ref::<rusqlite::Error>();
                Err(Failed(error.and_then(rusqlite::Error::sqlite_error_code)))
            }
            Err(Error::Busy | Error::Closed | Error::NewerSchema { .. } | Error::Inconsistent { .. }) => {
                Err(Failed(None))
            }
        };
        self.outcome = Some(outcome);
        told
    }

    fn reply(self: Box<Self>, commit: Result<(), Error>) {
        let Closure { outcome, answer, .. } = *self;
        let outcome = commit.and_then(|()| outcome.unwrap_or(Err(Error::Closed)));
        // The caller may have gone; what was done stays done.
        let _ = answer.send(outcome);
    }
}
