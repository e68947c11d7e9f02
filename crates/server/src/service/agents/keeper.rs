//! Finds out that an agent is away for good.

use std::{sync::Arc, time::Duration};

use darkroom_core::{AttemptOutcome, Failure, InstanceState, failure::FailureCode};
use darkroom_runner::link::AttemptLink;
use darkroom_store::jobs::Finish;
use tokio_util::sync::CancellationToken;

use super::Agent;
use crate::service::{
    Service,
    attempts::{LEASE, SlotLink},
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A look that comes later than this was not the agents' fault.
const GAP: Duration = Duration::from_secs(5);
/// An agent that says nothing for so long is gone: as long as a server that says nothing keeps its attempts. It is enough
/// for a restart of either side, and no job waits longer for a machine that lost its power.
pub(super) const AWAY: Duration = LEASE;

impl Service {
    /// Looks after agents until `shutdown`. Once per service.
    pub async fn keep_agents(&self, shutdown: CancellationToken) {
        let mut last = self.clock.monotonic();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            let now = self.clock.monotonic();
            let gap = now.saturating_sub(last);
            last = now;
            self.look_after_agents(if gap > GAP { gap } else { Duration::ZERO })
                .await;
        }
    }

    /// One look. `gap`: for so long nobody could be heard.
    pub(super) async fn look_after_agents(&self, gap: Duration) {
        let now = self.clock.monotonic();
        for agent in self.agents.all() {
            let silent_for = {
                let mut heard = agent.heard();
                heard.at += gap;
                if heard.open > 0 {
                    heard.at = now;
                }
                now.saturating_sub(heard.at)
            };
            if silent_for >= AWAY {
                self.agent_lost(&agent, silent_for).await;
            } else if let Some(seat) = agent.seat() {
                self.end_overdue(&seat.link).await;
            }
        }
        for (name, endpoint) in self.endpoints().iter() {
            if Self::takes_agents(endpoint) {
                self.metrics.set_agents(name, self.agents_connected(name));
            }
        }
    }

    /// The bounds of a run are looked after where it runs; an agent that does not is not waited for without end.
    async fn end_overdue(&self, link: &SlotLink) {
        for lease in link.overdue(self.clock.monotonic()) {
            tracing::warn!(job.id = %lease.job, "an agent's job ran too long, and its agent did not end it");
            let why = "it ran longer than its execution timeout";
            let failed = AttemptOutcome::Failed(Failure::new(FailureCode::ExecutionTimeout, why));
            match self.store.finish(lease, Finish::empty(failed)).await {
                // Whoever still works on it is told that it is not his any more.
                Ok(_) => link.abandoned(lease),
                Err(error) => {
                    tracing::warn!(job.id = %lease.job, error = ?error, "an overdue attempt could not be ended");
                }
            }
        }
    }

    async fn agent_lost(&self, agent: &Arc<Agent>, silent_for: Duration) {
        let reason = format!("nothing was heard of its agent for {} s", silent_for.as_secs());
        let lost = AttemptOutcome::Lost {
            reason: reason.clone(),
        };
        self.agent_gone(agent, &lost, InstanceState::Failed, &reason)
            .await;
    }
}
