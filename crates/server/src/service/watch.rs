//! A job as a person watches it: where it stands, how far its run is, what it shows, and its end. Each sight is complete by
//! itself, and what changes quickly is shown at a steady pace.

use std::{collections::VecDeque, time::Duration};

use darkroom_comfy::progress::{Progress, Tally};
use darkroom_core::{
    JobState,
    event::{Event, EventKind},
};
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Interval, MissedTickBehavior},
};

pub use super::hub::Preview;
use super::{
    Error, Service,
    follow::{Ephemeral, Follower, Step},
    jobs::JobRecord,
    lengths::Lengths,
    run_progress::count,
};

/// Progress and previews are shown this often at most (`protocols/comfy-v2.md` §5: about two a second).
const PACE: Duration = Duration::from_millis(500);
/// A waiting job's place in the line is looked up this often at most, and only after its line moved.
const LINE_PACE: Duration = Duration::from_secs(1);

/// What is seen of a job.
#[derive(Debug)]
pub enum Sight {
    /// Where it stands now.
    Standing(Standing),
    /// How far its run is.
    Progress(Progress),
    /// What a node is making.
    Preview(Preview),
    /// It has ended; the last one.
    End(Box<JobRecord>),
}

/// Where a job that has not ended stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Waiting or running.
    pub state: JobState,
    /// It runs, and somebody asked for its end.
    pub cancelling: bool,
    /// Jobs before it in the line, while it waits.
    pub position: Option<u64>,
}

/// Watches one job.
pub struct Watcher {
    service: Service,
    job: JobRecord,
    follower: Follower,
    tally: Tally,
    ready: VecDeque<Sight>,
    shown: Option<Standing>,
    /// Somebody asked for its end: from then on running means that it is being cancelled.
    cancelling: bool,
    progress_due: bool,
    preview_due: Option<Preview>,
    pace: Interval,
    lengths: watch::Receiver<Lengths>,
    line_moved: bool,
    line_pace: Interval,
}

impl Service {
    /// Watches a job from now on; what is to be seen of it at first comes at once.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn watch_job(&self, job: &JobRecord) -> Result<Watcher, Error> {
        let lengths = self.queue_lengths();
        // From here on the job's count is kept for all who watch it.
        let mut follower = self.follow(job.id, 0);
        let (tally, seen) = match job.state.is_final() {
            true => Default::default(),
            false => self.tally(job).await?,
        };
        follower.skip_to(seen);
        // What happened since is read by the follower.
        let job = self.job(None, job.id).await?;
        let mut watcher = Watcher {
            follower,
            service: self.clone(),
            tally,
            ready: VecDeque::new(),
            shown: None,
            cancelling: job.cancel_requested,
            progress_due: job.state == JobState::Running,
            preview_due: self.hub.last_preview(job.id),
            pace: interval(PACE),
            lengths,
            line_moved: false,
            line_pace: interval(LINE_PACE),
            job,
        };
        if watcher.job.state.is_final() {
            let end = Sight::End(Box::new(watcher.job.clone()));
            watcher.ready.push_back(end);
        } else {
            watcher.stand(watcher.job.state).await?;
        }
        Ok(watcher)
    }
}

fn interval(pace: Duration) -> Interval {
    let mut interval = tokio::time::interval(pace);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

impl Watcher {
    /// The next sight. After [`Sight::End`] it must not be called again.
    ///
    /// # Errors
    /// When the job does not exist (any more), or the store fails.
    pub async fn next(&mut self) -> Result<Sight, Error> {
        loop {
            if let Some(sight) = self.ready.pop_front() {
                return Ok(sight);
            }
            let waits = self.shown.is_some_and(|shown| shown.state == JobState::Queued);
            tokio::select! {
                step = self.follower.next() => self.take(step?).await?,
                _ = self.pace.tick(), if self.progress_due || self.preview_due.is_some() => self.show(),
                changed = self.lengths.changed(), if waits && !self.line_moved => self.line_moved = changed.is_ok(),
                _ = self.line_pace.tick(), if waits && self.line_moved => {
                    self.line_moved = false;
                    self.stand(JobState::Queued).await?;
                }
            }
        }
    }

    async fn take(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Event(event) if event.kind == EventKind::State => {
                if let Some(state) = state_of(&event).filter(|state| !state.is_final()) {
                    self.stand(state).await?;
                    self.progress_due |= state == JobState::Running;
                }
            }
            Step::Event(event) => {
                count(&mut self.tally, &event);
                self.progress_due = true;
            }
            Step::Cancelling => {
                self.cancelling = true;
                self.stand(JobState::Running).await?;
            }
            Step::Ephemeral(Ephemeral::Message(text)) => {
                let message: Value = serde_json::from_str(&text).unwrap_or_default();
                if matches!(message["type"].as_str(), Some("progress" | "progress_state")) {
                    self.tally.hear(&message);
                    self.progress_due = true;
                }
            }
            Step::Ephemeral(Ephemeral::Preview {
                node_id,
                content_type,
                bytes,
            }) => {
                self.preview_due = Some(Preview {
                    node_id,
                    content_type,
                    bytes,
                });
            }
            Step::End(record) => {
                if record.state == JobState::Succeeded {
                    self.ready
                        .extend(super::run_progress::whole(&record).map(Sight::Progress));
                }
                self.ready.push_back(Sight::End(record));
            }
        }
        Ok(())
    }

    /// Shows where it stands, unless that was shown last.
    async fn stand(&mut self, state: JobState) -> Result<(), Error> {
        let position = match state {
            JobState::Queued => match self.service.store.position(self.job.id).await? {
                None if self.shown.is_some() => return Ok(()), // It has left the line: the next event says where to.
                position => position,
            },
            _ => None,
        };
        // It waits again: the wish was for what it ran before.
        self.cancelling &= state == JobState::Running;
        let standing = Standing {
            state,
            cancelling: self.cancelling,
            position,
        };
        if self.shown != Some(standing) {
            self.shown = Some(standing);
            self.ready.push_back(Sight::Standing(standing));
        }
        Ok(())
    }

    fn show(&mut self) {
        if std::mem::take(&mut self.progress_due) {
            self.ready.push_back(Sight::Progress(self.tally.progress()));
        }
        self.ready.extend(self.preview_due.take().map(Sight::Preview));
    }
}

