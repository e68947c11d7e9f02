//! A bound on the memory that requests take while they are read and worked on: bytes are permits, and who finds none
//! within a moment is told to come again.
//!
//! Small bodies, large bodies that are being read, and large bodies that are being worked on have budgets of their own, so
//! that small requests never wait behind large ones, nor finished bodies behind slow senders. A body only ever waits for
//! the next of these while it holds the one before, never the other way round, so nobody waits for ever.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::beside::IN_PLACE_BYTES;

/// `[server] body_memory` by default, in bytes: an eighth (64 MiB) for small bodies, half (256 MiB) for large ones on their
/// way in, eight of the largest that the Serverless API takes (32 MiB), and the rest (192 MiB) for the work on them, two
/// of the largest at a time, about as many as there are processors on a small machine. Beside these, an eighth (64 MiB)
/// for large pieces of answers.
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
pub struct Held {
    kept: Vec<OwnedSemaphorePermit>,
    work: Option<Work>,
}

/// The share for the work on a body; lent back while its request waits for others.
#[derive(Debug)]
struct Work {
    of: Budget,
    bytes: u64,
    held: Option<Box<Held>>,
}

impl Held {
    /// Gives back the share for work: what follows waits for somebody else's server, and others may work meanwhile.
    pub fn rest(&mut self) {
        if let Some(work) = &mut self.work {
            work.held = None;
        }
    }

    /// Takes the share for work again after [`Held::rest`].
    ///
    /// # Errors
    /// [`Exhausted`].
    pub async fn work_on(&mut self) -> Result<(), Exhausted> {
        if let Some(work) = &mut self.work
            && work.held.is_none()
        {
            work.held = Some(Box::new(work.of.hold(work.bytes).await?));
        }
        Ok(())
    }

    fn units(&self) -> usize {
        self.kept.iter().map(OwnedSemaphorePermit::num_permits).sum()
    }
}

/// Bytes that hold their memory as long as anybody has them.
struct Accounted {
    bytes: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Accounted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// Ties memory to the bytes that it is held for.
pub fn accounted(bytes: Bytes, held: Held) -> Bytes {
    Bytes::from_owner(Accounted { bytes, _held: held })
}

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
            Ok(Ok(permit)) => Ok(Held {
                kept: vec![permit],
                work: None,
            }),
            // Nobody closes it.
            Ok(Err(_)) | Err(_) => Err(Exhausted),
        }
    }

    /// What is left of it, in bytes.
    #[cfg(test)]
    pub fn available(&self) -> u64 {
        self.permits.available_permits() as u64 * UNIT
    }

    /// Holds `to` bytes where `held` are held of this budget. Where the rest cannot be had at once, what is held is given
    /// back before waiting: nobody waits for more of what they hold, so nobody waits for ever.
    ///
    /// # Errors
    /// [`Exhausted`] after a moment.
    pub async fn grow(&self, mut held: Held, to: u64) -> Result<Held, Exhausted> {
        let units = u32::try_from(to.div_ceil(UNIT))
            .unwrap_or(u32::MAX)
            .min(self.units);
        let more = (units as usize).saturating_sub(held.units());
        let more = u32::try_from(more).unwrap_or(u32::MAX);
        if let Ok(rest) = self.permits.clone().try_acquire_many_owned(more) {
            held.kept.push(rest);
            return Ok(held);
        }
        drop(held);
        self.hold(to).await
    }
}

/// How much of a body of unknown or merely promised length is accounted for next: twice as much, at least what is there,
/// at most what it may be. A promise costs nothing to make, so only what came takes memory from others.
pub fn next_step(covered: u64, there: u64, most: u64) -> u64 {
    covered.saturating_mul(2).max(there).min(most).max(there)
}

/// The budgets of bodies; cheap to clone.
#[derive(Debug, Clone)]
pub struct BodyMemory {
    small: Budget,
    reading: Budget,
    working: Budget,
    answers: Budget,
    sockets: Budget,
}

impl BodyMemory {
    /// Of so many bytes in all.
    pub fn new(bytes: u64) -> Self {
        BodyMemory {
            small: Budget::new(bytes / 8),
            reading: Budget::new(bytes / 2),
            working: Budget::new(bytes / 8 * 3),
            answers: Budget::new(bytes / 8),
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

    /// The same for a body that turns out to be longer than `from` bytes, which it holds.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub async fn read_on(&self, held: Held, from: u64, to: u64) -> Result<Held, Exhausted> {
        if from <= SMALL_BYTES {
            // Of another budget: given back first.
            drop(held);
            return self.read(to).await;
        }
        self.reading.grow(held, to).await
    }

    /// For the work on a body of so many bytes that was read, beside what it held on its way in.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub async fn work(&self, mut read: Held, bytes: u64) -> Result<Held, Exhausted> {
        if bytes > SMALL_BYTES {
            let bytes = bytes * WORK_FACTOR;
            read.work = Some(Work {
                held: Some(Box::new(self.working.hold(bytes).await?)),
                of: self.working.clone(),
                bytes,
            });
        }
        Ok(read)
    }

    /// For a piece of an answer that is made of so many stored bytes, until it is sent. Who holds one asks for no second one
    /// before it is sent, and who does not read its answer is let go, so nobody waits for ever.
    ///
    /// # Errors
    /// [`Exhausted`].
    pub async fn answer(&self, bytes: u64) -> Result<Held, Exhausted> {
        match bytes <= SMALL_BYTES {
            true => Ok(Held::default()),
            false => self.answers.hold(bytes * WORK_FACTOR).await,
        }
    }

    /// What is left for answers, in bytes.
    #[cfg(test)]
    pub fn left_for_answers(&self) -> u64 {
        self.answers.available()
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
    async fn pieces_of_answers_have_a_budget_of_their_own_and_small_ones_take_none() {
        let mut memory = hasty(64 * MIB);
        memory.answers.patience = Duration::from_millis(20);
        let _first = memory.answer(2 * MIB).await.unwrap();
        assert!(memory.answer(2 * MIB).await.is_err(), "three times four of eight");
        memory.answer(SMALL_BYTES).await.unwrap();
        memory.read(32 * MIB).await.unwrap();
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
