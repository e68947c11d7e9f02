//! "Why is this job waiting?", answered from the same counters that the planner decides on.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{
    autoscale::{backing_off, wanted},
    gpus::{holder, unused_gpus},
    plan::{Counters, EndpointCounters, Policy},
};
use crate::{EndpointName, InstanceState, Timestamp, instance::StartStep};

/// The closed set of answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "waiting_for")]
pub enum WaitReason {
    /// A slot is free and is about to take it.
    Slot,
    /// An instance is coming up.
    Starting {
        /// How far it is.
        phase: StartPhase,
    },
    /// An instance of another endpoint holds the GPU.
    GpuBusy {
        /// Which endpoint; `None` where it is not for the asking caller to know.
        holder: Option<EndpointName>,
    },
    /// All instances that may exist are busy.
    MaxReached {
        /// Jobs before it in the queue.
        ahead: u64,
        /// Slots, all taken.
        slots: u32,
    },
    /// The last starts failed.
    BackingOff {
        /// What the last one said.
        last_error: String,
        /// When the next is tried.
        until: Timestamp,
    },
    /// No instance can be started by us, and none has come: a pull worker or remote server is missing.
    NoWorker,
    /// Only these instances can run it, and none of them has a free slot.
    ModelOnlyOn {
        /// Their names; empty where there is none any more.
        instances: Vec<String>,
    },
    /// Its tenant runs as many jobs of the endpoint as it may.
    Quota {
        /// How many it runs.
        running: u64,
        /// How many it may (`max_running_per_tenant`).
        limit: u32,
    },
    /// A low-priority job starts no instance; it waits for one that runs for others.
    LowPriority,
    /// An operator paused the endpoint.
    Paused,
    /// Its endpoint is not configured any more: it runs when the endpoint comes back, unless it expires or is cancelled.
    EndpointRemoved,
}

impl WaitReason {
    /// The same without the name of an endpoint that the caller may not use.
    pub fn for_users_of(self, may_use: impl Fn(&EndpointName) -> bool) -> WaitReason {
        match self {
            WaitReason::GpuBusy { holder } => WaitReason::GpuBusy {
                holder: holder.filter(may_use),
            },
            other => other,
        }
    }

    /// The same for callers who do not operate the endpoint: neither what a failed start printed nor where its instances
    /// are.
    pub fn for_clients(self) -> WaitReason {
        match self {
            WaitReason::ModelOnlyOn { .. } => WaitReason::ModelOnlyOn { instances: vec![] },
            WaitReason::BackingOff { until, .. } => WaitReason::BackingOff {
                last_error: "its operator can see why".to_owned(),
                until,
            },
            WaitReason::Slot
            | WaitReason::Starting { .. }
            | WaitReason::GpuBusy { .. }
            | WaitReason::MaxReached { .. }
            | WaitReason::NoWorker
            | WaitReason::Quota { .. }
            | WaitReason::LowPriority
            | WaitReason::Paused
            | WaitReason::EndpointRemoved => self,
        }
    }
}

/// How far a start is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "phase")]
pub enum StartPhase {
    /// The next plan starts it.
    Planned,
    /// Its predecessor must be gone first.
    PredecessorLeaving,
    /// Started, not ready yet.
    Booting {
        /// Since when.
        since: Timestamp,
        /// The last step that it reached; `None`: it is being spawned.
        #[serde(default)]
        reached: Option<StartStep>,
    },
}