fn state_of(event: &Event) -> Option<JobState> {
    let data: Value = serde_json::from_str(&event.data).ok()?;
    JobState::parse(data["state"].as_str()?)
}

#[cfg(test)]
mod tests {
    use darkroom_core::{AttemptOutcome, JobId, attempt::Lease};
    use darkroom_store::jobs::Finish;

    use super::*;
    use crate::service::testing::Bench;

    /// What is shown until the end, without progress: state and whether it is being cancelled.
    async fn shown(watcher: &mut Watcher, until: impl Fn(&Sight) -> bool) -> Vec<(JobState, bool)> {
        let mut shown = Vec::new();
        loop {
            let next = tokio::time::timeout(Duration::from_secs(60), watcher.next());
            let sight = next.await.expect("there is more to see").unwrap();
            match &sight {
                Sight::Standing(standing) => shown.push((standing.state, standing.cancelling)),
                Sight::End(record) => shown.push((record.state, false)),
                _ => {}
            }
            if until(&sight) {
                return shown;
            }
        }
    }

    async fn runs_and_is_cancelled(bench: &Bench, job: JobId) -> Lease {
        let lease = bench.claimed(job).await;
        bench.service.store.cancel(None, job).await.unwrap().unwrap();
        lease
    }

    #[tokio::test]
    async fn a_job_that_begins_and_is_cancelled_at_once_is_seen_in_order() {
        let bench = Bench::new();
        let job = bench.job("{}").await;
        let mut watcher = bench.service.watch_job(&bench.record(job).await).await.unwrap();
        let lease = runs_and_is_cancelled(&bench, job).await;
        let seen = shown(
            &mut watcher,
            |sight| matches!(sight, Sight::Standing(standing) if standing.cancelling),
        );
        let expected = [
            (JobState::Queued, false),
            (JobState::Running, false),
            (JobState::Running, true),
        ];
        assert_eq!(seen.await, expected);
        let end = Finish::empty(AttemptOutcome::Cancelled);
        bench.service.store.finish(lease, end).await.unwrap().unwrap();
        let seen = shown(&mut watcher, |sight| matches!(sight, Sight::End(_))).await;
        assert_eq!(seen, [(JobState::Cancelled, false)]);
    }

    #[tokio::test]
    async fn a_job_that_was_being_cancelled_at_first_sight_is_not_seen_to_run_again() {
        let bench = Bench::new();
        let job = bench.job("{}").await;
        let lease = runs_and_is_cancelled(&bench, job).await;
        let mut watcher = bench.service.watch_job(&bench.record(job).await).await.unwrap();
        // As when the job began after its events were counted and before its state was read.
        watcher.follower = bench.service.follow(job, 1);
        let step = watcher.follower.next().await.unwrap();
        assert!(matches!(&step, Step::Event(event) if state_of(event) == Some(JobState::Running)));
        watcher.take(step).await.unwrap();
        let end = Finish::empty(AttemptOutcome::Cancelled);
        bench.service.store.finish(lease, end).await.unwrap().unwrap();
        let seen = shown(&mut watcher, |sight| matches!(sight, Sight::End(_))).await;
        assert_eq!(seen, [(JobState::Running, true), (JobState::Cancelled, false)]);
    }
}
