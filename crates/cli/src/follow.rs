//! Follows one job to its end over server-sent events, through dropped connections and server restarts.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::{
    client::{Client, segment, sse},
    exit::{Exit, Failure},
    workflow::Workflow,
};

/// How long a server may be away in one piece before the follower gives up.
const MAX_AWAY: Duration = Duration::from_secs(60);
/// A stream that says nothing for so long, not even a comment, is taken for dead and opened again.
const MAX_SILENCE: Duration = Duration::from_secs(60);
/// Pause before the stream is opened again.
const PAUSE: Duration = Duration::from_millis(250);

/// One event of the job.
#[derive(Debug)]
pub struct JobEvent {
    /// Its number; ephemeral ones have none.
    pub seq: Option<String>,
    /// What (`state`, `executing`, `progress`, …).
    pub kind: String,
    /// Its data.
    pub data: Value,
}

/// Calls `on_event` for every event of `job`; returns the job in its final state.
pub async fn follow(
    client: &Client,
    job: &str,
    mut on_event: impl FnMut(&JobEvent),
) -> Result<Value, Failure> {
    let mut last: Option<String> = None;
    let mut away = Duration::ZERO;
    loop {
        match client.events(job, last.as_deref()).await {
            Ok(response) => {
                away = Duration::ZERO;
                read(response, &mut last, &mut on_event).await;
            }
            Err(failure) if passing(&failure) && away < MAX_AWAY => {}
            Err(failure) => return Err(failure),
        }
        match client.get(&format!("jobs/{}", segment(job))).await {
            Ok(state) if is_final(&state) => return Ok(state),
            Ok(_) => {}
            Err(failure) if passing(&failure) && away < MAX_AWAY => {}
            Err(failure) => return Err(failure),
        }
        tokio::time::sleep(PAUSE).await;
        away += PAUSE;
    }
}

/// Whether the job's state is one that nothing follows.
pub fn is_final(job: &Value) -> bool {
    matches!(
        job["state"].as_str(),
        Some("succeeded" | "failed" | "cancelled" | "expired")
    )
}

fn passing(failure: &Failure) -> bool {
    matches!(failure.exit, Exit::Unreachable | Exit::Server)
}

async fn read(
    mut response: reqwest::Response,
    last: &mut Option<String>,
    on_event: &mut impl FnMut(&JobEvent),
) {
    let mut parser = sse::Parser::default();
    // A timeout, an error, and the end of the stream all mean the same: look at the job, and open again if need be.
    while let Ok(Ok(Some(chunk))) = tokio::time::timeout(MAX_SILENCE, response.chunk()).await {
        for event in parser.push(&chunk) {
            if let Some(id) = &event.id {
                *last = Some(id.clone());
            }
            on_event(&JobEvent {
                seq: event.id,
                kind: event.kind,
                data: serde_json::from_str(&event.data).unwrap_or(Value::String(event.data)),
            });
        }
    }
}

/// How far a run is, from its events: nodes done, and the share of the one that runs.
#[derive(Debug)]
pub struct Progress {
    total: usize,
    done: BTreeSet<String>,
    current: Option<String>,
    share: f64,
}

impl Progress {
    /// Nothing done yet.
    pub fn new(workflow: &Workflow) -> Self {
        Progress {
            total: workflow.len().max(1),
            done: BTreeSet::new(),
            current: None,
            share: 0.0,
        }
    }

    /// Takes an event in.
    pub fn on(&mut self, event: &JobEvent) {
        let data = &event.data;
        match event.kind.as_str() {
            "execution_start" => {
                *self = Progress {
                    total: self.total,
                    done: BTreeSet::new(),
                    current: None,
                    share: 0.0,
                }
            }
            "execution_cached" => {
                for id in data["nodes"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                {
                    self.done.insert(id.to_owned());
                }
            }
            "executing" => self.start(data["node"].as_str()),
            "executed" => {
                if let Some(id) = data["node"].as_str() {
                    self.done.insert(id.to_owned());
                }
            }
            "progress" => {
                if let Some(id) = data["node"].as_str()
                    && self.current.as_deref() != Some(id)
                {
                    self.start(Some(id));
                }
                self.share = share(data);
            }
            "progress_state" => {
                for (id, node) in data["nodes"].as_object().into_iter().flatten() {
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
            "execution_success" => self.start(None),
            _ => {}
        }
    }

    /// 0 to 1.
    pub fn fraction(&self) -> f64 {
        let running = match &self.current {
            Some(id) if !self.done.contains(id) => self.share,
            _ => 0.0,
        };
        ((self.done.len() as f64 + running) / self.total as f64).min(1.0)
    }

    /// The node that runs.
    pub fn current(&self) -> Option<&str> {
        self.current.as_deref()
    }

    fn start(&mut self, node: Option<&str>) {
        if let Some(before) = self.current.take() {
            self.done.insert(before);
        }
        self.current = node.map(str::to_owned);
        self.share = 0.0;
    }
}

fn share(data: &Value) -> f64 {
    let value = data["value"].as_f64().unwrap_or(0.0);
    let max = data["max"].as_f64().unwrap_or(0.0);
    if max > 0.0 {
        (value / max).clamp(0.0, 1.0)
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(kind: &str, data: Value) -> JobEvent {
        JobEvent {
            seq: None,
            kind: kind.to_owned(),
            data,
        }
    }

    #[test]
    fn progress_counts_nodes_and_the_share_of_the_running_one() {
        let nodes = r#"{"1": {}, "2": {}, "3": {}, "4": {}}"#;
        let mut progress = Progress::new(&Workflow::parse(nodes).unwrap());
        progress.on(&event("execution_cached", json!({"nodes": ["1"]})));
        assert_eq!(progress.fraction(), 0.25);
        progress.on(&event("executing", json!({"node": "2"})));
        progress.on(&event("progress", json!({"node": "2", "value": 5, "max": 10})));
        assert_eq!((progress.fraction(), progress.current()), (0.375, Some("2")));
        progress.on(&event("executing", json!({"node": "3"})));
        assert_eq!(progress.fraction(), 0.5);
        progress.on(&event("executed", json!({"node": "3"})));
        progress.on(&event("executing", json!({"node": "4"})));
        progress.on(&event("execution_success", json!({})));
        assert_eq!((progress.fraction(), progress.current()), (1.0, None));
        // A second attempt begins again.
        progress.on(&event("execution_start", json!({})));
        assert_eq!(progress.fraction(), 0.0);
    }

    #[test]
    fn progress_never_passes_the_end_and_survives_nonsense() {
        let mut progress = Progress::new(&Workflow::parse("{}").unwrap());
        progress.on(&event("progress", json!({"node": "a", "value": 7, "max": 0})));
        progress.on(&event(
            "progress_state",
            json!({"nodes": {"b": {"state": "finished"}, "c": 1}}),
        ));
        progress.on(&event("executing", Value::Null));
        assert!(progress.fraction() <= 1.0);
    }
}
