//! Every metric of the server, with its help text and typed labels. Label values are words of closed sets and names
//! of configured endpoints, never ids or anything a caller chose.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use darkroom_core::{EndpointName, InstanceState, JobState, Timestamp, event::EventKind};
use darkroom_store::{
    queues::QueueView,
    sqlite::{Committed, Ended},
};
use http::StatusCode;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use crate::{http::RouteClass, service::resources::Resources};

/// The metrics of one server. Cheap to update from anywhere; shared by `Arc`.
pub struct Metrics {
    registry: Mutex<Registry>,
    jobs_submitted: Family<ByEndpoint, Counter>,
    jobs_finished: Family<ByEndpointAndState, Counter>,
    attempts_lost: Family<ByEndpoint, Counter>,
    jobs_queued: Family<ByEndpoint, Gauge>,
    jobs_running: Family<ByEndpoint, Gauge>,
    queue_items: Family<ByQueue, Gauge>,
    queue_pending: Family<ByQueue, Gauge>,
    queue_consumers: Family<ByQueue, Gauge>,
    queue_lag_seconds: Family<ByQueue, Gauge>,
    queue_results_not_put: Counter,
    instances: Family<ByEndpointAndState, Gauge>,
    agents_connected: Family<ByEndpoint, Gauge>,
    instance_rss_bytes: Family<ByInstance, Gauge>,
    instance_cpu_percent: Family<ByInstance, Gauge>,
    instance_gpu_memory_bytes: Family<ByInstance, Gauge>,
    instance_gpu_percent: Family<ByInstance, Gauge>,
    events: Family<ByKind, Counter>,
    plan_actions: Family<ByAction, Counter>,
    webhooks: Family<ByOutcome, Counter>,
    http_requests: Family<ByRoute, Counter>,
    http_seconds: Family<ByRouteClass, Histogram, fn() -> Histogram>,
    commit_seconds: Family<ByCommitKind, Histogram, fn() -> Histogram>,
    commit_operations: Family<ByCommitKind, Histogram, fn() -> Histogram>,
    panics: Counter,
    proxied: Family<ByModel, Gauge>,
    /// How many instances of each endpoint have figures.
    shown_instances: Mutex<BTreeMap<EndpointName, usize>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let metrics = Metrics {
            registry: Mutex::default(),
            jobs_submitted: Family::default(),
            jobs_finished: Family::default(),
            attempts_lost: Family::default(),
            jobs_queued: Family::default(),
            jobs_running: Family::default(),
            queue_items: Family::default(),
            queue_pending: Family::default(),
            queue_consumers: Family::default(),
            queue_lag_seconds: Family::default(),
            queue_results_not_put: Counter::default(),
            instances: Family::default(),
            agents_connected: Family::default(),
            instance_rss_bytes: Family::default(),
            instance_cpu_percent: Family::default(),
            instance_gpu_memory_bytes: Family::default(),
            instance_gpu_percent: Family::default(),
            events: Family::default(),
            plan_actions: Family::default(),
            webhooks: Family::default(),
            http_requests: Family::default(),
            http_seconds: Family::new_with_constructor(request_buckets),
            commit_seconds: Family::new_with_constructor(|| Histogram::new(COMMIT_BUCKETS)),
            commit_operations: Family::new_with_constructor(|| Histogram::new(BATCH_BUCKETS)),
            panics: Counter::default(),
            proxied: Family::default(),
            shown_instances: Mutex::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&self) {
        let mut registry = self.lock();
        // Under the name that dashboards of such proxies look for (`protocols/kubeai.md` §7).
        registry.register(
            "kubeai_inference_requests_active",
            "Requests of the KubeAI-style proxy that have no answer yet",
            self.proxied.clone(),
        );
        let r = registry.sub_registry_with_prefix("darkroom");
        r.register("jobs_submitted", "Jobs accepted", self.jobs_submitted.clone());
        r.register(
            "jobs_finished",
            "Jobs that reached a final state",
            self.jobs_finished.clone(),
        );
        r.register(
            "attempts_lost",
            "Attempts whose instance died or stalled",
            self.attempts_lost.clone(),
        );
        r.register(
            "jobs_queued",
            "Jobs that wait for a slot",
            self.jobs_queued.clone(),
        );
        r.register(
            "jobs_running",
            "Jobs that an attempt holds",
            self.jobs_running.clone(),
        );
        r.register(
            "queue_items",
            "Items of a queue, of all tenants",
            self.queue_items.clone(),
        );
        r.register(
            "queue_pending",
            "Items that consumers hold",
            self.queue_pending.clone(),
        );
        r.register(
            "queue_consumers",
            "Consumers that are connected",
            self.queue_consumers.clone(),
        );
        r.register(
            "queue_results_not_put",
            "Times that a job's result could not be put on its sink",
            self.queue_results_not_put.clone(),
        );
        r.register(
            "queue_lag_seconds",
            "Age of the oldest item",
            self.queue_lag_seconds.clone(),
        );
        r.register("instances", "Instances by state", self.instances.clone());
        r.register(
            "agents_connected",
            "Agents on other machines that are connected",
            self.agents_connected.clone(),
        );
        r.register(
            "events",
            "Events of jobs, durable ones by kind",
            self.events.clone(),
        );
        r.register(
            "plan_actions",
            "Actions of the planner that were executed",
            self.plan_actions.clone(),
        );
        r.register(
            "webhooks",
            "Deliveries of webhooks that were tried",
            self.webhooks.clone(),
        );
        r.register(
            "http_requests",
            "Requests answered, by class of route and status",
            self.http_requests.clone(),
        );
        r.register(
            "http_request_duration_seconds",
            "Time to the head of the answer",
            self.http_seconds.clone(),
        );
        r.register(
            "store_commit_duration_seconds",
            "Time of one commit: durable ones wait for the disk",
            self.commit_seconds.clone(),
        );
        r.register(
            "store_commit_operations",
            "Operations in one commit",
            self.commit_operations.clone(),
        );
        r.register(
            "instance_rss_bytes",
            "Resident memory of an instance's processes",
            self.instance_rss_bytes.clone(),
        );
        r.register(
            "instance_cpu_percent",
            "Processor time an instance uses, 100 per core",
            self.instance_cpu_percent.clone(),
        );
        r.register(
            "instance_gpu_memory_bytes",
            "Memory taken on an instance's GPU, by whomever",
            self.instance_gpu_memory_bytes.clone(),
        );
        r.register(
            "instance_gpu_percent",
            "How busy an instance's GPU is",
            self.instance_gpu_percent.clone(),
        );
        r.register(
            "panics",
            "Requests that ended in a bug of ours",
            self.panics.clone(),
        );
    }

