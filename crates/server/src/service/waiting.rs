//! Why jobs wait, and how long they will, from the same counters that the planner decides on.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use darkroom_core::{
    Endpoint, EndpointName, InstanceId, InstanceState, JobId, JobState, TenantId, Timestamp,
    instance::StartStep,
    scheduler::{Counters, HeldBack, Outlook, Policy, WaitReason, estimate::Known, why_waiting},
};

use super::{
    Error, Service,
    attached::Trial,
    instances::InstanceRecord,
    jobs::JobRecord,
    models::ModelFile,
    resources::{Free, Resources},
};

mod only_on;

/// Runs and starts that an estimate goes by: enough to even out one odd one, few enough to follow a change.
const RECENT: u32 = 20;

/// Where the service gets the planner's view from; the control loop gives it.
#[async_trait]
pub trait PlannerView: Send + Sync {
    /// Counters and policy as of now.
    async fn view(&self) -> anyhow::Result<(Counters, Policy)>;
    /// Something changed that the store does not know of: plan now.
    fn look_again(&self);
    /// The last bytes of what an instance printed.
    async fn logs(&self, handle: &str, tail_bytes: u64) -> anyhow::Result<bytes::Bytes>;
    /// What an instance that runs here used at the last look.
    fn resources(&self, instance: InstanceId) -> Option<Resources>;
    /// Has the ComfyUIs of an endpoint that run here give memory back once they are done with what they run.
    fn free(&self, endpoint: &EndpointName, what: Free);
    /// What a model's file says of itself, asked of an instance that runs; `None`: it says nothing, or nobody knows it.
    async fn model_metadata(&self, endpoint: &EndpointName, file: &ModelFile) -> Option<serde_json::Value>;
    /// Starts what an endpoint would run, outside of it.
    ///
    /// # Errors
    /// Why it did not start, in words, with the last lines that it printed.
    async fn try_out(&self, endpoint: &Endpoint) -> Result<Trial, String>;
    /// The starts of an endpoint's instances that failed in a row; `None`: the last one did not fail.
    fn start_trouble(&self, endpoint: &EndpointName) -> Option<StartTrouble>;
}

/// Starts that failed in a row, up to now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartTrouble {
    /// How many.
    pub in_a_row: u32,
    /// When the last one failed.
    pub last_at: Timestamp,
    /// Why, with the last lines that the instance printed: for operators.
    pub last_error: String,
    /// No start is tried before.
    pub next_try_at: Timestamp,
}

/// Why a job waits, how many stand before it, and how long it will wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Why.
    pub reason: WaitReason,
    /// Jobs of the endpoint before it, in plain order.
    pub position: u64,
    /// How long until it begins, told from how long runs and starts of its endpoint took lately; `None`: that is not known.
    pub starts_in: Option<Duration>,
}

impl Service {
    /// Gives the service the planner's eyes; once, at the start.
    pub fn set_planner(&self, planner: Arc<dyn PlannerView>) {
        // A second control loop in one process would be a defect; the first one stays.
        let _ = self.planner.set(planner);
    }

