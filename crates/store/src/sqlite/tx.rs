//! What an operation sees of the transaction it runs in.

use std::{
    cell::{Cell, RefCell},
    path::PathBuf,
};

use darkroom_core::{JobId, Timestamp};
use rusqlite::Connection;

use super::options::{Ended, Options};
use crate::{Error, wake::Topic};

/// The batch's transaction, as one operation sees it.
pub(super) struct Tx<'a> {
    /// The writer's connection.
    pub(super) conn: &'a Connection,
    /// The store's now, read once for the operation.
    pub(super) now: Timestamp,
    options: &'a Options,
    file: &'a PathBuf,
    free: &'a Cell<Option<u64>>,
    wakes: &'a RefCell<Vec<Topic>>,
    ends: &'a RefCell<Vec<JobId>>,
    ended: &'a RefCell<Vec<Ended>>,
}

/// What lives as long as the batch.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) wakes: RefCell<Vec<Topic>>,
    pub(super) ends: RefCell<Vec<JobId>>,
    pub(super) ended: RefCell<Vec<Ended>>,
    free: Cell<Option<u64>>,
}

/// How much a batch had to tell at some point.
#[derive(Clone, Copy)]
pub(super) struct Marks {
    wakes: usize,
    ends: usize,
    ended: usize,
}

impl Batch {
    /// How much there is to tell now.
    pub(super) fn marks(&self) -> Marks {
        Marks {
            wakes: self.wakes.borrow().len(),
            ends: self.ends.borrow().len(),
            ended: self.ended.borrow().len(),
        }
    }

    /// What was undone is not told.
    pub(super) fn forget_since(&self, marks: Marks) {
        self.wakes.borrow_mut().truncate(marks.wakes);
        self.ends.borrow_mut().truncate(marks.ends);
        self.ended.borrow_mut().truncate(marks.ended);
    }

    pub(super) fn tx<'a>(&'a self, conn: &'a Connection, options: &'a Options, file: &'a PathBuf) -> Tx<'a> {
        Tx {
            conn,
            now: options.clock.now(),
            options,
            file,
            free: &self.free,
            wakes: &self.wakes,
            ends: &self.ends,
            ended: &self.ended,
        }
    }
}

impl Tx<'_> {
    /// Wakes a topic's listeners after COMMIT.
    pub(super) fn wake(&self, topic: Topic) {
        self.wakes.borrow_mut().push(topic);
    }

    /// Tells who waits for a job's end, after COMMIT.
    pub(super) fn tell_end(&self, job: JobId) {
        self.ends.borrow_mut().push(job);
    }

    /// Counts an end, after COMMIT.
    pub(super) fn ended(&self, what: Ended) {
        self.ended.borrow_mut().push(what);
    }

    /// Calls the test's hook, if there is one.
    pub(super) fn failpoint(&self, name: &'static str) {
        if let Some(failpoint) = &self.options.failpoint {
            failpoint(name);
        }
    }

    /// Refuses when the disk reserve is reached. The free space is read once a batch; unreadable counts as enough.
    pub(super) fn check_disk(&self) -> Result<(), Error> {
        let free = self.free.get().unwrap_or_else(|| {
            (self.options.free_space)(self.file).unwrap_or_else(|error| {
                tracing::warn!(%error, "cannot read the free space of the disk");
                u64::MAX
            })
        });
        self.free.set(Some(free));
        if free < self.options.disk_reserve_bytes {
            return Err(Error::DiskFull {
                available_bytes: free,
            });
        }
        Ok(())
    }
}