    /// A job's result could not be put on its sink.
    pub fn result_not_put(&self) {
        self.queue_results_not_put.inc();
    }

    /// A job was accepted.
    pub fn job_submitted(&self, endpoint: &EndpointName) {
        self.jobs_submitted
            .get_or_create(&ByEndpoint::new(endpoint))
            .inc();
    }

    fn job_finished(&self, endpoint: &EndpointName, state: JobState) {
        let labels = ByEndpointAndState {
            endpoint: endpoint.to_string(),
            state: Word(state.as_str()),
        };
        self.jobs_finished.get_or_create(&labels).inc();
    }

    fn attempt_lost(&self, endpoint: &EndpointName) {
        self.attempts_lost.get_or_create(&ByEndpoint::new(endpoint)).inc();
    }

    /// A request of the KubeAI-style proxy counts as active for as long as this is held.
    pub fn proxied(&self, endpoint: &EndpointName) -> Active {
        let labels = ByModel {
            request_model: endpoint.to_string(),
            request_type: Word("http"),
        };
        let active = Active(self.proxied.get_or_create(&labels).clone());
        active.0.inc();
        active
    }

    /// How many jobs wait and run now.
    pub fn set_jobs(&self, endpoint: &EndpointName, queued: u64, running: u64) {
        let labels = ByEndpoint::new(endpoint);
        self.jobs_queued.get_or_create(&labels).set(gauge_value(queued));
        self.jobs_running.get_or_create(&labels).set(gauge_value(running));
    }

