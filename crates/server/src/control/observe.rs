//! What the planner may look at, gathered from the store and from the slots of this process.

use std::time::Duration;

use darkroom_core::{
    InstanceState, Timestamp,
    endpoint::Backend,
    scheduler::{Counters, EndpointCounters, EndpointPolicy, InstanceView, Policy},
};
use darkroom_store::catalog::InstanceRecord;

use super::Control;

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
        counters.endpoints.insert(
            name,
            EndpointCounters {
                queued: queue.queued,
                queued_low_priority: queue.queued_low_priority,
                running: queue.running,
                oldest_queued_at: queue.oldest_queued_at,
                start_failures: failures.in_a_row,
                last_start_failure: failures.last,
                next_lease_expiry: queue.next_lease_expiry_at,
                next_queue_ttl: queue.next_expiry_at,
                ..EndpointCounters::default()
            },
        );
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
    count(control, &counters);
    let endpoints = service.endpoints();
    let policy = endpoints.values().map(|endpoint| {
        let mut scaling = endpoint.scaling.clone();
        scaling.start_timeout += START_TIMEOUT_BACKSTOP;
        let policy = EndpointPolicy {
            scaling,
            gpus: endpoint.gpus.clone(),
            managed: matches!(endpoint.backend, Backend::Process(_)),
            slots_per_instance: 1,
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

/// The same numbers as metrics.
fn count(control: &Control, counters: &Counters) {
    let metrics = &control.service.metrics;
    for (name, endpoint) in &counters.endpoints {
        metrics.set_jobs(name, endpoint.queued, endpoint.running);
        for state in InstanceState::ALL.into_iter().filter(|s| !s.is_final()) {
            let there = endpoint.instances.iter().filter(|i| i.state == state).count();
            metrics.set_instances(name, state, there as u64);
        }
    }
}

fn view(control: &Control, record: &InstanceRecord) -> InstanceView {
    let supervised = control.lock_supervised();
    let activity = supervised.get(&record.id).map(|s| s.activity.clone());
    drop(supervised);
    let idle_since = activity
        .as_ref()
        .map(|a| a.idle_since_micros())
        .filter(|&micros| micros != 0);
    InstanceView {
        id: record.id,
        state: record.state,
        slots: u32::from(record.state == InstanceState::Ready || record.state == InstanceState::Starting),
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
        rss_bytes: supervised_rss(control, record),
        gpu: record.gpu.clone(),
    }
}

fn supervised_rss(control: &Control, record: &InstanceRecord) -> u64 {
    control
        .lock_supervised()
        .get(&record.id)
        .map_or(0, |s| s.rss_bytes.load(std::sync::atomic::Ordering::Relaxed))
}
