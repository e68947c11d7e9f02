//! A bound on the memory that requests take while they are read and worked on: bytes are permits, and who finds none
//! within a moment is told to come again.
//!
//! Small bodies, large bodies that are being read, and large bodies that are being worked on have budgets of their own, so
//! that small requests never wait behind large ones, nor finished bodies behind slow senders. A body only ever waits for
//! the next of these while it holds the one before, never the other way round, so nobody waits for ever.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::beside::IN_PLACE_BYTES;

/// `[server] body_memory` by default, in bytes: an eighth (64 MiB) for small bodies, half (256 MiB) for large ones on their
/// way in, eight of the largest that the Serverless API takes (32 MiB), and the rest (192 MiB) for the work on them, two
/// of the largest at a time, about as many as there are processors on a small machine.
pub const DEFAULT_BODY_MEMORY: u64 = 512 << 20;
/// Less would not even let one picture in.
pub const LEAST_BODY_MEMORY: u64 = 8 << 20;

/// Bodies up to this are small, in bytes.
const SMALL_BYTES: u64 = IN_PLACE_BYTES as u64;
/// What the work on a body takes beside the body itself, as a multiple of it: its JSON tree (1; the texts in it are what is
/// large), the graph made of it (1), and then, when the tree is gone, decoded files (3/4) or the body that is stored (1).
const WORK_FACTOR: u64 = 3;
/// WebSockets that were accepted and have not sent their workflow yet. Their first frame gathers out of our sight, so in
/// the worst case these take 32 times 32 MiB beside the budget; all of them belong to callers that may submit.
const WAITING_SOCKETS: u64 = 32;
/// How long somebody waits for memory: less than a client's own patience, longer than the work on a large body takes.
const PATIENCE: Duration = Duration::from_secs(5);
/// And how long those who did not get it should stay away.
pub const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Permits are kibibytes.
const UNIT: u64 = 1024;

/// No memory could be had in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server is busy with other large requests; try again")]
pub struct Exhausted;

/// Memory that is accounted for; given back when dropped.
#[derive(Debug, Default)]
pub struct Held(Vec<OwnedSemaphorePermit>);

/// A number of bytes that may be held at a time. First come, first served.
#[derive(Debug, Clone)]
pub struct Budget {
    permits: Arc<Semaphore>,
    units: u32,
    patience: Duration,
}

impl Budget {
    /// Of so many bytes.
    pub fn new(bytes: u64) -> Self {
        let units = u32::try_from(bytes.div_ceil(UNIT).max(1)).unwrap_or(u32::MAX);
        Budget {
            permits: Arc::new(Semaphore::new(units as usize)),
            units,
            patience: PATIENCE,
        }
    }

    /// Holds so many bytes; more than there are is all of them.
    ///
    /// # Errors
    /// [`Exhausted`] after a moment.
    pub async fn hold(&self, bytes: u64) -> Result<Held, Exhausted> {
        let units = u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX);
        let permits = self.permits.clone().acquire_many_owned(units.min(self.units));
        match tokio::time::timeout(self.patience, permits).await {
            Ok(Ok(permit)) => Ok(Held(vec![permit])),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => Err(Exhausted),
        }
    }
}

/// The budgets of bodies; cheap to clone.
#[derive(Debug, Clone)]
pub struct BodyMemory {
    small: Budget,
    reading: Budget,
    working: Budget,
    sockets: Budget,
}

impl BodyMemory {
    /// Of so many bytes in all.
    pub fn new(bytes: u64) -> Self {
        BodyMemory {
            small: Budget::new(bytes / 8),
            reading: Budget::new(bytes / 2),
            working: Budget::new(bytes / 8 * 3),
            sockets: Budget::new(WAITING_SOCKETS * UNIT),
        }
    }

    /// For a body of at most so many bytes on its way in.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub async fn read(&self, bytes: u64) -> Result<Held, Exhausted> {
        match bytes <= SMALL_BYTES {
            true => self.small.hold(bytes * (1 + WORK_FACTOR)).await,
            false => self.reading.hold(bytes).await,
        }
    }

    /// For the work on a body of so many bytes that was read, beside what it held on its way in.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub async fn work(&self, mut read: Held, bytes: u64) -> Result<Held, Exhausted> {
        if bytes > SMALL_BYTES {
            read.0.extend(self.working.hold(bytes * WORK_FACTOR).await?.0);
        }
        Ok(read)
    }

    /// For a socket whose first frame has not come.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub async fn socket(&self) -> Result<Held, Exhausted> {
        self.sockets.hold(UNIT).await
    }

    /// Whether a body of so many bytes counts as small.
    pub fn is_small(bytes: u64) -> bool {
        bytes <= SMALL_BYTES
    }

    /// The largest body that counts as small, in bytes.
    pub const fn small_bytes() -> u64 {
        SMALL_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// One that gives up at once.
    fn hasty(bytes: u64) -> BodyMemory {
        let mut memory = BodyMemory::new(bytes);
        for budget in [&mut memory.small, &mut memory.reading, &mut memory.working] {
            budget.patience = Duration::from_millis(20);
        }
        memory
    }

    #[tokio::test]
    async fn small_bodies_never_wait_behind_large_ones() {
        let memory = BodyMemory::new(16 * MIB);
        let _reading = memory.read(8 * MIB).await.unwrap();
        let mut waits = std::pin::pin!(memory.read(MIB));
        assert!(futures::poll!(waits.as_mut()).is_pending());
        for bytes in [0, 1, 1000, SMALL_BYTES] {
            let small = futures::poll!(std::pin::pin!(memory.read(bytes)));
            assert!(matches!(small, std::task::Poll::Ready(Ok(_))), "{bytes}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_had_is_refused_and_what_is_given_back_can_be_had() {
        let memory = hasty(16 * MIB);
        let first = memory.read(5 * MIB).await.unwrap();
        assert!(memory.read(5 * MIB).await.is_err());
        let second = memory.read(3 * MIB).await.unwrap();
        let working = memory.work(first, 5 * MIB).await.unwrap();
        assert!(
            memory.work(second, 3 * MIB).await.is_err(),
            "three times five take all"
        );
        assert!(
            memory.read(5 * MIB).await.is_err(),
            "a body is held while it is worked on"
        );
        drop(working);
        // More than there is takes all there is.
        let all = memory.read(1000 * MIB).await.unwrap();
        assert!(memory.read(MIB).await.is_err());
        drop(all);
        memory.read(8 * MIB).await.unwrap();
    }
}
