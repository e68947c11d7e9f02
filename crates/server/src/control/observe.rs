//! What the planner may look at, gathered from the store and from the slots of this process.

use std::{collections::BTreeMap, time::Duration};

use darkroom_core::{
    EndpointName, InstanceState, Timestamp,
    endpoint::Backend,
    instance::StartStep,
    scheduler::{Counters, EndpointCounters, EndpointPolicy, InstanceView, Policy},
};
use darkroom_store::catalog::InstanceRecord;

use super::Control;
use crate::service::waiting::PlannerView;

/// The supervisor ends a start that takes too long, and knows what the instance printed last. The planner's own bound is
/// for a supervisor that does not.
const START_TIMEOUT_BACKSTOP: Duration = Duration::from_secs(30);

/// Counters and policy as of now.
///
/// # Errors
/// When the store cannot be read.
pub async fn counters_and_policy(control: &Control) -> anyhow::Result<(Counters, Policy)> {
    let service = &control.service;
    let mut counters = Counters::default();
    for (name, queue) in service.store.counters().await? {
        let failures = control.failures_of(&name);
        let counted = EndpointCounters {
            queued: queue.queued,
            queued_low_priority: queue.queued_low_priority,
            running: queue.running,
            oldest_queued_at: queue.oldest_queued_at,
            paused: queue.paused_since.is_some(),
            over_quota: over_quota(control, &name, queue.queued).await?,
            start_failures: failures.in_a_row,
            last_start_failure: failures.last,
            next_lease_expiry: queue.next_lease_expiry_at,
            next_queue_ttl: queue.next_expiry_at,
            ..EndpointCounters::default()
        };
        counters.endpoints.insert(name, counted);
    }
    for record in service.store.instances(false).await? {
        let view = view(control, &record);
        let failures = control.failures_of(&record.endpoint);
        let endpoint = counters
            .endpoints
            .entry(record.endpoint)
            .or_insert_with(|| EndpointCounters {
                start_failures: failures.in_a_row,
                last_start_failure: failures.last,
                ..EndpointCounters::default()
            });
        endpoint.instances.push(view);
    }
    for name in service.endpoints_called_for() {
        counters.endpoints.entry(name).or_default();
    }
    for (name, endpoint) in &mut counters.endpoints {
        endpoint.unplaced = control.unplaced_at(name, endpoint).await?;
    }
    for (name, endpoint) in &mut counters.endpoints {
        endpoint.user_active_at = service.user_active_at(name);
        endpoint.callers_waiting = service.callers_waiting(name);
    }
    count(control, &counters);
    // A worker says itself how many jobs it runs at once; the next one of its endpoint will do as the last.
    let slots: BTreeMap<_, u32> = counters
        .endpoints
        .iter()
        .filter_map(|(name, of)| Some((name.clone(), of.instances.iter().map(|i| i.slots).max()?)))
        .collect();
    let endpoints = service.endpoints();
    let policy = endpoints.values().map(|endpoint| {
        let mut scaling = endpoint.scaling.clone();
        scaling.start_timeout += START_TIMEOUT_BACKSTOP;
        let policy = EndpointPolicy {
            scaling,
            gpus: endpoint.gpus.clone(),
            managed: matches!(endpoint.backend, Backend::Process(_)),
            slots_per_instance: slots.get(&endpoint.name).copied().unwrap_or(1),
        };
        (endpoint.name.clone(), policy)
    });
    Ok((
        counters,
        Policy {
            endpoints: policy.collect(),
        },
    ))
}

/// How many of its waiting jobs no slot may take, because of their tenants' quota.
async fn over_quota(control: &Control, name: &EndpointName, queued: u64) -> anyhow::Result<u64> {
    let service = &control.service;
    match service.endpoint(name).map(|of| of.limits.max_running_per_tenant) {
        Ok(limit @ 1..) if queued > 0 => Ok(service.store.over_quota(name, limit).await?),
        Ok(_) | Err(_) => Ok(0),
    }
}

/// The same numbers as metrics.
fn count(control: &Control, counters: &Counters) {
    let metrics = &control.service.metrics;
    for (name, endpoint) in &counters.endpoints {
        metrics.set_jobs(name, endpoint.queued, endpoint.running);
        for state in InstanceState::ALL.into_iter().filter(|s| !s.is_final()) {
            let there = endpoint.instances.iter().filter(|i| i.state == state).count();
            metrics.set_instances(name, state, there as u64);
        }
        let used = endpoint.instances.iter().filter_map(|i| control.resources(i.id));
        metrics.set_resources(name, &used.collect::<Vec<_>>());
    }
}

fn view(control: &Control, record: &InstanceRecord) -> InstanceView {
    let supervised = control.lock_supervised();
    let activity = supervised.get(&record.id).map(|s| s.activity.clone());
    drop(supervised);
    // Who came by itself is supervised by nobody.
    let activity = activity
        .or_else(|| control.service.agent_activity(record.id))
        .or_else(|| control.service.worker_activity(record.id));
    let idle_since = activity
        .as_ref()
        .map(|a| a.idle_since_micros())
        .filter(|&micros| micros != 0);
    InstanceView {
        id: record.id,
        state: record.state,
        slots: match record.state {
            InstanceState::Ready | InstanceState::Starting => activity.as_ref().map_or(1, |a| a.slots()),
            _ => 0,
        },
        busy: activity
            .as_ref()
            .map_or(0, |a| u32::try_from(a.busy()).unwrap_or(u32::MAX)),
        state_since: record.state_since,
        idle_since: idle_since
            .and_then(|m| i64::try_from(m).ok())
            .map(Timestamp::from_micros),
        jobs_done: activity
            .as_ref()
            .map_or(record.jobs_done, |a| u32::try_from(a.ended()).unwrap_or(u32::MAX)),
        rss_bytes: control.resources(record.id).map_or(0, |used| used.rss_bytes),
        gpu: record.gpu.clone(),
        phase: record.phases.last().and_then(|(word, _)| StartStep::parse(word)),
    }
}
