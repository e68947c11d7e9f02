//! Jobs that only some of an endpoint's boxes can run.

use std::collections::{BTreeMap, BTreeSet};

use darkroom_core::{InstanceId, InstanceState, scheduler::Counters};

use crate::service::{Error, Service, jobs::JobRecord};

impl Service {
    /// The boxes that alone can run a job (as callers call them), while none of them has a free slot; empty where none can any more. `None`: each
    /// box can, or one takes it now.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn only_on(
        &self,
        job: &JobRecord,
        counters: &Counters,
    ) -> Result<Option<Vec<String>>, Error> {
        let Ok(endpoint) = self.endpoint(&job.endpoint) else {
            return Ok(None);
        };
        let lacking = self.lacking_for(job.id, &job.endpoint).await?;
        let can: BTreeSet<String> = lacking
            .iter()
            .filter(|(_, lacks)| lacks.is_empty())
            .map(|(name, _)| name.clone())
            .collect();
        if can.len() == lacking.len() {
            return Ok(None);
        }
        let boxes: BTreeMap<InstanceId, String> = self
            .store
            .instances(false)
            .await?
            .into_iter()
            .map(|instance| (instance.id, instance.box_name))
            .collect();
        let here = counters.endpoints.get(&job.endpoint);
        let takes_it_now = here.into_iter().flat_map(|here| &here.instances).any(|instance| {
            instance.state == InstanceState::Ready
                && instance.busy < instance.slots
                && boxes.get(&instance.id).is_some_and(|name| can.contains(name))
        });
        let public = can.iter().map(|name| endpoint.public_box_name(name));
        Ok((!takes_it_now).then(|| public.collect()))
    }
}
