//! How far a job's run is: its events and the last thing its instance said, counted against its graph.

use std::sync::Arc;

use darkroom_comfy::progress::{Progress, Tally};
use darkroom_core::{JobState, Payload, event::Event};
use darkroom_runner::link::ComfyWork;
use serde_json::Value;

use super::{Error, Service, jobs::JobRecord};
use crate::beside::beside;

/// Events that are read at once.
const PAGE: u32 = 500;

/// A count that goes on where it stands: neither the graph nor an event is read twice for it.
pub type Counting = Arc<tokio::sync::Mutex<Option<Counted>>>;

/// The durable part of a count.
#[derive(Debug, Clone)]
pub struct Counted {
    tally: Tally,
    /// The number of the last event in it.
    seen: u64,
}

impl Service {
    /// How far a job is, now; `None` where there is nothing to tell: it waits, it ended without success, or there is no
    /// memory just now to read its graph.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run_progress(&self, job: &JobRecord) -> Result<Option<Progress>, Error> {
        match job.state {
            JobState::Queued | JobState::Failed | JobState::Cancelled | JobState::Expired => Ok(None),
            JobState::Succeeded => Ok(whole(job)),
            JobState::Running => match self.tally(job).await {
                Ok((mut tally, _)) => Ok(Some(tally.progress())),
                Err(Error::Unavailable { .. }) => Ok(None),
                Err(error) => Err(error),
            },
        }
    }

    /// The count of a job's run so far, and the number of its last event in it.
    ///
    /// # Errors
    /// When the store fails, or there is no memory for its graph.
    pub async fn tally(&self, job: &JobRecord) -> Result<(Tally, u64), Error> {
        let counting = self.hub.counting(job.id).unwrap_or_default();
        let mut known = counting.lock().await;
        let mut counted = match &*known {
            Some(counted) => counted.clone(),
            None => Counted {
                tally: self.uncounted(job).await?,
                seen: 0,
            },
        };
        loop {
            let events = self.store.events(job.id, counted.seen, PAGE).await?;
            for event in &events {
                count(&mut counted.tally, event);
                counted.seen = event.seq;
            }
            if events.len() < PAGE as usize {
                break;
            }
        }
        *known = Some(counted.clone());
        drop(known);
        let Counted { mut tally, seen } = counted;
        if let Some(last) = self.last_progress(job.id) {
            tally.hear(&serde_json::from_str(&last).unwrap_or_default());
        }
        Ok((tally, seen))
    }

    /// Of a job's graph, before its first event.
    async fn uncounted(&self, job: &JobRecord) -> Result<Tally, Error> {
        let size = match &job.input {
            Payload::Inline(bytes) => bytes.len() as u64,
            Payload::Blob { size, .. } => *size,
        };
        let held = self.memory.work(self.memory.read(size).await?, size).await?;
        let body = self.read_payload(&job.input).await?.unwrap_or_default();
        let parse = move || {
            let tally = match serde_json::from_slice::<ComfyWork>(&body) {
                Ok(work) => Tally::new(&work.graph, &work.outputs),
                // Without its graph nothing can be counted.
                Err(_) => Tally::default(),
            };
            drop((body, held));
            tally
        };
        Ok(beside(usize::try_from(size).unwrap_or(usize::MAX), parse).await)
    }
}

/// Counts a durable event.
pub fn count(tally: &mut Tally, event: &Event) {
    let data = serde_json::from_str::<Value>(&event.data).unwrap_or_default();
    tally.take(event.kind.as_str(), &data);
}

/// Of a run that succeeded; `None` for one whose nodes were not counted when it was accepted.
pub fn whole(job: &JobRecord) -> Option<Progress> {
    let nodes = job.meta.nodes;
    (nodes > 0).then(|| Progress {
        value: 1.0,
        nodes_done: nodes,
        nodes_total: nodes,
        ..Progress::default()
    })
}

#[cfg(test)]
mod tests {
    use darkroom_core::event::{EventKind, NewEvent};
    use serde_json::json;

    use crate::service::testing::Bench;

    #[tokio::test]
    async fn the_graph_of_a_running_job_is_read_once_for_all_who_ask() {
        let bench = Bench::new();
        let service = &bench.service;
        let node = |class: &str| json!({"class_type": class, "inputs": {}});
        let work = json!({"graph": {"1": node("A"), "2": node("B")}});
        let job = bench.job(&work.to_string()).await;
        let lease = bench.claimed(job).await;
        service.hub.attempt_began(lease);
        let record = bench.record(job).await;
        let run = service.run_progress(&record).await.unwrap().unwrap();
        assert_eq!((run.nodes_done, run.nodes_total), (0, 2));

        bench.blobs.fail_reads(1);
        let executed = NewEvent {
            kind: EventKind::Executed,
            data: json!({"node": "1"}).to_string(),
        };
        service
            .store
            .append_events(lease, vec![executed])
            .await
            .unwrap()
            .unwrap();
        for _ in 0..2 {
            let run = service.run_progress(&record).await.unwrap().unwrap();
            assert_eq!(
                (run.nodes_done, run.nodes_total),
                (1, 2),
                "and what is new is counted, once"
            );
        }
        drop(service.watch_job(&record).await.unwrap());
        assert_eq!(bench.blobs.failures_left(), 1, "nobody read it again");

        service.hub.attempt_ended(lease);
        assert!(service.hub.is_empty(), "with the run its count goes");
    }

    #[tokio::test]
    async fn a_graph_is_not_read_without_memory_for_it() {
        let bench = Bench::new();
        let service = &bench.service;
        let work = json!({"graph": {"1": {"class_type": "A", "inputs": {"text": "x".repeat(1 << 20)}}}});
        let job = bench.job(&work.to_string()).await;
        bench.claimed(job).await;
        let record = bench.record(job).await;
        let all = service.memory.read(u64::MAX >> 1).await.unwrap();
        assert_eq!(service.run_progress(&record).await.unwrap(), None);
        drop(all);
        assert_eq!(
            service.run_progress(&record).await.unwrap().unwrap().nodes_total,
            1
        );
    }
}
