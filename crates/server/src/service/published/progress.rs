//! How far a job is, and how long it will take still, from its events and from past runs.

use std::{collections::BTreeSet, time::Duration};

use darkroom_core::{JobState, event::EventKind, scheduler::estimate::rest};
use serde_json::Value;

use super::results::called_as;
use crate::service::{Error, Service, jobs::JobRecord};

/// How far a job is.
#[derive(Debug, Clone, PartialEq)]
pub struct ProgressView {
    /// 0 to 1.
    pub fraction: f64,
    /// How long until it ends; `None`: nothing is known to tell it from.
    pub remaining: Option<Duration>,
    /// Jobs before it in the line, while it waits.
    pub position: Option<u64>,
    /// The node that runs.
    pub node: Option<String>,
}

impl Service {
    /// How far a job is, now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn progress_of(&self, job: &JobRecord) -> Result<ProgressView, Error> {
        let mut view = ProgressView {
            fraction: 0.0,
            remaining: None,
            position: None,
            node: None,
        };
        match job.state {
            JobState::Succeeded => {
                view.fraction = 1.0;
                view.remaining = Some(Duration::ZERO);
            }
            JobState::Failed | JobState::Cancelled | JobState::Expired => {
                view.remaining = Some(Duration::ZERO)
            }
            JobState::Queued => {
                let waiting = self.why_waiting(job).await?;
                let run = self.usual_run(&job.endpoint).await?;
                view.position = waiting.as_ref().map(|waiting| waiting.position);
                view.remaining = match (waiting.and_then(|waiting| waiting.starts_in), run) {
                    (None, None) => None,
                    (wait, run) => Some(wait.unwrap_or_default() + run.unwrap_or_default()),
                };
            }
            JobState::Running => {
                let seen = self.nodes_of(job).await?;
                view.fraction = seen.fraction(called_as(job).map_or(0, |called| called.nodes));
                view.node = seen.current;
                let elapsed = job
                    .started_at
                    .map_or(Duration::ZERO, |at| self.clock.now().since(at));
                view.remaining = self.usual_run(&job.endpoint).await?.map(|run| rest(run, elapsed));
            }
        }
        Ok(view)
    }

    async fn nodes_of(&self, job: &JobRecord) -> Result<Seen, Error> {
        let mut seen = Seen::default();
        for event in self.events(job.id, 0).await? {
            let data = || serde_json::from_str::<Value>(&event.data).unwrap_or_default();
            match event.kind {
                EventKind::ExecutionStart => seen = Seen::default(),
                EventKind::ExecutionCached => seen.cached(&data()),
                EventKind::Executing => seen.executing(data()["node"].as_str()),
                EventKind::Executed => seen.executed(data()["node"].as_str()),
                _ => {}
            }
        }
        if let Some(last) = self.last_progress(job.id) {
            seen.progress(&serde_json::from_str(&last).unwrap_or_default());
        }
        Ok(seen)
    }
}

/// Nodes of a run, as far as it went.
#[derive(Debug, Default)]
struct Seen {
    done: BTreeSet<String>,
    current: Option<String>,
    share: f64,
}

impl Seen {
    fn cached(&mut self, data: &Value) {
        let nodes = data["nodes"].as_array().into_iter().flatten();
        self.done
            .extend(nodes.filter_map(|id| id.as_str().map(str::to_owned)));
    }

    fn executing(&mut self, node: Option<&str>) {
        if let Some(before) = self.current.take() {
            self.done.insert(before);
        }
        self.current = node.map(str::to_owned);
        self.share = 0.0;
    }

    fn executed(&mut self, node: Option<&str>) {
        self.done.extend(node.map(str::to_owned));
    }

    /// A `progress` or `progress_state` message.
    fn progress(&mut self, message: &Value) {
        let data = message.get("data").unwrap_or(message);
        let share = |of: &Value| match (of["value"].as_f64(), of["max"].as_f64()) {
            (Some(value), Some(max)) if max > 0.0 => (value / max).clamp(0.0, 1.0),
            _ => 0.0,
        };
        match data["nodes"].as_object() {
            Some(nodes) => {
                for (id, node) in nodes {
                    match node["state"].as_str() {
                        Some("finished") => drop(self.done.insert(id.clone())),
                        Some("running") => {
                            self.current = Some(id.clone());
                            self.share = share(node);
                        }
                        _ => {}
                    }
                }
            }
            None if data["node"].as_str().is_some() => {
                self.current = data["node"].as_str().map(str::to_owned);
                self.share = share(data);
            }
            None => {}
        }
    }

    /// Below 1 as long as it is not over.
    fn fraction(&self, nodes: usize) -> f64 {
        let running = self.current.as_ref().filter(|id| !self.done.contains(*id));
        let seen = self.done.len() + usize::from(running.is_some());
        let share = if running.is_some() { self.share } else { 0.0 };
        ((self.done.len() as f64 + share) / nodes.max(seen).max(1) as f64).min(0.99)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn nodes_that_are_done_and_the_share_of_the_running_one_count() {
        let mut seen = Seen::default();
        assert_eq!(seen.fraction(0), 0.0);
        seen.cached(&json!({"nodes": ["1"]}));
        seen.executing(Some("2"));
        seen.progress(&json!({"type": "progress", "data": {"node": "2", "value": 1, "max": 2}}));
        assert_eq!((seen.fraction(4), seen.current.as_deref()), (0.375, Some("2")));
        seen.progress(&json!({"type": "progress_state", "data": {"nodes": {
            "2": {"state": "finished"}, "3": {"state": "running", "value": 1, "max": 4}, "9": 1,
        }}}));
        assert_eq!((seen.fraction(4), seen.current.as_deref()), (0.5625, Some("3")));
        seen.executed(Some("3"));
        seen.executing(Some("4"));
        seen.executing(None);
        assert_eq!(seen.fraction(4), 0.99, "the end is told by the state alone");
    }
}
