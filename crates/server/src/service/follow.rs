//! Following a job: its durable events from any point, its ephemeral ones as they happen, then its end.
//!
//! One order for everybody: an ephemeral event carries the number of the durable one before it, and a follower shows
//! durable events up to that number first.

use std::{sync::Arc, time::Duration};

use darkroom_core::{JobId, event::Event};
pub use darkroom_runner::link::Ephemeral;
use darkroom_store::{
    Topic,
    jobs::JobRecord,
    wake::{EndSubscription, Subscription},
};
use tokio::sync::broadcast::error::RecvError;

use super::{
    Error, Service,
    hub::{Listener, Live},
};

/// Durable events read at once.
const READ_AHEAD: u32 = 500;
/// A follower's read is tried this often, a second apart, before its caller hears of it.
const READ_TRIES: u32 = 10;
const READ_AGAIN: Duration = Duration::from_secs(1);

/// What a follower sees.
#[derive(Debug)]
pub enum Step {
    /// A durable event.
    Event(Event),
    /// An ephemeral one.
    Ephemeral(Ephemeral),
    /// Somebody asked for the end of the job while it runs; once, after the events that were there then.
    Cancelling,
    /// The job is in a final state and every durable event was shown.
    End(Box<JobRecord>),
}

/// A position in one job's events.
pub struct Follower {
    service: Service,
    job: JobId,
    woken: Subscription,
    live: Option<Listener>,
    seen: u64,
    ready: std::collections::VecDeque<Event>,
    held: Option<Live>,
    stale: bool,
    /// As the last read found it, of a job that had not ended.
    cancelling: bool,
    told_of_cancel: bool,
}

/// A job's end, to be waited for.
pub struct Ending {
    service: Service,
    job: JobId,
    told: EndSubscription,
    may_be_over: bool,
}

impl Ending {
    /// Whose.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Waits for it. Cancel-safe.
    ///
    /// # Errors
    /// When the job does not exist any more, or the store fails.
    pub async fn wait(&mut self) -> Result<JobRecord, Error> {
        loop {
            if !self.may_be_over {
                let told = self.told.ended().await;
                if let Some(record) = told.filter(|record| record.state.is_final()) {
                    self.may_be_over = true;
                    return Ok(Arc::unwrap_or_clone(record));
                }
                self.may_be_over = true;
            }
            let record = self.service.job_patiently(self.job).await?;
            if record.state.is_final() {
                return Ok(record);
            }
            // It was queued again, or had not ended when the wait began.
            self.may_be_over = false;
        }
    }
}

impl Service {
    /// Follows a job from after its durable event number `after` (0: from the start).
    pub fn follow(&self, job: JobId, after: u64) -> Follower {
        Follower {
            service: self.clone(),
            job,
            // Interest is registered before anything is read, so that nothing falls between.
            woken: self.store.subscribe(Topic::Job(job)),
            live: Some(self.hub.follow(job)),
            seen: after,
            ready: std::collections::VecDeque::new(),
            held: None,
            stale: true,
            cancelling: false,
            told_of_cancel: false,
        }
    }

    /// Waits for a job's end.
    ///
    /// # Errors
    /// When the job does not exist (any more), or the store fails.
    pub async fn wait_final(&self, job: JobId) -> Result<JobRecord, Error> {
        self.ending(job).wait().await
    }

    /// The end of a job.
    pub fn ending(&self, job: JobId) -> Ending {
        Ending {
            may_be_over: true,
            ..self.ending_of_new(job)
        }
    }

    /// The end of a job that is not accepted yet: who asks before it is need not look whether it is over.
    pub(in crate::service) fn ending_of_new(&self, job: JobId) -> Ending {
        Ending {
            service: self.clone(),
            job,
            told: self.store.subscribe_end(job),
            may_be_over: false,
        }
    }

    /// A job that somebody waits for.
    async fn job_patiently(&self, job: JobId) -> Result<JobRecord, Error> {
        let found = patiently(job, || self.store.job(None, job)).await?;
        found.ok_or_else(|| Error::not_found("job", job))
    }
}

/// Reads for somebody who waits: a store that fails once must not end a wait of minutes.
async fn patiently<T, R>(job: JobId, read: impl Fn() -> R) -> Result<T, darkroom_store::Error>
where
    R: Future<Output = Result<T, darkroom_store::Error>>,
{
    let mut tries = 1;
    loop {
        match read().await {
            Err(error @ darkroom_store::Error::Driver(_)) if tries < READ_TRIES => {
                tracing::warn!(job.id = %job, error = ?error, "a followed job could not be read; trying again");
                tokio::time::sleep(READ_AGAIN).await;
                tries += 1;
            }
            other => return other,
        }
    }
}

