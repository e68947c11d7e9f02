//! What a seed stands for: the endpoints, the tenants, their jobs, and how unfriendly the world is.

use std::{collections::BTreeMap, time::Duration};

use super::random::Random;
use crate::{
    EndpointName, TenantId,
    endpoint::Scaling,
    retry,
    scheduler::{EndpointPolicy, Policy},
};

/// After this, nothing bad happens any more, so that everything can come to its end.
pub(super) const FAULTS_UNTIL: Duration = Duration::from_secs(300);

pub(super) struct Scenario {
    pub(super) policy: Policy,
    pub(super) limits: BTreeMap<EndpointName, retry::Limits>,
    /// When, and what.
    pub(super) jobs: Vec<(Duration, JobSpec)>,
    /// Jobs of different priorities: then tenants may wait for each other as long as it takes.
    pub(super) priorities: bool,
    /// In percent, per prompt or start.
    pub(super) faults: u64,
    /// How often the server is away, clocks jump, operators interfere.
    pub(super) troubles: u32,
    /// Cancels and explicit retries.
    pub(super) cancels: u32,
}

#[derive(Debug, Clone)]
pub(super) struct JobSpec {
    pub(super) endpoint: EndpointName,
    pub(super) tenant: TenantId,
    pub(super) priority: i32,
    pub(super) models: Vec<String>,
    pub(super) ttl: Option<Duration>,
    pub(super) nature: Nature,
}

/// What a job does to whoever runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Succeeds,
    /// Its workflow raises.
    Fails,
    /// It kills its instance, every time.
    Kills,
}

impl Scenario {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut scenario = Scenario {
            policy: Policy::default(),
            limits: BTreeMap::new(),
            jobs: Vec::new(),
            priorities: random.percent(30),
            faults: *random.of(&[0, 0, 5, 15, 30]),
            troubles: *random.of(&[0, 0, 1, 3, 6]),
            cancels: *random.of(&[0, 2, 6]),
        };
        let shared_gpu = random.percent(30);
        for name in ["a", "b", "c"].into_iter().take(random.small(1, 3) as usize) {
            let name: EndpointName = name.parse().expect("a good name");
            let policy = endpoint(random, shared_gpu);
            let limits = retry::Limits {
                max_attempts: random.small(1, 3),
            };
            scenario.policy.endpoints.insert(name.clone(), policy);
            scenario.limits.insert(name.clone(), limits);
            scenario.add_jobs(random, &name);
        }
        scenario
    }

    fn add_jobs(&mut self, random: &mut Random, endpoint: &EndpointName) {
        let tenants = random.small(1, 4);
        for t in 0..tenants {
            let tenant: TenantId = format!("t{t}").parse().expect("a good name");
            let floods = t == 0 && random.percent(60);
            let jobs = if floods {
                random.small(10, 25)
            } else {
                random.small(1, 5)
            };
            for _ in 0..jobs {
                let at = if floods {
                    random.millis(0, 2_000)
                } else {
                    random.millis(0, 240_000)
                };
                let priority = if self.priorities {
                    *random.of(&[0, 0, 1, 5])
                } else {
                    0
                };
                let models = (0..random.small(0, 2)).map(|_| (*random.of(&["sd", "xl", "flux"])).to_owned());
                let spec = JobSpec {
                    endpoint: endpoint.clone(),
                    tenant: tenant.clone(),
                    priority,
                    models: models.collect(),
                    ttl: random.percent(5).then(|| random.millis(1_000, 60_000)),
                    nature: match random.between(0, 99) {
                        0..90 => Nature::Succeeds,
                        90..96 => Nature::Fails,
                        _ => Nature::Kills,
                    },
                };
                self.jobs.push((at, spec));
            }
        }
    }
}

fn endpoint(random: &mut Random, shared_gpu: bool) -> EndpointPolicy {
    let managed = random.percent(85);
    let gpus: &[&str] = match random.between(0, 2) {
        _ if shared_gpu => &["0"],
        0 => &["0", "1"],
        _ => &[],
    };
    let max_instances = random.small(1, 3);
    EndpointPolicy {
        scaling: Scaling {
            // Two endpoints that both want to keep the one GPU could never both be content.
            min_instances: if gpus.is_empty() && random.percent(20) {
                1
            } else {
                0
            },
            max_instances,
            idle_timeout: random.millis(0, 40_000),
            start_timeout: random.millis(15_000, 60_000),
            max_jobs_per_instance: if random.percent(20) { random.small(1, 5) } else { 0 },
            ..Scaling::default()
        },
        gpus: gpus.iter().map(|g| (*g).to_owned()).collect(),
        managed,
        slots_per_instance: if random.percent(80) { 1 } else { 2 },
    }
}
