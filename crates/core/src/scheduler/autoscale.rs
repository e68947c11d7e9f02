//! How many instances: who has to go, and who has to come.
//!
//! Retiring comes before growing, and both work on the counters as they will be, so one plan may stop a worn-out
//! instance and start its replacement without ever exceeding a bound.

use std::time::Duration;

use super::{
    decision::{Measure, Signal, Verdict},
    gpus::{holder, make_room, unused_gpus},
    plan::{Action, Draft, EndpointCounters, EndpointPolicy, InstanceView, Policy},
};
use crate::{EndpointName, InstanceState, Timestamp, backoff::Backoff};

/// Between failed starts: 1 s, 2 s, 4 s, … at most a minute.
pub const START_BACKOFF: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(60),
};

/// When to look again at an instance that was just drained; the shortest time between two plans.
const SECOND_LOOK: Duration = Duration::from_millis(5);

/// How long an idle instance is kept at most after a person last did something at its endpoint's page: long enough to look
/// at a picture and change a prompt. A page that is only open keeps nothing.
pub const ATTENTION: Duration = Duration::from_secs(300);

/// Retires instances: starts that took too long, removed ones, worn-out ones, drained ones, idle ones, excess ones.
pub(super) fn retire(draft: &mut Draft, policy: &Policy) {
    for name in draft.counters.endpoints.keys().cloned().collect::<Vec<_>>() {
        let Some(of) = policy.endpoints.get(&name) else {
            for instance in instances(draft, &name) {
                match instance.state {
                    InstanceState::Draining => stop_drained(draft, &name, &instance),
                    InstanceState::Starting
                    | InstanceState::Ready
                    | InstanceState::Stopping
                    | InstanceState::Stopped
                    | InstanceState::Failed => {
                        remove(draft, &name, &instance, Measure::plain(Signal::Removed));
                    }
                }
            }
            continue;
        };
        for instance in instances(draft, &name) {
            if of.managed {
                wear_out(draft, &name, of, &instance);
            } else if instance.state == InstanceState::Draining {
                stop_drained(draft, &name, &instance);
            }
        }
        if of.managed {
            trim_to_max(draft, &name, of);
            trim_idle(draft, &name, of);
        }
    }
}

/// Starts what is wanted, oldest waiting job first, as far as bounds, back-off and GPUs allow.
pub(super) fn grow(draft: &mut Draft, policy: &Policy) {
    let mut order: Vec<(Timestamp, &EndpointName, &EndpointPolicy)> = policy
        .endpoints
        .iter()
        .filter(|(_, of)| of.managed)
        .map(|(name, of)| {
            let oldest = draft.counters.endpoints[name].oldest_queued_at;
            (oldest.unwrap_or(Timestamp::from_micros(i64::MAX)), name, of)
        })
        .collect();
    order.sort_by_key(|&(oldest, name, _)| (oldest, name));
    for (_, name, of) in order {
        if missing(&draft.counters.endpoints[name], of) > 0 {
            grow_endpoint(draft, policy, name, of);
        } else {
            note_limit(draft, name, of);
        }
    }
}

/// More would be started if more were allowed.
fn note_limit(draft: &mut Draft, name: &EndpointName, of: &EndpointPolicy) {
    let counters = &draft.counters.endpoints[name];
    let reason = why_more(counters, of);
    if reason.signal == Signal::Demand && serving(counters).count() >= of.most_instances() {
        draft.note(reason.decision(name, None, Verdict::MaxReached));
    }
}

/// When a start may be tried again after failures; `None`: at once.
pub(super) fn backing_off(counters: &EndpointCounters, now: Timestamp) -> Option<(Timestamp, &str)> {
    let (failed_at, error) = counters.last_start_failure.as_ref()?;
    let until = failed_at.plus(START_BACKOFF.after(counters.start_failures));
    // A failure in the future means that the clock was set back; waiting for it to catch up could take years.
    (counters.start_failures > 0 && *failed_at <= now && now < until).then_some((until, error.as_str()))
}

/// How many instances there should be.
pub(super) fn wanted(counters: &EndpointCounters, of: &EndpointPolicy) -> usize {
    let by_demand = demand(counters).div_ceil(u64::from(of.slots_per_instance.max(1)));
    let min = usize::try_from(of.scaling.min_instances).unwrap_or(usize::MAX);
    usize::try_from(by_demand)
        .unwrap_or(usize::MAX)
        .max(min)
        .max(usize::from(counters.callers_waiting > 0))
        .min(of.most_instances())
}

