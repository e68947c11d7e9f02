//! The planner: which instances should exist, and what has run out of time. Capacity only; it never sees a job.
//!
//! `plan` looks at counters and policy and says what to do now, why, and when to ask again at the latest. Every action
//! names what the planner saw, so that carrying it out is a compare-and-set: if the world moved on, the action is
//! dropped and the next plan decides anew. Planning again after the actions were carried out gives no further ones.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{autoscale, decision::Decision, expiry};
use crate::{EndpointName, InstanceId, InstanceState, Timestamp, endpoint::Scaling, instance::StartStep};

/// All that the planner may look at.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Counters {
    /// Per endpoint; also those whose configuration is gone while instances of theirs remain.
    pub endpoints: BTreeMap<EndpointName, EndpointCounters>,
}

/// What is going on at one endpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EndpointCounters {
    /// Jobs that wait for a slot, low-priority ones included.
    pub queued: u64,
    /// Those of them that must not cause a start (`lowPriority`): they take what is running anyway.
    pub queued_low_priority: u64,
    /// Those of the others that no slot may take now, because their tenants run as much as they may.
    pub over_quota: u64,
    /// Those of the others that no box of the endpoint can run any more: nothing is started for them.
    pub unplaced: u64,
    /// Jobs an attempt holds (collecting ones included).
    pub running: u64,
    /// When the oldest waiting job began to wait.
    pub oldest_queued_at: Option<Timestamp>,
    /// An operator stopped claims; what waits causes no start.
    pub paused: bool,
    /// When a person last did something at the endpoint's page. It starts nothing, and keeps an idle instance for a while
    /// ([`autoscale::ATTENTION`]).
    pub user_active_at: Option<Timestamp>,
    /// Callers that wait for an instance to answer, without a job: they want one, however many they are.
    pub callers_waiting: u64,
    /// Its instances. Those in a final state are ignored.
    pub instances: Vec<InstanceView>,
    /// Starts that failed in a row, up to now; a start that succeeds sets it to 0.
    pub start_failures: u32,
    /// The last of them: when, and the last thing the instance said.
    pub last_start_failure: Option<(Timestamp, String)>,
    /// When the first lease of a running attempt ends, unless renewed.
    pub next_lease_expiry: Option<Timestamp>,
    /// When the first waiting job's `queue_ttl` passes.
    pub next_queue_ttl: Option<Timestamp>,
}

/// One instance, as the planner sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceView {
    /// Which.
    pub id: InstanceId,
    /// Where it is.
    pub state: InstanceState,
    /// Jobs it can run at once.
    pub slots: u32,
    /// Slots that an attempt holds. An attempt that is collecting holds none.
    pub busy: u32,
    /// When it entered its state.
    pub state_since: Timestamp,
    /// Since when all its slots have been free; `None`: use `state_since`.
    pub idle_since: Option<Timestamp>,
    /// Attempts that ended on it.
    pub jobs_done: u32,
    /// Resident memory at the last look; 0: unknown.
    pub rss_bytes: u64,
    /// The entry of `gpus` it was started with.
    pub gpu: Option<String>,
    /// The last phase of its start that it reached.
    pub phase: Option<StartStep>,
}

impl InstanceView {
    /// Answers, or will: it counts as capacity.
    pub fn is_serving(&self) -> bool {
        matches!(self.state, InstanceState::Starting | InstanceState::Ready)
    }

    /// When it became idle; `None` while it is busy.
    pub fn idle_from(&self) -> Option<Timestamp> {
        (self.busy == 0).then(|| self.idle_since.unwrap_or(self.state_since))
    }

    pub(super) fn seen(&self) -> Seen {
        Seen {
            state: self.state,
            busy: self.busy,
        }
    }
}

/// What was configured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Policy {
    /// Per endpoint. Instances of an endpoint that is not here are retired.
    pub endpoints: BTreeMap<EndpointName, EndpointPolicy>,
}

