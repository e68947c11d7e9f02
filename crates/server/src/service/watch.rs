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
        let (tally, seen) = match job.state.is_final() {
            true => Default::default(),
            false => self.tally(job).await?,
        };
        // What happened since is read by the follower.
        let job = self.job(None, job.id).await?;
        let mut watcher = Watcher {
            follower: self.follow(job.id, seen),
            service: self.clone(),
            tally,
            ready: VecDeque::new(),
            shown: None,
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
            watcher
                .stand(watcher.job.state, watcher.job.cancel_requested)
                .await?;
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
                    self.stand(JobState::Queued, false).await?;
                }
            }
        }
    }

    async fn take(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::Event(event) if event.kind == EventKind::State => {
                if let Some(state) = state_of(&event).filter(|state| !state.is_final()) {
                    self.stand(state, false).await?;
                    self.progress_due |= state == JobState::Running;
                }
            }
            Step::Event(event) => {
                count(&mut self.tally, &event);
                self.progress_due = true;
            }
            Step::Cancelling => self.stand(JobState::Running, true).await?,
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
    async fn stand(&mut self, state: JobState, cancelling: bool) -> Result<(), Error> {
        let position = match state {
            JobState::Queued => match self.service.store.position(self.job.id).await? {
                None if self.shown.is_some() => return Ok(()), // It has left the line: the next event says where to.
                position => position,
            },
            _ => None,
        };
        let standing = Standing {
            state,
            cancelling,
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
