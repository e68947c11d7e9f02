//! Carrying out a plan: one match, each action a compare-and-set on what the planner saw.

use darkroom_core::{
    EndpointName, InstanceId, InstanceState,
    scheduler::{Decision, Verdict, plan::Action},
};
use darkroom_store::catalog::{InstanceChange, InstanceRecord};

use super::{Control, supervisor};

impl Control {
    pub(super) async fn execute(&self, action: Action, reasons: &[Decision]) -> anyhow::Result<()> {
        match action {
            Action::Start {
                endpoint,
                gpu,
                seen_live,
            } => {
                let why = reasons
                    .iter()
                    .find(|d| d.endpoint == endpoint && matches!(d.verdict, Verdict::Start { .. }));
                let why = why.map(ToString::to_string).unwrap_or_default();
                self.start(endpoint, gpu, seen_live, why).await
            }
            Action::Drain { instance, seen, .. } => {
                let change = state(InstanceState::Draining, "the planner drains it");
                if self
                    .service
                    .store
                    .change_instance(instance, seen.state, change)
                    .await?
                    && let Some(supervised) = self.lock_supervised().get(&instance)
                {
                    supervised.drain();
                }
                Ok(())
            }
            Action::Stop { instance, seen, .. } => {
                // A claim may have come in since the plan was made; then the next plan sees a busy instance.
                let busy = self
                    .lock_supervised()
                    .get(&instance)
                    .is_some_and(|s| s.activity.busy() > 0);
                if busy {
                    return Ok(());
                }
                let change = state(InstanceState::Stopping, "the planner stops it");
                if self
                    .service
                    .store
                    .change_instance(instance, seen.state, change)
                    .await?
                    && let Some(supervised) = self.lock_supervised().get(&instance)
                {
                    supervised.stop();
                }
                Ok(())
            }
            Action::FailStart {
                endpoint,
                instance,
                seen,
            } => {
                let reason = "was not ready within start_timeout";
                let change = state(InstanceState::Failed, reason);
                if self
                    .service
                    .store
                    .change_instance(instance, seen.state, change)
                    .await?
                {
                    self.start_failed(&endpoint, reason);
                    if let Some(supervised) = self.lock_supervised().get(&instance) {
                        supervised.stop();
                    }
                }
                Ok(())
            }
            // The store's clock decides which rows have run out of time; the tick begins with it.
            Action::Expire { .. } => {
                self.service.store.expire().await?;
                Ok(())
            }
        }
    }

    async fn start(
        &self,
        endpoint: EndpointName,
        gpu: Option<String>,
        seen_live: u32,
        why: String,
    ) -> anyhow::Result<()> {
        let service = &self.service;
        if self.closing.is_cancelled() {
            return Ok(());
        }
        let live = service.store.instances(false).await?;
        let live = live.iter().filter(|i| i.endpoint == endpoint).count();
        let Ok(configured) = service.endpoint(&endpoint) else {
            return Ok(());
        };
        if live != seen_live as usize {
            return Ok(());
        }
        let now = service.clock.now();
        let record = InstanceRecord {
            id: InstanceId::new(&*service.ids),
            endpoint,
            home: service.node.clone(),
            state: InstanceState::Starting,
            state_since: now,
            created_at: now,
            gpu,
            handle: None,
            start_reason: why,
            state_reason: String::new(),
            jobs_done: 0,
            phases: vec![],
        };
        service.store.add_instance(record.clone()).await?;
        tracing::info!(instance.id = %record.id, endpoint.name = %record.endpoint, "starting an instance");
        supervisor::begin(self, record, configured, supervisor::Origin::Fresh);
        Ok(())
    }
}

fn state(state: InstanceState, reason: &str) -> InstanceChange {
    InstanceChange {
        state: Some(state),
        reason: Some(reason.to_owned()),
        ..InstanceChange::default()
    }
}
