//! The line in front of the writer: three lanes, so that a flood of submits never makes a lease expire.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;

use super::tx::Tx;
use crate::Error;

/// Operations other than submits that may wait at once; further callers wait before they enter the line.
const MAX_WAITING_OTHERS: usize = 1024;

/// Which operations go first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Results, renewals, cancels, claims, and all small things.
    First,
    /// New jobs.
    Submit,
    /// Expiry and retention: one operation a batch.
    Sweep,
}

/// Whether the caller's answer waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// The answer follows an fsync.
    ForDisk,
    /// The answer follows a COMMIT that survives kill -9; the next fsync makes it durable.
    RideAlong,
}

/// One operation on its way through the writer.
pub(super) trait Op: Send {
    fn lane(&self) -> Lane;
    fn wait(&self) -> Wait;
    /// About how much it writes.
    fn bytes(&self) -> usize;
    /// Does it, inside a savepoint; `false`: undo the savepoint.
    fn run(&mut self, tx: &Tx<'_>) -> bool;
    /// Tells the caller: what `run` returned, or that the commit failed.
    fn reply(self: Box<Self>, commit: Result<(), Error>);
}

/// The line.
pub(super) struct Queue {
    lanes: Mutex<Lanes>,
    ready: Condvar,
    others: Semaphore,
    max_submits: usize,
}

#[derive(Default)]
struct Lanes {
    first: VecDeque<Box<dyn Op>>,
    submits: VecDeque<Box<dyn Op>>,
    sweeps: VecDeque<Box<dyn Op>>,
    waiting_for_disk: usize,
    closed: bool,
}

/// What the writer finds.
pub(super) enum Next {
    /// There is work; `wait` is [`Wait::ForDisk`] if any of it is.
    Work(Wait),
    /// Nothing came for the given time.
    Idle,
    /// Closed and empty.
    Closed,
}

impl Queue {
    pub(super) fn new(max_submits: usize) -> Self {
        Queue {
            lanes: Mutex::default(),
            ready: Condvar::new(),
            others: Semaphore::new(MAX_WAITING_OTHERS),
            max_submits,
        }
    }

    /// Puts an operation into its lane.
    pub(super) async fn push(&self, op: Box<dyn Op>) -> Result<(), Error> {
        if op.lane() != Lane::Submit {
            let permit = self.others.acquire().await.map_err(|_| Error::Closed)?;
            // Given back when the operation leaves the line.
            permit.forget();
        }
        let mut lanes = self.lock();
        if lanes.closed {
            return Err(Error::Closed);
        }
        if op.lane() == Lane::Submit && lanes.submits.len() >= self.max_submits {
            return Err(Error::Busy);
        }
        if op.wait() == Wait::ForDisk {
            lanes.waiting_for_disk += 1;
        }
        match op.lane() {
            Lane::First => lanes.first.push_back(op),
            Lane::Submit => lanes.submits.push_back(op),
            Lane::Sweep => lanes.sweeps.push_back(op),
        }
        drop(lanes);
        self.ready.notify_one();
        Ok(())
    }

    /// Waits for work, at most `patience`.
    pub(super) fn wait(&self, patience: Duration) -> Next {
        let lanes = self.lock();
        let (lanes, _) = self
            .ready
            .wait_timeout_while(lanes, patience, |lanes| lanes.is_empty() && !lanes.closed)
            .unwrap_or_else(PoisonError::into_inner);
        if !lanes.is_empty() {
            Next::Work(if lanes.waiting_for_disk > 0 {
                Wait::ForDisk
            } else {
                Wait::RideAlong
            })
        } else if lanes.closed {
            Next::Closed
        } else {
            Next::Idle
        }
    }

    /// The next operation for a batch of this kind: a batch that does not sync takes none that waits for the disk.
    pub(super) fn pop(&self, batch: Wait, sweep_taken: bool) -> Option<Box<dyn Op>> {
        let mut lanes = self.lock();
        let Lanes {
            first,
            submits,
            sweeps,
            waiting_for_disk,
            ..
        } = &mut *lanes;
        let fits = |lane: &VecDeque<Box<dyn Op>>| {
            lane.front()
                .is_some_and(|op| batch == Wait::ForDisk || op.wait() == Wait::RideAlong)
        };
        let op = if fits(first) {
            first.pop_front()
        } else if fits(submits) {
            submits.pop_front()
        } else if !sweep_taken && fits(sweeps) {
            sweeps.pop_front()
        } else {
            None
        }?;
        if op.wait() == Wait::ForDisk {
            *waiting_for_disk -= 1;
        }
        if op.lane() != Lane::Submit {
            self.others.add_permits(1);
        }
        Some(op)
    }

    /// Takes no more; what is in the line is still done.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.others.close();
        self.ready.notify_all();
    }

    /// Closes and drops what waits: its callers get [`Error::Closed`].
    pub(super) fn abandon(&self) {
        self.close();
        let dropped = std::mem::take(&mut *self.lock());
        self.lock().closed = true;
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.submits.is_empty() && self.sweeps.is_empty()
    }
}