/// Jobs that need a slot of a serving instance: those that wait and may cause a start, and those that run on one.
/// What runs on a draining instance needs no other.
pub(super) fn demand(counters: &EndpointCounters) -> u64 {
    let waiting = if counters.paused {
        0
    } else {
        counters
            .queued
            .saturating_sub(counters.queued_low_priority)
            .saturating_sub(counters.over_quota)
            .saturating_sub(counters.unplaced)
    };
    let running: u64 = serving(counters).map(|i| u64::from(i.busy)).sum();
    waiting.saturating_add(running)
}

pub(super) fn serving(counters: &EndpointCounters) -> impl Iterator<Item = &InstanceView> {
    counters.instances.iter().filter(|i| i.is_serving())
}

fn missing(counters: &EndpointCounters, of: &EndpointPolicy) -> usize {
    wanted(counters, of).saturating_sub(serving(counters).count())
}

fn instances(draft: &Draft, name: &EndpointName) -> Vec<InstanceView> {
    draft.counters.endpoints[name].instances.clone()
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// Retires an instance, the only way by which the planner ends anything that came up. One that answers is drained
/// first, even if it looks idle: a slot may claim between this look and the deed, and only a draining instance that is
/// *still* idle in a later plan is sure to have no work.
pub(super) fn remove(draft: &mut Draft, name: &EndpointName, instance: &InstanceView, reason: Measure) {
    let (endpoint, id, seen) = (name.clone(), instance.id, instance.seen());
    let (action, verdict) = match instance.state {
        InstanceState::Ready => {
            let drain = Action::Drain {
                endpoint,
                instance: id,
                seen,
            };
            (drain, Verdict::Drain)
        }
        // A starting instance with work is an adopted one that does not answer yet: it becomes ready or fails.
        InstanceState::Starting | InstanceState::Draining if instance.busy == 0 => {
            let stop = Action::Stop {
                endpoint,
                instance: id,
                seen,
            };
            (stop, Verdict::Stop)
        }
        InstanceState::Starting
        | InstanceState::Draining
        | InstanceState::Stopping
        | InstanceState::Stopped
        | InstanceState::Failed => return,
    };
    draft.act(action, reason.decision(name, Some(id), verdict));
}

/// Stops a draining instance once it is idle, but not in the plan that drained it.
fn stop_drained(draft: &mut Draft, name: &EndpointName, instance: &InstanceView) {
    if instance.busy > 0 {
        return;
    }
    if instance.state_since == draft.now {
        draft.wake_at(draft.now.plus(SECOND_LOOK));
    } else {
        remove(draft, name, instance, Measure::plain(Signal::BusySlots));
    }
}

fn wear_out(draft: &mut Draft, name: &EndpointName, of: &EndpointPolicy, instance: &InstanceView) {
    let scaling = &of.scaling;
    match instance.state {
        InstanceState::Starting => {
            let took = draft.now.since(instance.state_since);
            if took < scaling.start_timeout {
                draft.wake_at(instance.state_since.plus(scaling.start_timeout));
            } else if instance.busy == 0 {
                let action = Action::FailStart {
                    endpoint: name.clone(),
                    instance: instance.id,
                    seen: instance.seen(),
                };
                let reason = Measure::time(Signal::StartMs, took, scaling.start_timeout);
                draft.act(
                    action,
                    reason.decision(name, Some(instance.id), Verdict::FailStart),
                );
            }
        }
        InstanceState::Ready => {
            let jobs = (instance.jobs_done, scaling.max_jobs_per_instance);
            let rss = (instance.rss_bytes, scaling.max_rss_bytes);
            if jobs.1 > 0 && jobs.0 >= jobs.1 {
                let reason = Measure {
                    signal: Signal::JobsDone,
                    value: jobs.0.into(),
                    threshold: jobs.1.into(),
                };
                remove(draft, name, instance, reason);
            } else if rss.1 > 0 && rss.0 > rss.1 {
                let reason = Measure {
                    signal: Signal::RssBytes,
                    value: rss.0,
                    threshold: rss.1,
                };
                remove(draft, name, instance, reason);
            } else if let Some(gpu) = &instance.gpu
                && !of.gpus.contains(gpu)
            {
                remove(draft, name, instance, Measure::plain(Signal::Removed));
            }
        }
        InstanceState::Draining => stop_drained(draft, name, instance),
        InstanceState::Stopping | InstanceState::Stopped | InstanceState::Failed => {}
    }
}

/// After `max_instances` was lowered: those that are not up yet go first, then idle ones, then busy ones.
fn trim_to_max(draft: &mut Draft, name: &EndpointName, of: &EndpointPolicy) {
    let mut serving: Vec<InstanceView> = serving(&draft.counters.endpoints[name]).cloned().collect();
    let most = of.most_instances();
    let reason = Measure {
        signal: Signal::MaxInstances,
        value: count(serving.len()),
        threshold: count(most),
    };
    let excess = serving.len().saturating_sub(most);
    serving.sort_by_key(|i| (i.busy, i.state, std::cmp::Reverse(i.id)));
    for instance in &serving[..excess] {
        remove(draft, name, instance, reason);
    }
}

fn trim_idle(draft: &mut Draft, name: &EndpointName, of: &EndpointPolicy) {
    let counters = &draft.counters.endpoints[name];
    let excess = serving(counters).count().saturating_sub(wanted(counters, of));
    let mut idle: Vec<(Timestamp, InstanceView)> = serving(counters)
        .filter(|i| i.state == InstanceState::Ready)
        .filter_map(|i| Some((i.idle_from()?, i.clone())))
        .collect();
    idle.sort_by_key(|(since, i)| (*since, i.id));
    let timeout = of.scaling.idle_timeout;
    // A time in the future means that the clock was set back.
    let watched = counters.user_active_at.filter(|at| *at <= draft.now);
    for (since, instance) in idle.iter().take(excess) {
        let idle_for = draft.now.since(*since);
        let watched_until = watched.map(|at| at.plus(timeout.min(ATTENTION)));
        if idle_for >= timeout && watched_until.is_none_or(|until| until <= draft.now) {
            remove(
                draft,
                name,
                instance,
                Measure::time(Signal::IdleMs, idle_for, timeout),
            );
        } else {
            let until = since.plus(timeout);
            draft.wake_at(watched_until.map_or(until, |watched| watched.max(until)));
        }
    }
}

fn grow_endpoint(draft: &mut Draft, policy: &Policy, name: &EndpointName, of: &EndpointPolicy) {
    let now = draft.now;
    let counters = &draft.counters.endpoints[name];
    let reason = why_more(counters, of);
    if let Some((until, last_error)) = backing_off(counters, now) {
        let verdict = Verdict::BackingOff {
            until,
            last_error: last_error.to_owned(),
        };
        let decision = reason.decision(name, None, verdict);
        draft.note(decision);
        draft.wake_at(until);
        return;
    }
    let unused = unused_gpus(counters, of);
    let live = counters.instances.len();
    let mut starts = missing(counters, of).min(of.most_instances().saturating_sub(live));
    if counters.start_failures > 0 {
        // After a failure one start at a time shows whether the cause is gone.
        let starting = |i: &&InstanceView| i.state == InstanceState::Starting;
        starts = starts.min(usize::from(!counters.instances.iter().any(|i| starting(&i))));
    } else if starts == 0 {
        draft.note(reason.decision(name, None, Verdict::MaxReached));
    }
    if of.gpus.is_empty() {
        for _ in 0..starts {
            start(draft, name, None, reason);
        }
        return;
    }
    let mut taken = Vec::new();
    for gpu in unused {
        match holder(&draft.counters.endpoints, name, &gpu) {
            None if starts > 0 => {
                start(draft, name, Some(gpu), reason);
                starts -= 1;
            }
            None => {}
            Some(_) => taken.push(gpu),
        }
    }
    make_room(draft, policy, name, taken, starts, reason);
}

fn start(draft: &mut Draft, name: &EndpointName, gpu: Option<String>, reason: Measure) {
    let live = draft.counters.endpoints[name].instances.len();
    let action = Action::Start {
        endpoint: name.clone(),
        gpu: gpu.clone(),
        seen_live: u32::try_from(live).unwrap_or(u32::MAX),
    };
    draft.act(action, reason.decision(name, None, Verdict::Start { gpu }));
}

fn why_more(counters: &EndpointCounters, of: &EndpointPolicy) -> Measure {
    let slots: u64 = serving(counters).map(|i| u64::from(i.slots)).sum();
    if demand(counters) > slots {
        Measure {
            signal: Signal::Demand,
            value: demand(counters),
            threshold: slots,
        }
    } else if counters.callers_waiting > 0 && slots == 0 {
        Measure {
            signal: Signal::CallersWaiting,
            value: counters.callers_waiting,
            threshold: count(serving(counters).count()),
        }
    } else {
        Measure {
            signal: Signal::MinInstances,
            value: count(serving(counters).count()),
            threshold: of.scaling.min_instances.into(),
        }
    }
}
