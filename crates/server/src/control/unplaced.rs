//! Waiting jobs that no box of their endpoint can run any more: it was replaced, or lost a model. They wait, and nothing is
//! started or kept for them.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use darkroom_core::{EndpointName, InstanceState, endpoint::Backend, scheduler::EndpointCounters};

use super::Control;
use crate::service::object_info::Boxes;

/// An instance that is free for so long although jobs wait: perhaps none of them is for it.
const SUSPICIOUS: Duration = Duration::from_secs(2);
/// How long a count is believed while nothing seems to change.
const BELIEVED: Duration = Duration::from_secs(1);

/// What was counted last.
pub(super) struct Counted {
    unplaced: u64,
    queued: u64,
    boxes: Arc<Boxes>,
    at: Duration,
}

impl Control {
    /// How many waiting jobs no box can run. They are looked for only where one must suspect that there are some, since it
    /// reads the whole line.
    pub(super) async fn unplaced_at(
        &self,
        name: &EndpointName,
        counters: &EndpointCounters,
    ) -> anyhow::Result<u64> {
        let service = &self.service;
        let starts_instances = service
            .endpoint(name)
            .is_ok_and(|endpoint| matches!(endpoint.backend, Backend::Process(_)));
        if counters.queued == 0 || !starts_instances || !(self.suspects(counters) || self.has_some(name)) {
            self.lock_unplaced().remove(name);
            return Ok(0);
        }
        let boxes = service.boxes(name).await?;
        let now = service.clock.monotonic();
        if let Some(known) = self.lock_unplaced().get(name)
            && known.queued == counters.queued
            && Arc::ptr_eq(&known.boxes, &boxes)
            && now.saturating_sub(known.at) < BELIEVED
        {
            return Ok(known.unplaced);
        }
        // A box that has not told yet must start to tell.
        let unplaced = match boxes.is_empty() {
            true => 0,
            false => {
                let waiting = service.store.waiting_needs(name).await?;
                let nowhere = waiting
                    .iter()
                    .filter(|(needs, _)| !boxes.values().any(|one| one.offers.meets(needs)));
                nowhere.map(|(_, jobs)| jobs).sum()
            }
        };
        let counted = Counted {
            unplaced,
            queued: counters.queued,
            boxes,
            at: now,
        };
        self.lock_unplaced().insert(name.clone(), counted);
        Ok(unplaced)
    }

    fn suspects(&self, counters: &EndpointCounters) -> bool {
        let now = self.service.clock.now();
        counters.instances.iter().any(|instance| {
            let free_since = instance.idle_since.unwrap_or(instance.state_since);
            instance.state == InstanceState::Ready
                && instance.busy < instance.slots
                && now.since(free_since.max(instance.state_since)) > SUSPICIOUS
        })
    }

    fn has_some(&self, name: &EndpointName) -> bool {
        self.lock_unplaced()
            .get(name)
            .is_some_and(|known| known.unplaced > 0)
    }

    fn lock_unplaced(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeMap<EndpointName, Counted>> {
        self.unplaced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