    /// Why a job waits; `None` when it does not.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn why_waiting(&self, job: &JobRecord) -> Result<Option<Waiting>, Error> {
        let waiting = self.why_each_waits(std::slice::from_ref(job)).await?;
        Ok(waiting.into_iter().next().flatten())
    }

    /// The same for each job of a page, all from one look of the planner and one at the lines.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn why_each_waits(&self, jobs: &[JobRecord]) -> Result<Vec<Option<Waiting>>, Error> {
        let queued: Vec<JobId> = jobs
            .iter()
            .filter(|job| job.state == JobState::Queued)
            .map(|job| job.id)
            .collect();
        let Some(planner) = self.planner.get().filter(|_| !queued.is_empty()) else {
            return Ok(jobs.iter().map(|_| None).collect());
        };
        let (counters, policy) = planner.view().await.map_err(Error::Internal)?;
        let positions = self.store.positions(&queued).await?;
        let mut lines = BTreeMap::new();
        for job in jobs.iter().filter(|job| positions.contains_key(&job.id)) {
            if !lines.contains_key(&job.endpoint) {
                let line = self.line(&job.endpoint, &counters, &policy).await?;
                lines.insert(job.endpoint.clone(), line);
            }
        }
        let mut only = BTreeMap::new();
        for job in jobs.iter().filter(|job| positions.contains_key(&job.id)) {
            if let Some(boxes) = self.only_on(job, &counters).await? {
                only.insert(job.id, boxes);
            }
        }
        let now = self.clock.now();
        let why = |job: &JobRecord| {
            let position = *positions.get(&job.id)?;
            let line = &lines[&job.endpoint];
            let elsewhere = || {
                let instances = only.get(&job.id)?.clone();
                Some(HeldBack::ModelOnlyOn { instances })
            };
            let held_back = line.held_back(job).or_else(elsewhere);
            let starts_in = match held_back {
                None => line
                    .outlook
                    .as_ref()
                    .and_then(|outlook| outlook.starts_in(position)),
                Some(_) => None,
            };
            Some(Waiting {
                reason: why_waiting(&job.endpoint, position, held_back, &counters, &policy, now),
                position,
                starts_in,
            })
        };
        Ok(jobs.iter().map(why).collect())
    }

    /// What all jobs of one endpoint wait under.
    async fn line(
        &self,
        endpoint: &EndpointName,
        counters: &Counters,
        policy: &Policy,
    ) -> Result<Line, Error> {
        let limit = self
            .endpoint(endpoint)
            .map_or(0, |endpoint| endpoint.limits.max_running_per_tenant);
        let full = match limit {
            0 => BTreeMap::new(),
            limit => self.store.at_quota(endpoint, limit).await?,
        };
        let Some(of) = policy.endpoints.get(endpoint) else {
            return Ok(Line {
                limit,
                full,
                outlook: None,
            });
        };
        let known = self.known_durations(endpoint).await?;
        let outlook = Outlook::new(endpoint, &known, counters, of, self.clock.now());
        Ok(Line { limit, full, outlook })
    }

    async fn known_durations(&self, endpoint: &EndpointName) -> Result<Known, Error> {
        let runs = self.store.recent_runs(endpoint, RECENT).await?;
        let open = self.store.open_attempts(None).await?;
        let mut running_since: Vec<Timestamp> = open
            .iter()
            .filter(|attempt| attempt.endpoint == *endpoint)
            .map(|attempt| attempt.claimed_at)
            .collect();
        running_since.sort();
        let instances = self.store.instances(true).await?;
        let mut starts: Vec<(Timestamp, Duration)> = instances
            .iter()
            .filter(|instance| instance.endpoint == *endpoint)
            .filter_map(|instance| {
                let ready = ready_at(instance)?;
                Some((instance.created_at, ready.since(instance.created_at)))
            })
            .collect();
        starts.sort();
        let newest = starts.iter().rev().take(RECENT as usize);
        Ok(Known {
            run: mean(runs.into_iter()),
            start: mean(newest.map(|(_, took)| *took)),
            running_since,
        })
    }

    /// How long a job of the endpoint holds its slot, from its latest runs; `None`: none has run yet.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn usual_run(&self, endpoint: &EndpointName) -> Result<Option<Duration>, Error> {
        let runs = self.store.recent_runs(endpoint, RECENT).await?;
        Ok(mean(runs.into_iter()))
    }

    /// What keeps the endpoint's instances from starting.
    pub fn start_trouble(&self, endpoint: &EndpointName) -> Option<StartTrouble> {
        self.planner.get()?.start_trouble(endpoint)
    }

    /// Whether the job waited, or waits, for an instance to start.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn cold_start(&self, job: &JobRecord) -> Result<bool, Error> {
        if let Some(first) = self.store.attempts(job.id).await?.first() {
            let instance = self.store.instance(first.instance).await?;
            // One that is forgotten already was there long before.
            return Ok(instance.is_some_and(|i| ready_at(&i).unwrap_or(i.created_at) >= job.created_at));
        }
        let instances = self.store.instances(false).await?;
        let is_ready = |i: &InstanceRecord| i.endpoint == job.endpoint && i.state == InstanceState::Ready;
        Ok(job.state == JobState::Queued && !instances.iter().any(is_ready))
    }

    /// The last bytes of what an instance printed.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it never got as far as printing, or its files are gone.
    pub async fn instance_logs(&self, id: InstanceId, tail_bytes: u64) -> Result<bytes::Bytes, Error> {
        let record = self.instance(id).await?;
        let missing = || Error::not_found("log of instance", id);
        let (Some(planner), Some(handle)) = (self.planner.get(), record.handle.as_deref()) else {
            return Err(missing());
        };
        planner.logs(handle, tail_bytes).await.map_err(|error| {
            tracing::debug!(%error, "an instance's log cannot be read");
            missing()
        })
    }
}

struct Line {
    limit: u32,
    full: BTreeMap<TenantId, u64>,
    outlook: Option<Outlook>,
}

impl Line {
    fn held_back(&self, job: &JobRecord) -> Option<HeldBack> {
        let running = *self.full.get(&job.tenant)?;
        Some(HeldBack::Quota {
            running,
            limit: self.limit,
        })
    }
}

fn ready_at(instance: &InstanceRecord) -> Option<Timestamp> {
    let mut phases = instance.phases.iter();
    phases
        .find(|(phase, _)| phase == StartStep::Ready.as_str())
        .map(|(_, at)| *at)
}

fn mean(durations: impl ExactSizeIterator<Item = Duration>) -> Option<Duration> {
    let n = u32::try_from(durations.len()).ok().filter(|n| *n > 0)?;
    Some(durations.sum::<Duration>() / n)
}

#[cfg(test)]
mod tests;
