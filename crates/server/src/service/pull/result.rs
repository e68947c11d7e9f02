//! The way back: results, intermediate output and chunks, under the fence of the attempt that the worker holds.
//!
//! The wire carries no attempt, only worker and job: what does not come from the holder is told from what never was its
//! own, and neither counts. The first result wins; a duplicate is normal, since an answer may be lost on its way.

use std::sync::Arc;

use bytes::Bytes;
use darkroom_core::{
    AttemptOutcome, BlobKey, Failure, JobId, Payload,
    attempt::Lease,
    event::{EventKind, MAX_CHUNK_BYTES_PER_ATTEMPT, MAX_CHUNKS_PER_ATTEMPT},
    failure::FailureCode,
    payload::INLINE_MAX_BYTES,
    presence::Heard,
};
use darkroom_runner::link::Ephemeral;
use darkroom_store::jobs::Finish;
use serde_json::{Value, value::RawValue};

use super::Worker;
use crate::service::{
    Error, Service,
    hub::Live,
    workers::{progress, result::failure_of},
};

/// A longer error is cut: it lies in the job's row, in bytes.
const ERROR_BYTES: usize = 24 * 1024;
/// What one attempt may yield in all, in bytes: chunks are kept as long as their job.
const MAX_YIELDED_BYTES: u64 = 2_000_000_000;

/// What a worker posted as its result.
#[derive(Debug, Default)]
pub struct Posted {
    /// JSON text of the handler's output, if it made one.
    pub output: Option<Bytes>,
    /// What it reported as an error; a job with one has failed.
    pub error: Option<Value>,
    /// It wants to be replaced.
    pub wears_out: bool,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Received {
    /// It counts.
    Recorded,
    /// It was the worker's once and is not any more: it ended, or was given to another. Nothing changed.
    TooLate,
    /// It never was the worker's.
    NotTheirs,
    /// There is no such job at the worker's endpoint.
    Unknown,
}

impl Service {
    /// Takes the result of a job from a worker; durable when this returns.
    ///
    /// # Errors
    /// When a store fails: the worker should try again.
    pub async fn worker_result(
        &self,
        worker: &Arc<Worker>,
        job: JobId,
        posted: Posted,
    ) -> Result<Received, Error> {
        worker.hear(&Heard::Sign, self.clock.now(), self.clock.monotonic());
        if posted.wears_out {
            self.replace_worker(worker).await?;
        }
        let Some(lease) = worker.lease_of(job) else {
            // It may have gone on with a job that we ended; now it is done with that.
            worker.is_done_with_ended(job, self.clock.now());
            return self.without_lease(worker, job).await;
        };
        let result = match posted.output {
            Some(json) => {
                // It may be posted twice at the same time; what was recorded must stay what it is.
                let name = format!("result-{}-{}.json", lease.fence, self.ids.uuid_v4().simple());
                Some(self.place(BlobKey::job_part(job, &name), json).await?)
            }
            None => None,
        };
        let outcome = match posted.error {
            Some(error) => AttemptOutcome::Failed(failure_of(shortened(error))),
            None => AttemptOutcome::Done,
        };
        self.reach("before_record");
        let finish = Finish {
            outcome,
            outputs: vec![],
            result,
            events: vec![],
        };
        let finished = self.store.finish(lease, finish).await?;
        self.reach("recorded");
        worker.is_done_with(lease, self.clock.now());
        self.hub.attempt_ended(lease);
        Ok(match finished {
            Ok(_) => Received::Recorded,
            Err(_) => Received::TooLate,
        })
    }

    /// Ends a job whose worker posted a result that cannot be kept.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn worker_failed(&self, worker: &Arc<Worker>, job: JobId, what: String) -> Result<(), Error> {
        match self.fail(worker, job, what).await? {
            Some(lease) => worker.is_done_with(lease, self.clock.now()),
            None => worker.is_done_with_ended(job, self.clock.now()),
        }
        Ok(())
    }