    /// What queues hold now; those of one endpoint and side are added up over the tenants.
    pub fn set_queues(&self, views: &[QueueView], now: Timestamp) {
        let mut sums: BTreeMap<(&EndpointName, &'static str), [u64; 4]> = BTreeMap::new();
        for view in views {
            let sum = sums
                .entry((&view.id.endpoint, view.id.side.as_str()))
                .or_default();
            let lag = view.oldest_put_at.map_or(0, |at| now.since(at).as_secs());
            *sum = [
                sum[0] + view.length,
                sum[1] + view.pending,
                sum[2] + view.consumers,
                sum[3].max(lag),
            ];
        }
        for ((endpoint, side), [items, pending, consumers, lag]) in sums {
            let labels = ByQueue {
                endpoint: endpoint.to_string(),
                side: Word(side),
            };
            for (family, value) in [
                (&self.queue_items, items),
                (&self.queue_pending, pending),
                (&self.queue_consumers, consumers),
                (&self.queue_lag_seconds, lag),
            ] {
                family.get_or_create(&labels).set(gauge_value(value));
            }
        }
    }

    /// How many instances are in a state now.
    pub fn set_instances(&self, endpoint: &EndpointName, state: InstanceState, count: u64) {
        let labels = ByEndpointAndState {
            endpoint: endpoint.to_string(),
            state: Word(state.as_str()),
        };
        self.instances.get_or_create(&labels).set(gauge_value(count));
    }

    /// How many agents are connected now.
    pub fn set_agents(&self, endpoint: &EndpointName, count: u64) {
        self.agents_connected
            .get_or_create(&ByEndpoint::new(endpoint))
            .set(gauge_value(count));
    }

    /// What an endpoint's instances use now, oldest first. Their label is their place in this order, from 1.
    pub fn set_resources(&self, endpoint: &EndpointName, used: &[Resources]) {
        let mut shown = self
            .shown_instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let before = shown.insert(endpoint.clone(), used.len()).unwrap_or(0);
        for place in 0..before.max(used.len()) {
            let labels = ByInstance {
                endpoint: endpoint.to_string(),
                instance: place as u64 + 1,
            };
            let of = used.get(place);
            let gpu = of.and_then(|used| used.gpu.as_ref());
            for (family, value) in [
                (&self.instance_rss_bytes, of.map(|used| used.rss_bytes)),
                (
                    &self.instance_cpu_percent,
                    of.and_then(|used| used.cpu_percent)
                        .map(|percent| percent.round() as u64),
                ),
                (
                    &self.instance_gpu_memory_bytes,
                    gpu.map(|gpu| gpu.memory_used_bytes),
                ),
                (
                    &self.instance_gpu_percent,
                    gpu.and_then(|gpu| gpu.utilization_percent).map(u64::from),
                ),
            ] {
                match value {
                    Some(value) => {
                        family.get_or_create(&labels).set(gauge_value(value));
                    }
                    // Of what is gone, or does not tell, there is no figure.
                    None => {
                        family.remove(&labels);
                    }
                }
            }
        }
    }

    /// A durable event was appended.
    pub fn event(&self, kind: EventKind) {
        self.count_event(kind.as_str(), 1);
    }

    /// Ephemeral events (progress, previews) were passed on.
    pub fn ephemeral_events(&self, count: u64) {
        self.count_event("ephemeral", count);
    }

    fn count_event(&self, kind: &'static str, count: u64) {
        self.events
            .get_or_create(&ByKind { kind: Word(kind) })
            .inc_by(count);
    }

    /// An action of a plan was executed; `action` is its name, `done` whether it still applied.
    pub fn plan_action(&self, action: &'static str, done: bool) {
        let labels = ByAction {
            action: Word(action),
            outcome: Word(if done { "done" } else { "superseded" }),
        };
        self.plan_actions.get_or_create(&labels).inc();
    }

    /// A delivery of a webhook was tried: `acknowledged`, `failed` (it is tried again) or `gave_up`.
    pub fn webhook(&self, outcome: &'static str) {
        let labels = ByOutcome {
            outcome: Word(outcome),
        };
        self.webhooks.get_or_create(&labels).inc();
    }

    /// A request was answered.
    pub fn http_request(&self, route: RouteClass, status: StatusCode, took: Duration) {
        let labels = ByRoute {
            route: Word(route.as_str()),
            status: status.as_u16(),
        };
        self.http_requests.get_or_create(&labels).inc();
        self.http_seconds
            .get_or_create(&ByRouteClass {
                route: Word(route.as_str()),
            })
            .observe(took.as_secs_f64());
    }

    /// A group of operations was committed. Ends of jobs and attempts are counted here and nowhere else: the store
    /// alone knows all who bring them about.
    pub fn commit(&self, commit: Committed) {
        for ended in &commit.ended {
            match ended {
                Ended::Job(endpoint, state) => self.job_finished(endpoint, *state),
                Ended::LostAttempt(endpoint) => self.attempt_lost(endpoint),
            }
        }
        let kind = ByCommitKind {
            kind: Word(if commit.durable { "durable" } else { "ride_along" }),
        };
        self.commit_seconds
            .get_or_create(&kind)
            .observe(commit.took.as_secs_f64());
        // Far below 2^52, so exact.
        self.commit_operations
            .get_or_create(&kind)
            .observe(commit.operations as f64);
    }

    /// A handler panicked.
    pub fn panicked(&self) {
        self.panics.inc();
    }

    /// All of it in the OpenMetrics text format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.lock()).expect("writing into a text cannot fail");
        text
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Registry> {
        self.registry
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// 100 µs (memory) to 5 s (a disk in trouble).
const COMMIT_BUCKETS: [f64; 12] = [
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
];

/// A batch is at most 256 operations.
const BATCH_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// 1 ms (status) to 10 min (a synchronous run).
fn request_buckets() -> Histogram {
    Histogram::new([
        0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 600.0,
    ])
}

fn gauge_value(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A label value from a closed set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Word(&'static str);

impl EncodeLabelValue for Word {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEndpoint {
    endpoint: String,
}

impl ByEndpoint {
    fn new(endpoint: &EndpointName) -> Self {
        ByEndpoint {
            endpoint: endpoint.to_string(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEndpointAndState {
    endpoint: String,
    state: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByInstance {
    endpoint: String,
    instance: u64,
}

/// A request that has no answer yet; counted until it is dropped.
#[derive(Debug)]
pub struct Active(Gauge);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByModel {
    request_model: String,
    request_type: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByQueue {
    endpoint: String,
    side: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByKind {
    kind: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAction {
    action: Word,
    outcome: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRoute {
    route: Word,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByRouteClass {
    route: Word,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCommitKind {
    kind: Word,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::resources::GpuUse;

    #[test]
    fn figures_of_instances_go_with_them() {
        let metrics = Metrics::new();
        let endpoint: EndpointName = "sdxl".parse().unwrap();
        let used = |rss_bytes| Resources {
            rss_bytes,
            cpu_percent: Some(149.6),
            processes: 1,
            gpu: Some(GpuUse {
                index: 0,
                uuid: "GPU-1".into(),
                memory_used_bytes: 5,
                memory_total_bytes: 9,
                utilization_percent: None,
            }),
        };
        metrics.set_resources(&endpoint, &[used(7), used(8)]);
        let text = metrics.render();
        for line in [
            "darkroom_instance_rss_bytes{endpoint=\"sdxl\",instance=\"2\"} 8",
            "darkroom_instance_cpu_percent{endpoint=\"sdxl\",instance=\"1\"} 150",
            "darkroom_instance_gpu_memory_bytes{endpoint=\"sdxl\",instance=\"1\"} 5",
        ] {
            assert!(text.contains(line), "missing {line} in\n{text}");
        }
        assert!(!text.contains("darkroom_instance_gpu_percent{"), "{text}");
        metrics.set_resources(&endpoint, &[used(9)]);
        let text = metrics.render();
        assert!(
            text.contains("instance=\"1\"} 9") && !text.contains("instance=\"2\""),
            "{text}"
        );
    }

    #[test]
    fn what_was_counted_is_rendered() {
        let metrics = Metrics::new();
        let endpoint: EndpointName = "sdxl".parse().unwrap();
        metrics.job_submitted(&endpoint);
        metrics.set_jobs(&endpoint, 3, 1);
        metrics.set_instances(&endpoint, InstanceState::Ready, 2);
        metrics.event(EventKind::Output);
        metrics.plan_action("start", true);
        metrics.http_request(RouteClass::Serverless, StatusCode::OK, Duration::from_millis(3));
        metrics.commit(Committed {
            operations: 17,
            took: Duration::from_micros(800),
            durable: true,
            ended: vec![
                Ended::Job(endpoint.clone(), JobState::Succeeded),
                Ended::LostAttempt(endpoint.clone()),
            ],
        });
        let active = (metrics.proxied(&endpoint), metrics.proxied(&endpoint));
        drop(active.0);
        let text = metrics.render();
        for line in [
            "kubeai_inference_requests_active{request_model=\"sdxl\",request_type=\"http\"} 1",
            "darkroom_jobs_submitted_total{endpoint=\"sdxl\"} 1",
            "darkroom_jobs_finished_total{endpoint=\"sdxl\",state=\"succeeded\"} 1",
            "darkroom_attempts_lost_total{endpoint=\"sdxl\"} 1",
            "darkroom_jobs_queued{endpoint=\"sdxl\"} 3",
            "darkroom_jobs_running{endpoint=\"sdxl\"} 1",
            "darkroom_instances{endpoint=\"sdxl\",state=\"ready\"} 2",
            "darkroom_events_total{kind=\"output\"} 1",
            "darkroom_plan_actions_total{action=\"start\",outcome=\"done\"} 1",
            "darkroom_http_requests_total{route=\"serverless\",status=\"200\"} 1",
            "darkroom_http_request_duration_seconds_bucket{le=\"0.005\",route=\"serverless\"} 1",
            "darkroom_store_commit_duration_seconds_count{kind=\"durable\"} 1",
            "darkroom_store_commit_operations_bucket{le=\"32.0\",kind=\"durable\"} 1",
        ] {
            assert!(text.contains(line), "missing {line} in\n{text}");
        }
    }
}
