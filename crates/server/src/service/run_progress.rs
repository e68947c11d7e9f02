//! How far a job's run is: its events and the last thing its instance said, counted against its graph.

use darkroom_comfy::progress::{Progress, Tally};
use darkroom_core::{JobState, event::Event};
use darkroom_runner::link::ComfyWork;
use serde_json::Value;

use super::{Error, Service, jobs::JobRecord};
use crate::beside::beside;

impl Service {
    /// How far a job is, now; `None` where there is nothing to tell: it waits, or it ended without success.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn run_progress(&self, job: &JobRecord) -> Result<Option<Progress>, Error> {
        match job.state {
            JobState::Queued | JobState::Failed | JobState::Cancelled | JobState::Expired => Ok(None),
            JobState::Succeeded => Ok(whole(job)),
            JobState::Running => Ok(Some(self.tally(job).await?.0.progress())),
        }
    }

    /// The count of a job's run so far, and the number of its last event in it.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn tally(&self, job: &JobRecord) -> Result<(Tally, u64), Error> {
        let body = self.read_payload(&job.input).await?.unwrap_or_default();
        let size = body.len();
        let parse = move || match serde_json::from_slice::<ComfyWork>(&body) {
            Ok(work) => Tally::new(&work.graph, &work.outputs),
            // Without its graph nothing can be counted.
            Err(_) => Tally::default(),
        };
        let mut tally = beside(size, parse).await;
        let events = self.events(job.id, 0).await?;
        for event in &events {
            count(&mut tally, event);
        }
        if let Some(last) = self.last_progress(job.id) {
            tally.hear(&serde_json::from_str(&last).unwrap_or_default());
        }
        Ok((tally, events.last().map_or(0, |event| event.seq)))
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
