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
    /// Expiry and retention: one operation in every batch, however full the other lanes are, and never more.
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

/// An operation failed, and what SQLite called that, if it was SQLite.
pub(super) struct Failed(pub(super) Option<rusqlite::ErrorCode>);

/// One operation on its way through the writer.
pub(super) trait Op: Send {
    fn lane(&self) -> Lane;
    fn wait(&self) -> Wait;
    /// About how much it writes.
    fn bytes(&self) -> usize;
    /// Does it; what it wrote is undone when it failed. It may be run a second time, after all that it did was undone.
    fn run(&mut self, tx: &Tx<'_>) -> Result<(), Failed>;
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
    closed: bool,
}

/// What the writer finds.
pub(super) enum Next {
    /// There is work.
    Work,
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
        lanes.lane(op.lane()).push_back(op);
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
            Next::Work
        } else if lanes.closed {
            Next::Closed
        } else {
            Next::Idle
        }
    }

    /// The next operation for a batch, sweeps apart.
    pub(super) fn pop(&self) -> Option<Box<dyn Op>> {
        self.take(&[Lane::First, Lane::Submit])
    }

    /// One submit more than a batch has room for: a flood of what goes first holds submits up, and never stops them.
    pub(super) fn pop_submit(&self) -> Option<Box<dyn Op>> {
        self.take(&[Lane::Submit])
    }

    /// The one sweep of a batch: what takes its turn only when nobody else waits never does in a flood.
    pub(super) fn pop_sweep(&self) -> Option<Box<dyn Op>> {
        self.take(&[Lane::Sweep])
    }

    fn take(&self, from: &[Lane]) -> Option<Box<dyn Op>> {
        let mut lanes = self.lock();
        let op = from.iter().find_map(|lane| lanes.lane(*lane).pop_front())?;
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
        // It stays closed all the while: what was pushed in between would be answered by nobody.
        let closed = Lanes {
            closed: true,
            ..Lanes::default()
        };
        let dropped = std::mem::replace(&mut *self.lock(), closed);
        drop(dropped);
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lanes {
    fn lane(&mut self, lane: Lane) -> &mut VecDeque<Box<dyn Op>> {
        match lane {
            Lane::First => &mut self.first,
            Lane::Submit => &mut self.submits,
            Lane::Sweep => &mut self.sweeps,
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_empty() && self.submits.is_empty() && self.sweeps.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(Lane, Wait, &'static str);

    impl Op for Fake {
        fn lane(&self) -> Lane {
            self.0
        }
        fn wait(&self) -> Wait {
            self.1
        }
        fn bytes(&self) -> usize {
            // Tells the test which one it is.
            self.2.len()
        }
        fn run(&mut self, _: &Tx<'_>) -> Result<(), Failed> {
            Ok(())
        }
        fn reply(self: Box<Self>, _: Result<(), Error>) {}
    }

    async fn push(queue: &Queue, lane: Lane, wait: Wait, name: &'static str) {
        queue.push(Box::new(Fake(lane, wait, name))).await.unwrap();
    }

    fn drain(queue: &Queue) -> Vec<(Lane, usize)> {
        std::iter::from_fn(|| queue.pop())
            .chain(queue.pop_sweep())
            .map(|op| (op.lane(), op.bytes()))
            .collect()
    }

    #[tokio::test]
    async fn results_overtake_submits_and_sweeps_come_last_one_a_batch() {
        let queue = Queue::new(10);
        push(&queue, Lane::Sweep, Wait::ForDisk, "1").await;
        push(&queue, Lane::Sweep, Wait::ForDisk, "12").await;
        push(&queue, Lane::Submit, Wait::ForDisk, "123").await;
        push(&queue, Lane::First, Wait::ForDisk, "1234").await;
        push(&queue, Lane::First, Wait::RideAlong, "12345").await;
        let first = drain(&queue);
        assert_eq!(
            first,
            [
                (Lane::First, 4),
                (Lane::First, 5),
                (Lane::Submit, 3),
                (Lane::Sweep, 1)
            ]
        );
        assert_eq!(drain(&queue), [(Lane::Sweep, 2)]);
        assert!(matches!(queue.wait(Duration::ZERO), Next::Idle));
    }

    #[tokio::test]
    async fn a_closed_queue_takes_nothing_but_gives_what_it_has() {
        let queue = Queue::new(10);
        push(&queue, Lane::Submit, Wait::ForDisk, "1").await;
        queue.close();
        let late = Box::new(Fake(Lane::First, Wait::ForDisk, "2"));
        assert!(matches!(queue.push(late).await, Err(Error::Closed)));
        assert!(matches!(queue.wait(Duration::ZERO), Next::Work));
        assert_eq!(drain(&queue).len(), 1);
        assert!(matches!(queue.wait(Duration::ZERO), Next::Closed));
    }
}