/// What was configured for one endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct EndpointPolicy {
    /// How many instances, and when.
    pub scaling: Scaling,
    /// One instance per entry; empty: instances are not bound to a GPU.
    pub gpus: Vec<String>,
    /// Whether we start and stop its instances; `false` for remote ones and pull workers.
    pub managed: bool,
    /// Slots that an instance of this endpoint offers (1 for ComfyUI); 0 counts as 1.
    pub slots_per_instance: u32,
}

impl EndpointPolicy {
    /// The most instances that may exist at once, leaving ones included.
    pub fn most_instances(&self) -> usize {
        let max = usize::try_from(self.scaling.max_instances).unwrap_or(usize::MAX);
        if self.gpus.is_empty() {
            max
        } else {
            max.min(self.gpus.len())
        }
    }
}

/// What to do, why, and when to look again.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Plan {
    /// To be carried out in this order. One that finds the world changed is dropped; none relies on another's success.
    pub actions: Vec<Action>,
    /// One per action, in the same order, then one per thing that is wanted and cannot be done now.
    pub reasons: Vec<Decision>,
    /// Plan again then, if nothing wakes the planner before; always after the `now` of this plan.
    pub next_wake: Option<Timestamp>,
}

/// What an action was decided on; carry it out only if it is still so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The instance's state.
    pub state: InstanceState,
    /// How many of its slots were busy; 0 for [`Action::Stop`], which meets only instances that cannot claim any more.
    pub busy: u32,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    /// Create an instance, unless the endpoint has other than `seen_live` non-final instances by now.
    Start {
        /// Of which endpoint.
        endpoint: EndpointName,
        /// On which entry of `gpus`.
        gpu: Option<String>,
        /// Non-final instances of the endpoint when this is carried out (starts before it in the plan included).
        seen_live: u32,
    },
    /// Let it finish what it runs and claim nothing more.
    Drain {
        /// Of which endpoint.
        endpoint: EndpointName,
        /// Which.
        instance: InstanceId,
        /// Its state then.
        seen: Seen,
    },
    /// End it: it is draining and idle, or it never came up.
    Stop {
        /// Of which endpoint.
        endpoint: EndpointName,
        /// Which.
        instance: InstanceId,
        /// Its state then.
        seen: Seen,
    },
    /// It did not become ready in time: kill it, then record the failed start.
    FailStart {
        /// Of which endpoint.
        endpoint: EndpointName,
        /// Which.
        instance: InstanceId,
        /// Its state then.
        seen: Seen,
    },
    /// End what has run out of time; the store's clock decides which rows that are. Ask
    /// [`ClockGuard`](super::ClockGuard) first, at this very moment: time may have passed since the plan was made.
    Expire {
        /// Of which endpoint.
        endpoint: EndpointName,
        /// What ran out.
        what: Expiring,
        /// When the first did.
        due: Timestamp,
    },
}

/// What can run out of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expiring {
    /// Leases that were not renewed: their attempts are lost.
    Leases,
    /// Jobs that waited longer than `queue_ttl`.
    QueuedJobs,
}

/// Decides what to do now.
pub fn plan(counters: &Counters, policy: &Policy, now: Timestamp) -> Plan {
    let mut draft = Draft::new(counters, policy, now);
    loop {
        let before = draft.plan.actions.len();
        draft.begin_round();
        expiry::expire(&mut draft);
        autoscale::retire(&mut draft, policy);
        autoscale::grow(&mut draft, policy);
        // Until a round finds nothing: that is what makes a second plan empty. It ends, because every action moves an
        // instance one step towards its end, uses up room for starts, or clears a deadline.
        if draft.plan.actions.len() == before {
            return draft.finish();
        }
    }
}

/// A plan in the making, with the counters as they will be once its actions are carried out. Each rule looks at these,
/// so no rule contradicts an earlier one, and a second plan finds nothing left to do.
pub(super) struct Draft {
    pub(super) counters: Counters,
    pub(super) now: Timestamp,
    plan: Plan,
    /// What is wanted and cannot be done; of the last round only.
    notes: Vec<Decision>,
}