    /// Ends a job whose worker sent something on the way that cannot be kept; it goes on with it for a while.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn worker_failed_midway(
        &self,
        worker: &Arc<Worker>,
        job: JobId,
        what: String,
    ) -> Result<(), Error> {
        if let Some(lease) = self.fail(worker, job, what).await? {
            worker.goes_on_with(lease, self.clock.monotonic() + super::take::HOLD);
        }
        Ok(())
    }

    /// The lease under which it was held, if it was.
    async fn fail(&self, worker: &Arc<Worker>, job: JobId, what: String) -> Result<Option<Lease>, Error> {
        let Some(lease) = worker.lease_of(job) else {
            return Ok(None);
        };
        let finish = Finish {
            outcome: AttemptOutcome::Failed(Failure::new(FailureCode::ExecutionError, what)),
            outputs: vec![],
            result: None,
            events: vec![],
        };
        let _ = self.store.finish(lease, finish).await?;
        self.hub.attempt_ended(lease);
        Ok(Some(lease))
    }

    /// Shows what a handler says before its end. After the end it says nothing.
    pub fn worker_progress(&self, worker: &Worker, job: JobId, output: &RawValue) {
        worker.hear(&Heard::Sign, self.clock.now(), self.clock.monotonic());
        let Some(lease) = worker.lease_of(job) else { return };
        let after = worker.change_held(lease, |held| held.last_event).unwrap_or(0);
        self.metrics.ephemeral_events(1);
        let what = Ephemeral::Message(progress::message(output));
        self.hub.publish(job, Live { after, what });
    }

    /// Keeps what a generator yielded, JSON text; durable when this returns.
    ///
    /// # Errors
    /// When a store fails: the worker should try again.
    pub async fn worker_chunk(
        &self,
        worker: &Arc<Worker>,
        job: JobId,
        output: Bytes,
    ) -> Result<Received, Error> {
        worker.hear(&Heard::Sign, self.clock.now(), self.clock.monotonic());
        let Some(lease) = worker.lease_of(job) else {
            return self.without_lease(worker, job).await;
        };
        let size = output.len() as u64;
        let counted = worker.change_held(lease, |held| {
            held.chunks += 1;
            held.chunk_bytes += size.min(INLINE_MAX_BYTES as u64);
            held.yielded_bytes += size;
            (held.chunks, held.chunk_bytes, held.yielded_bytes)
        });
        let Some((chunks, small, all)) = counted else {
            return Ok(Received::TooLate);
        };
        if chunks > MAX_CHUNKS_PER_ATTEMPT || small > MAX_CHUNK_BYTES_PER_ATTEMPT || all > MAX_YIELDED_BYTES {
            let what = format!(
                "its handler yielded more than {MAX_CHUNKS_PER_ATTEMPT} chunks, 64 MB of small ones, or 2 GB in all"
            );
            self.worker_failed_midway(worker, job, what).await?;
            return Ok(Received::TooLate);
        }
        let chunk = match output.len() <= INLINE_MAX_BYTES {
            true => Payload::Inline(output.to_vec()),
            false => {
                // The counts begin anew after a restart of the server, under the same lease.
                let name = format!("chunk-{}-{}.json", lease.fence, self.ids.uuid_v4().simple());
                self.place(BlobKey::job_part(job, &name), output).await?
            }
        };
        self.metrics.event(EventKind::Chunk);
        match self.store.append_chunks(lease, vec![chunk]).await? {
            Ok(last) => {
                worker.change_held(lease, |held| held.last_event = last);
                Ok(Received::Recorded)
            }
            Err(_) => Ok(Received::TooLate),
        }
    }

    /// Something about a job that the worker does not hold.
    async fn without_lease(&self, worker: &Arc<Worker>, job: JobId) -> Result<Received, Error> {
        let record = self.store.job(None, job).await?;
        if record.is_none_or(|record| record.endpoint != worker.endpoint) {
            return Ok(Received::Unknown);
        }
        let attempts = self.store.attempts(job).await?;
        if !attempts.iter().any(|attempt| attempt.instance == worker.instance) {
            return Ok(Received::NotTheirs);
        }
        Ok(Received::TooLate)
    }
}

/// An error that fits into a row; one that does not says how long it was.
fn shortened(error: Value) -> Value {
    let text = match &error {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.len() <= ERROR_BYTES {
        return error;
    }
    let mut end = ERROR_BYTES;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Value::from(format!("{}… (cut; {} bytes in all)", &text[..end], text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_error_is_cut_and_says_so() {
        let short = Value::from("图".repeat(10));
        assert_eq!(shortened(short.clone()), short);
        let long = shortened(Value::from("图".repeat(100_000)));
        let long = long.as_str().unwrap();
        assert!(
            long.len() < ERROR_BYTES + 64 && long.ends_with("… (cut; 300000 bytes in all)"),
            "{long}"
        );
    }
}
