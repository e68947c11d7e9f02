//! Finds out that an agent is away for good.

use std::{sync::Arc, time::Duration};

use darkroom_core::{AttemptOutcome, InstanceState};
use tokio_util::sync::CancellationToken;

use super::Agent;
use crate::service::{Service, attempts::LEASE};

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
            }
        }
        for (name, endpoint) in self.endpoints().iter() {
            if Self::takes_agents(endpoint) {
                self.metrics.set_agents(name, self.agents_connected(name));
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