impl fmt::Display for WaitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitReason::Slot => f.write_str("a slot is free and will take it"),
            WaitReason::Starting { phase } => match phase {
                StartPhase::Planned => f.write_str("an instance is about to be started"),
                StartPhase::PredecessorLeaving => f.write_str("another instance is being stopped first"),
                StartPhase::Booting { reached, .. } => match reached {
                    None => f.write_str("an instance is being started"),
                    Some(StartStep::Spawned) => {
                        f.write_str("an instance is starting: it does not listen yet")
                    }
                    Some(StartStep::Listening) => f.write_str("an instance is starting: it loads its nodes"),
                    Some(StartStep::NodesLoaded | StartStep::WarmedUp | StartStep::Ready) => {
                        f.write_str("an instance is starting: it is about to be ready")
                    }
                },
            },
            WaitReason::GpuBusy { holder: Some(holder) } => write!(f, "the gpu is held by endpoint {holder}"),
            WaitReason::GpuBusy { holder: None } => f.write_str("the gpu is held by another endpoint"),
            WaitReason::MaxReached { ahead, slots } => {
                write!(f, "all {slots} slots are busy, {ahead} jobs are before it")
            }
            WaitReason::BackingOff { last_error, .. } => {
                write!(f, "the last start failed and will be tried again: {last_error}")
            }
            WaitReason::NoWorker => f.write_str("no worker is connected"),
            WaitReason::ModelOnlyOn { instances } if instances.is_empty() => {
                f.write_str("no instance that can run it is free")
            }
            WaitReason::ModelOnlyOn { instances } => {
                write!(f, "only {} can run it", instances.join(", "))
            }
            WaitReason::Quota { running, limit } => {
                write!(f, "its tenant runs {running} jobs here, at most {limit} at once")
            }
            WaitReason::LowPriority => f.write_str("low priority: waits for an instance others started"),
            WaitReason::Paused => f.write_str("the endpoint is paused"),
            WaitReason::EndpointRemoved => {
                f.write_str("its endpoint is not configured any more: configure it again, or cancel the job")
            }
        }
    }
}

/// What keeps one job from slots that others may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeldBack {
    /// Its tenant runs as much as it may.
    Quota {
        /// How many jobs it runs.
        running: u64,
        /// How many it may.
        limit: u32,
    },
    /// Only these instances can run it.
    ModelOnlyOn {
        /// Their names.
        instances: Vec<String>,
    },
}

/// Why a queued job waits. `ahead` is the number of jobs before it in its endpoint's queue; `held_back` is about this very
/// job.
pub fn why_waiting(
    endpoint: &EndpointName,
    ahead: u64,
    held_back: Option<HeldBack>,
    counters: &Counters,
    policy: &Policy,
    now: Timestamp,
) -> WaitReason {
    let Some(of) = policy.endpoints.get(endpoint) else {
        return WaitReason::EndpointRemoved;
    };
    let none = EndpointCounters::default();
    let here = counters.endpoints.get(endpoint).unwrap_or(&none);
    if here.paused {
        return WaitReason::Paused;
    }
    match held_back {
        Some(HeldBack::Quota { running, limit }) => return WaitReason::Quota { running, limit },
        Some(HeldBack::ModelOnlyOn { instances }) => return WaitReason::ModelOnlyOn { instances },
        None => {}
    }
    let in_state = |state| here.instances.iter().filter(move |i| i.state == state);
    let slots: u32 = in_state(InstanceState::Ready).map(|i| i.slots).sum();
    let busy: u32 = in_state(InstanceState::Ready).map(|i| i.busy).sum();
    if ahead < u64::from(slots.saturating_sub(busy)) {
        return WaitReason::Slot;
    }
    if !of.managed {
        return match slots {
            0 => WaitReason::NoWorker,
            _ => WaitReason::MaxReached { ahead, slots },
        };
    }
    // The one that is furthest will take it.
    let furthest =
        in_state(InstanceState::Starting).max_by_key(|i| (i.phase, std::cmp::Reverse(i.state_since)));
    if let Some(instance) = furthest {
        let phase = StartPhase::Booting {
            since: instance.state_since,
            reached: instance.phase,
        };
        return WaitReason::Starting { phase };
    }
    let serving = here.instances.iter().filter(|i| i.is_serving()).count();
    let leaving = here.instances.iter().filter(|i| !i.state.is_final()).count() - serving;
    if serving >= wanted(here, of) {
        return if serving == 0 && of.most_instances() > 0 {
            WaitReason::LowPriority
        } else {
            WaitReason::MaxReached { ahead, slots }
        };
    }
    if let Some((until, last_error)) = backing_off(here, now) {
        let last_error = last_error.to_owned();
        return WaitReason::BackingOff { last_error, until };
    }
    if serving + leaving >= of.most_instances() {
        let phase = StartPhase::PredecessorLeaving;
        return WaitReason::Starting { phase };
    }
    if !of.gpus.is_empty() {
        let held: Option<Vec<_>> = unused_gpus(here, of)
            .iter()
            .map(|gpu| holder(&counters.endpoints, endpoint, gpu))
            .collect();
        if let Some((holder, _)) = held.and_then(|held| held.into_iter().next()) {
            return WaitReason::GpuBusy {
                holder: Some(holder.clone()),
            };
        }
    }
    let phase = StartPhase::Planned;
    WaitReason::Starting { phase }
}