impl Follower {
    /// The next thing to show; cancel-safe. After [`Step::End`] it must not be called again.
    ///
    /// # Errors
    /// When the job does not exist (any more), or the store fails.
    pub async fn next(&mut self) -> Result<Step, Error> {
        loop {
            if let Some(step) = self.next_known() {
                return Ok(step);
            }
            if self.stale {
                // The state is read before the events: once it is final, no event of this run can follow.
                let record = self.service.job_patiently(self.job).await?;
                let (job, seen, store) = (self.job, self.seen, &self.service.store);
                let events = patiently(job, || store.events(job, seen, READ_AHEAD)).await?;
                let drained = events.len() < READ_AHEAD as usize;
                self.ready.extend(events);
                if drained {
                    self.stale = false;
                    if record.state.is_final() && self.ready.is_empty() {
                        return Ok(Step::End(Box::new(record)));
                    }
                    // A final state is found again once the events it ended with were shown.
                    self.stale = record.state.is_final();
                    self.cancelling = record.cancel_requested && !self.stale;
                    // One that runs again after its end may be cancelled again.
                    self.told_of_cancel &= record.cancel_requested;
                }
                continue;
            }
            // Nothing is left to show that happened before.
            if self.cancelling && !std::mem::replace(&mut self.told_of_cancel, true) {
                return Ok(Step::Cancelling);
            }
            tokio::select! {
                () = self.woken.woken() => self.stale = true,
                live = receive(&mut self.live) => match live {
                    Ok(live) => self.hold(live),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => self.live = None,
                },
            }
        }
    }

    /// From after a durable event that its caller knows; before anything was shown.
    pub(in crate::service) fn skip_to(&mut self, seen: u64) {
        self.seen = seen;
    }

    /// Whose events these are.
    pub fn job(&self) -> JobId {
        self.job
    }

    /// Takes what was said already. What an instance said before a durable event is here when that event can be read, so
    /// that nothing changes places and nothing is left over at the end.
    fn hear(&mut self) {
        while self.held.is_none()
            && let Some(live) = self.live.as_mut().and_then(Listener::heard)
        {
            self.hold(live);
        }
    }

    fn hold(&mut self, live: Live) {
        if live.after > self.seen {
            self.stale = true;
        }
        self.held = Some(live);
    }

    /// What can be shown without asking the store.
    fn next_known(&mut self) -> Option<Step> {
        self.hear();
        if let Some(held) = &self.held {
            let due = held.after <= self.seen && self.ready.front().is_none_or(|e| e.seq > held.after);
            // An event it waits for that will never come (dropped by the cap) must not hold it up for ever.
            let never = !self.stale && self.ready.is_empty();
            if due || never {
                return self.held.take().map(|live| Step::Ephemeral(live.what));
            }
        }
        let event = self.ready.pop_front()?;
        self.seen = event.seq;
        Some(Step::Event(event))
    }
}

async fn receive(live: &mut Option<Listener>) -> Result<Live, RecvError> {
    match live {
        Some(live) => live.recv().await,
        None => std::future::pending().await,
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.live = None;
        self.service.hub.release(self.job);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    fn failed() -> darkroom_store::Error {
        darkroom_store::Error::Driver("interrupted".into())
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_fails_once_is_tried_again_and_not_for_ever() {
        let job = JobId::from_uuid(uuid::Uuid::from_u128(7));
        let tries = AtomicU32::new(0);
        let flaky = || {
            let n = tries.fetch_add(1, Ordering::SeqCst);
            std::future::ready(if n == 0 { Err(failed()) } else { Ok(n) })
        };
        assert_eq!(patiently(job, flaky).await.unwrap(), 1);
        let tries = AtomicU32::new(0);
        let broken = || {
            tries.fetch_add(1, Ordering::SeqCst);
            std::future::ready(Err::<(), _>(failed()))
        };
        assert!(patiently(job, broken).await.is_err());
        assert_eq!(tries.into_inner(), READ_TRIES);
        // What trying again cannot mend is said at once.
        let closed = || std::future::ready(Err::<(), _>(darkroom_store::Error::Closed));
        assert!(patiently(job, closed).await.is_err());
    }
}
