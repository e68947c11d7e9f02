//! Carrying out a plan: one match, each action a compare-and-set on what the planner saw.

use darkroom_core::{
    EndpointName, InstanceId, InstanceState,
    endpoint::{Backend, Kind},
    scheduler::{Decision, Verdict, plan::Action},
};
use darkroom_store::catalog::{InstanceChange, InstanceRecord};

use super::{
    Control,
    supervisor::{self, Supervised},
};

impl Control {
    /// Carries out one action, unless the world has moved on; both are counted.
    pub(super) async fn execute(&self, action: Action, reasons: &[Decision]) -> anyhow::Result<()> {
        let name = name(&action);
        let done = match action {
            Action::Start {
                endpoint,
                gpu,
                seen_live,
            } => {
                let why = reasons
                    .iter()
                    .find(|d| d.endpoint == endpoint && matches!(d.verdict, Verdict::Start { .. }))
                    .map(ToString::to_string);
                self.start(endpoint, gpu, seen_live, why.unwrap_or_default())
                    .await?
            }
            Action::Drain { instance, seen, .. } => {
                let done = self
                    .enter(
                        instance,
                        seen.state,
                        InstanceState::Draining,
                        "the planner drains it",
                    )
                    .await?;
                self.tell(instance, done, Supervised::drain);
                if done {
                    self.service.agent_drains(instance);
                }
                done
            }
            Action::Stop { instance, seen, .. } => {
                // A claim may have come in since the plan was made; then the next plan sees a busy instance.
                let busy = self
                    .lock_supervised()
                    .get(&instance)
                    .map(|s| s.activity.clone())
                    .or_else(|| self.service.agent_activity(instance))
                    .or_else(|| self.service.worker_activity(instance))
                    .is_some_and(|activity| activity.busy() > 0);
                let done = !busy
                    && self
                        .enter(
                            instance,
                            seen.state,
                            InstanceState::Stopping,
                            "the planner stops it",
                        )
                        .await?;
                self.tell(instance, done, Supervised::stop);
                if done {
                    self.service.agent_dismissed(instance).await;
                    self.service.worker_dismissed(instance).await;
                }
                done
            }
            Action::FailStart {
                endpoint,
                instance,
                seen,
            } => {
                let reason = "was not ready within start_timeout";
                let done = self
                    .enter(instance, seen.state, InstanceState::Failed, reason)
                    .await?;
                if done {
                    self.start_failed(&endpoint, reason);
                }
                // Should the server die before the process is ended: no live row knows it then, and the next one ends it.
                self.tell(instance, done, Supervised::stop);
                done
            }
            // The store's clock decides which rows have run out of time; of a plan that names several endpoints, the
            // first of these actions finds all that is due.
            Action::Expire { .. } => {
                let swept = self.service.store.expire().await?;
                if swept.more {
                    self.wake();
                }
                swept.rows > 0
            }
        };
        self.service.metrics.plan_action(name, done);
        Ok(())
    }

    pub(super) async fn enter(
        &self,
        instance: InstanceId,
        seen: InstanceState,
        to: InstanceState,
        reason: &str,
    ) -> anyhow::Result<bool> {
        let change = InstanceChange {
            state: Some(to),
            reason: Some(reason.to_owned()),
            ..InstanceChange::default()
        };
        Ok(self.service.store.change_instance(instance, seen, change).await?)
    }

    pub(super) fn tell(&self, instance: InstanceId, done: bool, what: fn(&Supervised)) {
        if done && let Some(supervised) = self.lock_supervised().get(&instance) {
            what(supervised);
        }
    }

    async fn start(
        &self,
        endpoint: EndpointName,
        gpu: Option<String>,
        seen_live: u32,
        why: String,
    ) -> anyhow::Result<bool> {
        let service = &self.service;
        let Ok(configured) = service.endpoint(&endpoint) else {
            return Ok(false);
        };
        let live = service.store.instances(false).await?;
        let live = live.iter().filter(|i| i.endpoint == endpoint).count();
        if live != seen_live as usize || self.closing.is_cancelled() {
            return Ok(false);
        }
        let box_name = match &configured.backend {
            Backend::Process(spec) => spec.box_name(),
            Backend::Remote { .. } | Backend::External => return Ok(false),
        };
        let now = service.clock.now();
        let record = InstanceRecord {
            id: InstanceId::new(&*service.ids),
            endpoint,
            home: service.node.clone(),
            state: InstanceState::Starting,
            state_since: now,
            created_at: now,
            gpu,
            box_name,
            handle: None,
            start_reason: why,
            state_reason: String::new(),
            jobs_done: 0,
            phases: vec![],
        };
        service.store.add_instance(record.clone()).await?;
        tracing::info!(instance.id = %record.id, endpoint.name = %record.endpoint, "starting an instance");
        match configured.kind {
            Kind::Worker if configured.has_pull_workers() => {
                supervisor::worker::begin(self, record, configured, None).await;
            }
            Kind::Worker | Kind::Comfyui | Kind::Queue => {
                supervisor::begin(self, record, configured, supervisor::Origin::Fresh);
            }
        }
        Ok(true)
    }
}

/// The name an action is counted under.
fn name(action: &Action) -> &'static str {
    match action {
        Action::Start { .. } => "start",
        Action::Drain { .. } => "drain",
        Action::Stop { .. } => "stop",
        Action::FailStart { .. } => "fail_start",
        Action::Expire { .. } => "expire",
    }
}
