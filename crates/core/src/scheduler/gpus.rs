//! Endpoints that share GPUs: who has which, and who makes room for whom.
//!
//! An entry of `gpus` belongs to one endpoint's instance at a time. A job that waits for one another endpoint holds gets
//! it at once if it is not needed there, and otherwise after a while, once nobody there has waited longer: so one
//! endpoint's flood delays the others, but never shuts them out. What runs is always finished first.

use std::{collections::BTreeMap, time::Duration};

use super::{
    autoscale::{demand, remove, serving, wanted},
    decision::{Measure, Signal, Verdict},
    plan::{Draft, EndpointCounters, EndpointPolicy, InstanceView, Policy},
};
use crate::{EndpointName, InstanceState, Timestamp};

/// How long an endpoint's oldest job waits for a GPU that another endpoint's busy instance holds, before that instance
/// is drained for it. Long enough that two busy endpoints do not spend their time loading models in turn.
pub const GPU_PATIENCE: Duration = Duration::from_secs(30);

/// Which other endpoint's instance has this GPU.
pub(super) fn holder<'a>(
    endpoints: &'a BTreeMap<EndpointName, EndpointCounters>,
    not: &EndpointName,
    gpu: &str,
) -> Option<(&'a EndpointName, &'a InstanceView)> {
    endpoints
        .iter()
        .filter(|(name, _)| *name != not)
        .find_map(|(name, counters)| {
            let has = |i: &&InstanceView| !i.state.is_final() && i.gpu.as_deref() == Some(gpu);
            counters.instances.iter().find(has).map(|i| (name, i))
        })
}

/// The entries of `gpus` that no instance of the endpoint itself uses; an entry that stands there twice may be used twice.
pub(super) fn unused_gpus(counters: &EndpointCounters, of: &EndpointPolicy) -> Vec<String> {
    let mut unused = of.gpus.clone();
    for gpu in counters
        .instances
        .iter()
        .filter(|i| !i.state.is_final())
        .filter_map(|i| i.gpu.as_ref())
    {
        if let Some(at) = unused.iter().position(|entry| entry == gpu) {
            unused.remove(at);
        }
    }
    unused
}

/// `needed` more instances of `name` want one of these GPUs, which other endpoints hold. Those that are leaving anyway are
/// waited for; the rest is asked, most willing first.
pub(super) fn make_room(
    draft: &mut Draft,
    policy: &Policy,
    name: &EndpointName,
    mut gpus: Vec<String>,
    needed: usize,
    want: Measure,
) {
    gpus.dedup();
    let counters = &draft.counters.endpoints[name];
    // `min_instances` alone takes nobody's GPU away.
    let oldest = counters.oldest_queued_at.filter(|_| demand(counters) > 0);
    for _ in 0..needed {
        // Judged anew each time: what was not needed may be, once another one is gone.
        let best = gpus
            .iter()
            .enumerate()
            .filter_map(|(at, gpu)| {
                let (other, instance) = holder(&draft.counters.endpoints, name, gpu)?;
                let willing = willing(draft, policy, oldest, other, instance);
                Some((willing, at, other.clone(), instance.clone()))
            })
            .min_by_key(|(willing, at, ..)| (*willing, *at));
        let Some((willing, at, other, instance)) = best else {
            return;
        };
        let verdict = Verdict::GpuBusy {
            gpu: gpus.remove(at),
            holder: Some(other.clone()),
        };
        draft.note(want.decision(name, None, verdict));
        let waited = oldest.map_or(Duration::ZERO, |since| draft.now.since(since));
        match willing {
            Willing::Leaving | Willing::Never => {}
            Willing::Unneeded => {
                let why = Measure::time(Signal::GpuWantedMs, waited, Duration::ZERO);
                remove(draft, &other, &instance, why);
            }
            Willing::Outwaited => {
                let why = Measure::time(Signal::GpuWantedMs, waited, GPU_PATIENCE);
                remove(draft, &other, &instance, why);
            }
            Willing::Later(at) => draft.wake_at(at),
        }
    }
}

/// Whether another endpoint's instance makes room, most willing first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Willing {
    /// It is on its way out.
    Leaving,
    /// It is idle, and its endpoint wants fewer than it has.
    Unneeded,
    /// Its endpoint's jobs have waited less, and ours long enough.
    Outwaited,
    /// The same, but ours not long enough yet.
    Later(Timestamp),
    /// Not for us.
    Never,
}

fn willing(
    draft: &Draft,
    policy: &Policy,
    oldest: Option<Timestamp>,
    other: &EndpointName,
    instance: &InstanceView,
) -> Willing {
    match instance.state {
        InstanceState::Draining
        | InstanceState::Stopping
        | InstanceState::Stopped
        | InstanceState::Failed => return Willing::Leaving,
        // What has only begun to start gets its chance: the job it was started for may be as old.
        InstanceState::Starting => return Willing::Never,
        InstanceState::Ready => {}
    }
    let theirs = &draft.counters.endpoints[other];
    let of = policy.endpoints.get(other).filter(|of| of.managed);
    let (Some(of), Some(oldest)) = (of, oldest) else {
        return Willing::Never;
    };
    if instance.busy == 0 && serving(theirs).count() > wanted(theirs, of) {
        return Willing::Unneeded;
    }
    if theirs.oldest_queued_at.is_some_and(|theirs| theirs <= oldest) {
        return Willing::Never;
    }
    let at = oldest.plus(GPU_PATIENCE);
    if draft.now >= at {
        Willing::Outwaited
    } else {
        Willing::Later(at)
    }
}
