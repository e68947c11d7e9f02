//! How far the log is on the disk, so that no reader tells what a power cut could take back.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::sync::watch;

/// A read waits no longer for the disk: with one that hangs, an answer is worth more than its permanence.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Counts the commits that somebody waits for, and which of them are synced.
pub(super) struct Watermark {
    /// Counted up before each COMMIT, so that whoever sees the commit sees the number.
    written: AtomicU64,
    synced: watch::Sender<u64>,
}

impl Default for Watermark {
    fn default() -> Self {
        Watermark {
            written: AtomicU64::new(0),
            synced: watch::Sender::new(0),
        }
    }
}

impl Watermark {
    /// The number of the commit that follows.
    pub(super) fn write(&self) -> u64 {
        self.written.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Everything up to this commit is on the disk.
    pub(super) fn synced(&self, number: u64) {
        self.synced.send_replace(number);
    }

    /// Nothing more will be synced.
    pub(super) fn give_up(&self) {
        self.synced.send_replace(u64::MAX);
    }

    /// Waits until everything that was committed before this call is on the disk.
    pub(super) async fn reached(&self) {
        let written = self.written.load(Ordering::SeqCst);
        if *self.synced.borrow() >= written {
            return;
        }
        let mut synced = self.synced.subscribe();
        // The sender lives as long as this, so that only the time can run out.
        let _ = tokio::time::timeout(MAX_WAIT, synced.wait_for(|synced| *synced >= written)).await;
    }
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Poll};

    use super::*;

    /// Whether a future is ready when it is polled once.
    async fn is_ready(future: impl Future) -> bool {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_ready())).await
    }

    #[tokio::test]
    async fn a_reader_waits_for_what_was_committed_before_it_and_for_nothing_else() {
        let watermark = Watermark::default();
        assert!(is_ready(watermark.reached()).await, "nothing was written");
        let first = watermark.write();
        let mut reader = Box::pin(watermark.reached());
        assert!(!is_ready(reader.as_mut()).await);
        let second = watermark.write();
        watermark.synced(first);
        reader.await;
        assert!(!is_ready(watermark.reached()).await, "the second is not synced");
        watermark.synced(second);
        assert!(is_ready(watermark.reached()).await);
    }

    #[tokio::test(start_paused = true)]
    async fn with_a_disk_that_hangs_readers_are_answered_all_the_same() {
        let watermark = Watermark::default();
        watermark.write();
        watermark.reached().await;
        watermark.give_up();
        assert!(is_ready(watermark.reached()).await);
    }
}