impl Draft {
    fn new(counters: &Counters, policy: &Policy, now: Timestamp) -> Self {
        let mut counters = counters.clone();
        for name in policy.endpoints.keys() {
            counters.endpoints.entry(name.clone()).or_default();
        }
        for endpoint in counters.endpoints.values_mut() {
            endpoint.instances.retain(|i| !i.state.is_final());
            endpoint.instances.sort_by_key(|i| i.id);
        }
        Draft {
            counters,
            now,
            plan: Plan::default(),
            notes: Vec::new(),
        }
    }

    fn begin_round(&mut self) {
        self.notes.clear();
        self.plan.next_wake = None;
    }

    fn finish(mut self) -> Plan {
        self.plan.reasons.append(&mut self.notes);
        self.plan
    }

    pub(super) fn act(&mut self, action: Action, reason: Decision) {
        assume(&mut self.counters, &action, self.now);
        self.plan.actions.push(action);
        self.plan.reasons.push(reason);
    }

    pub(super) fn note(&mut self, reason: Decision) {
        self.notes.push(reason);
    }

    pub(super) fn wake_at(&mut self, at: Timestamp) {
        if at > self.now {
            self.plan.next_wake = Some(self.plan.next_wake.map_or(at, |earlier| earlier.min(at)));
        }
    }
}

/// The counters as they are once an action was carried out: what the planner expects of its executor.
pub fn assume(counters: &mut Counters, action: &Action, now: Timestamp) {
    match action {
        Action::Start { endpoint, gpu, .. } => {
            let of = counters.endpoints.entry(endpoint.clone()).or_default();
            of.instances
                .push(placeholder(of.instances.len(), gpu.clone(), now));
        }
        Action::Drain {
            endpoint, instance, ..
        } => enter(counters, endpoint, *instance, InstanceState::Draining, now),
        Action::Stop {
            endpoint, instance, ..
        } => enter(counters, endpoint, *instance, InstanceState::Stopping, now),
        Action::FailStart {
            endpoint, instance, ..
        } => {
            // On its way out like a stopped one: what it holds is free only when a later plan no longer sees it. Were it
            // given away in this plan, and the instance came up just then, two would hold one GPU.
            enter(counters, endpoint, *instance, InstanceState::Stopping, now);
            if let Some(of) = counters.endpoints.get_mut(endpoint) {
                of.start_failures = of.start_failures.saturating_add(1);
                of.last_start_failure = Some((now, "was not ready within start_timeout".to_owned()));
            }
        }
        Action::Expire { endpoint, what, .. } => {
            if let Some(of) = counters.endpoints.get_mut(endpoint) {
                match what {
                    Expiring::Leases => of.next_lease_expiry = None,
                    Expiring::QueuedJobs => of.next_queue_ttl = None,
                }
            }
        }
    }
}

fn enter(
    counters: &mut Counters,
    endpoint: &EndpointName,
    id: InstanceId,
    state: InstanceState,
    now: Timestamp,
) {
    let of = counters.endpoints.get_mut(endpoint);
    if let Some(instance) = of.and_then(|of| of.instances.iter_mut().find(|i| i.id == id)) {
        instance.state = state;
        instance.state_since = now;
    }
}

/// An instance whose id is not known yet. Its own is the highest there can be, so that it is the last in any order.
fn placeholder(n: usize, gpu: Option<String>, now: Timestamp) -> InstanceView {
    InstanceView {
        id: InstanceId::from_uuid(uuid::Uuid::from_u128(u128::MAX - n as u128)),
        state: InstanceState::Starting,
        slots: 1,
        busy: 0,
        state_since: now,
        idle_since: None,
        jobs_done: 0,
        rss_bytes: 0,
        gpu,
        phase: None,
    }
}
