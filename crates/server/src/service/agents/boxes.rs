//! What is known of boxes whose agents are away.

use std::collections::BTreeSet;

use darkroom_core::EndpointName;

use crate::service::{Error, Service};

/// Of one endpoint, those that told last. So many are kept, so that graphs are checked while no agent is connected; machines
/// that are rented by the hour, each with a name of its own, would fill the store else.
pub(super) const ABSENT: usize = 8;

impl Service {
    /// Forgets what the boxes of agents could do that are gone, but for the last few.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn forget_absent_boxes(&self, endpoint: &EndpointName) -> Result<(), Error> {
        let agents = self.agents.all();
        let here: BTreeSet<&str> = agents
            .iter()
            .filter(|agent| agent.endpoint == *endpoint)
            .map(|agent| agent.who.agent.as_str())
            .collect();
        let boxes = self.boxes(endpoint).await?;
        let mut absent: Vec<_> = boxes
            .iter()
            .filter(|(name, _)| !here.contains(name.as_str()))
            .collect();
        absent.sort_by_key(|(_, abilities)| abilities.learned_at);
        let surplus = absent.len().saturating_sub(ABSENT);
        for (name, _) in &absent[..surplus] {
            self.forget_box(endpoint, name).await?;
        }
        Ok(())
    }
}
