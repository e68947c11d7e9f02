//! Why the planner did something, or could not: signal, value, threshold, result, as data and as one line of text.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{EndpointName, InstanceId, Timestamp};

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// Which endpoint.
    pub endpoint: EndpointName,
    /// Which instance, where it is about one that exists.
    pub instance: Option<InstanceId>,
    /// What was looked at.
    pub signal: Signal,
    /// What it was, in the signal's unit.
    pub value: u64,
    /// What it was compared with, in the same unit.
    pub threshold: u64,
    /// What follows.
    pub verdict: Verdict,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signal {
    /// Jobs that wait or run, against slots of instances that serve.
    Demand,
    /// Callers that wait for an instance to answer, against instances that serve.
    CallersWaiting,
    /// Instances that serve, against `min_instances`.
    MinInstances,
    /// Instances that serve, against `max_instances` (or the number of `gpus`).
    MaxInstances,
    /// Milliseconds without work, against `idle_timeout`.
    IdleMs,
    /// Milliseconds since the start, against `start_timeout`.
    StartMs,
    /// Jobs done, against `max_jobs_per_instance`.
    JobsDone,
    /// Resident bytes, against `max_rss`.
    RssBytes,
    /// Busy slots of a draining instance, against 0.
    BusySlots,
    /// The endpoint, or the GPU entry, is no longer configured.
    Removed,
    /// Milliseconds another endpoint's oldest job has waited for this GPU, against the patience it must have.
    GpuWantedMs,
    /// Milliseconds since a deadline passed, against 0.
    OverdueMs,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// An instance is started.
    Start {
        /// On this entry of `gpus`.
        gpu: Option<String>,
    },
    /// It takes no more jobs.
    Drain,
    /// It is ended.
    Stop,
    /// Its start has failed.
    FailStart,
    /// Leases or waiting jobs are ended.
    Expire,
    /// Wanted, but there are as many as there may be.
    MaxReached,
    /// Wanted, but the last starts failed.
    BackingOff {
        /// Not before this.
        until: Timestamp,
        /// What the last one said.
        last_error: String,
    },
    /// Wanted, but another endpoint has the GPU.
    GpuBusy {
        /// Which entry of `gpus`.
        gpu: String,
        /// Whose instance has it; `None` where it is not for the asking caller to know.
        holder: Option<EndpointName>,
    },
}

impl Decision {
    /// The same without the name of an endpoint that the caller may not use.
    #[must_use]
    pub fn for_users_of(mut self, may_use: impl Fn(&EndpointName) -> bool) -> Decision {
        if let Verdict::GpuBusy { holder, .. } = &mut self.verdict {
            *holder = holder.take().filter(may_use);
        }
        self
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.endpoint)?;
        if let Some(instance) = self.instance {
            write!(f, "instance {instance}: ")?;
        }
        let (value, threshold) = (self.value, self.threshold);
        match self.signal {
            Signal::Demand => write!(f, "{value} jobs wait or run, {threshold} slots serve"),
            Signal::CallersWaiting => write!(f, "{value} callers wait for an instance, {threshold} serve"),
            Signal::MinInstances => write!(f, "{value} instances serve, min_instances is {threshold}"),
            Signal::MaxInstances => write!(f, "{value} instances, at most {threshold}"),
            Signal::IdleMs => write!(f, "idle for {value} ms, idle_timeout is {threshold} ms"),
            Signal::StartMs => write!(f, "not ready after {value} ms, start_timeout is {threshold} ms"),
            Signal::JobsDone => write!(f, "{value} jobs done, recycled after {threshold}"),
            Signal::RssBytes => write!(f, "{value} bytes resident, max_rss is {threshold}"),
            Signal::BusySlots => write!(f, "draining with {value} busy slots"),
            Signal::Removed => write!(f, "no longer configured"),
            Signal::GpuWantedMs => write!(
                f,
                "another endpoint's job has waited {value} ms for its GPU, patience is {threshold} ms"
            ),
            Signal::OverdueMs => write!(f, "{value} ms past a deadline"),
        }?;
        match &self.verdict {
            Verdict::Start { gpu: None } => f.write_str("; start an instance"),
            Verdict::Start { gpu: Some(gpu) } => write!(f, "; start an instance on gpu {gpu}"),
            Verdict::Drain => f.write_str("; drain it"),
            Verdict::Stop => f.write_str("; stop it"),
            Verdict::FailStart => f.write_str("; give the start up"),
            Verdict::Expire => f.write_str("; expire what is due"),
            Verdict::MaxReached => f.write_str("; no more may be started"),
            Verdict::BackingOff { until, last_error } => {
                write!(f, "; the last start failed ({last_error}), wait until {until}")
            }
            Verdict::GpuBusy {
                gpu,
                holder: Some(holder),
            } => write!(f, "; gpu {gpu} is held by endpoint {holder}"),
            Verdict::GpuBusy { gpu, holder: None } => write!(f, "; gpu {gpu} is held by another endpoint"),
        }
    }
}

/// The first half of a [`Decision`]: what was looked at.
#[derive(Clone, Copy)]
pub(super) struct Measure {
    pub(super) signal: Signal,
    pub(super) value: u64,
    pub(super) threshold: u64,
}

impl Measure {
    pub(super) fn plain(signal: Signal) -> Self {
        Measure {
            signal,
            value: 0,
            threshold: 0,
        }
    }

    pub(super) fn time(signal: Signal, value: Duration, threshold: Duration) -> Self {
        Measure {
            signal,
            value: millis(value),
            threshold: millis(threshold),
        }
    }

    pub(super) fn decision(
        self,
        endpoint: &EndpointName,
        instance: Option<InstanceId>,
        verdict: Verdict,
    ) -> Decision {
        Decision {
            endpoint: endpoint.clone(),
            instance,
            signal: self.signal,
            value: self.value,
            threshold: self.threshold,
            verdict,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
