//! Draining what a handler yields: each chunk is handed out once (`protocols/runpod.md` §2, stream). Our own events
//! replay them to whoever asks.

use darkroom_core::JobId;
use serde_json::value::RawValue;

use super::chunk::Chunk;
use crate::service::{Error, Service};

/// Chunks of one answer.
const CHUNKS: u32 = 1000;
/// Bytes of one answer, unless a single chunk is larger.
const BYTES: u64 = 8_000_000;
/// Others that drain the same job at the same moment; each try means that one of them got further.
const TRIES: u32 = 20;

/// What was handed out.
#[derive(Debug, Default)]
pub struct Taken {
    /// What was yielded, in order, as the worker wrote it.
    pub outputs: Vec<Box<RawValue>>,
    /// Everything that is kept was handed out, and more was yielded than is kept.
    pub truncated: bool,
}

impl Service {
    /// The chunks of a job's newest attempt that nobody has been given yet.
    ///
    /// # Errors
    /// When they cannot be read; none is lost then.
    pub async fn take_chunks(&self, job: JobId) -> Result<Taken, Error> {
        for _ in 0..TRIES {
            let waiting = self.store.unstreamed(job, CHUNKS).await?;
            let mut taken = Taken::default();
            let (mut bytes, mut upto) = (0, waiting.after);
            let mut left = false;
            for event in waiting.chunks {
                let Some(chunk) = Chunk::read(&event.data) else {
                    tracing::error!(job.id = %job, event.seq = event.seq, "a chunk is not what was stored");
                    upto = event.seq;
                    continue;
                };
                let size = match &chunk {
                    Chunk::Inline { output } => output.get().len() as u64,
                    Chunk::Stored { size, .. } => *size,
                };
                if bytes > 0 && bytes + size > BYTES {
                    left = true;
                    break;
                }
                bytes += size;
                upto = event.seq;
                taken.outputs.push(self.output_of(job, chunk).await?);
            }
            taken.truncated = waiting.truncated && !left;
            // Marked only when all of it could be read. Who marked first is who hands it out.
            if upto == waiting.after || self.store.mark_streamed(job, waiting.after, upto).await? {
                return Ok(taken);
            }
        }
        Ok(Taken::default())
    }

    async fn output_of(&self, job: JobId, chunk: Chunk) -> Result<Box<RawValue>, Error> {
        let (blob, size) = match chunk {
            Chunk::Inline { output } => return Ok(output),
            Chunk::Stored { blob, size } => (blob, size),
        };
        let bytes = self.blobs.read(&blob, size).await?;
        let bytes = bytes.ok_or_else(|| Error::not_found("chunk of job", job))?;
        serde_json::from_slice(&bytes).map_err(|e| Error::Internal(anyhow::Error::new(e)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use darkroom_core::{
        AttemptOutcome, InstanceId,
        attempt::Lease,
        event::{EventKind, NewEvent},
        worker::Wishes,
    };
    use darkroom_store::jobs::{Claim, Finish};

    use super::*;
    use crate::service::{testing::Bench, workers::WorkerSubmit};

    struct Stream {
        bench: Bench,
        job: JobId,
    }

    impl Stream {
        async fn new() -> Stream {
            let bench = Bench::configured("[endpoints.w]\nkind = \"worker\"\n");
            let submit = WorkerSubmit {
                tenant: "t".parse().unwrap(),
                endpoint: "w".parse().unwrap(),
                input: "1".into(),
                wishes: Wishes::default(),
                webhook: None,
                base_url: String::new(),
                s3_config: None,
                dialect: "runpod",
                request_id: "r".into(),
            };
            let job = bench.service.submit_worker(submit).await.unwrap();
            Stream { bench, job }
        }

        async fn claim(&self) -> Lease {
            let claim = Claim {
                endpoint: "w".parse().unwrap(),
                instance: InstanceId::new(&*self.bench.service.ids),
                owner: self.bench.service.node.clone(),
                loaded_models: vec![],
                lease: Duration::from_secs(30),
                except: vec![],
                max_running_per_tenant: 0,
                offers: None,
            };
            let claimed = self.bench.service.store.claim(claim).await.unwrap().unwrap();
            Lease {
                job: claimed.job.id,
                fence: claimed.fence,
            }
        }

        async fn yields(&self, lease: Lease, json: &str) {
            let output = RawValue::from_string(json.to_owned()).unwrap();
            let log = NewEvent {
                kind: EventKind::Log,
                data: "\"between\"".into(),
            };
            let events = vec![log, Chunk::Inline { output }.event()];
            let appended = self.bench.service.store.append_events(lease, events).await;
            appended.unwrap().unwrap();
        }

        async fn taken(&self) -> Vec<String> {
            let taken = self.bench.service.take_chunks(self.job).await.unwrap();
            taken
                .outputs
                .iter()
                .map(|output| output.get().to_owned())
                .collect()
        }
    }

    #[tokio::test]
    async fn each_chunk_is_handed_out_once_in_order() {
        let stream = Stream::new().await;
        let lease = stream.claim().await;
        assert!(stream.taken().await.is_empty());
        stream.yields(lease, "\"a\"").await;
        stream.yields(lease, "null").await;
        assert_eq!(stream.taken().await, ["\"a\"", "null"]);
        assert!(stream.taken().await.is_empty());
        stream.yields(lease, "{\"n\": 1.50}").await;
        assert_eq!(stream.taken().await, ["{\"n\": 1.50}"]);
    }

    #[tokio::test]
    async fn what_a_lost_attempt_yielded_and_nobody_saw_is_left_to_the_next_one() {
        let stream = Stream::new().await;
        let lease = stream.claim().await;
        stream.yields(lease, "1").await;
        assert_eq!(stream.taken().await, ["1"]);
        stream.yields(lease, "2").await;
        let lost = AttemptOutcome::Lost {
            reason: "it died".into(),
        };
        let store = &stream.bench.service.store;
        store.finish(lease, Finish::empty(lost)).await.unwrap().unwrap();
        let lease = stream.claim().await;
        stream.yields(lease, "1").await;
        assert_eq!(stream.taken().await, ["1"]);
    }

    #[tokio::test]
    async fn several_readers_share_the_chunks_and_none_comes_twice() {
        let stream = Stream::new().await;
        let lease = stream.claim().await;
        for n in 0..50 {
            stream.yields(lease, &n.to_string()).await;
        }
        let readers = futures::future::join_all((0..5).map(|_| stream.taken())).await;
        let mut all: Vec<u32> = readers
            .into_iter()
            .flatten()
            .map(|n| n.parse().unwrap())
            .collect();
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
    }
}
