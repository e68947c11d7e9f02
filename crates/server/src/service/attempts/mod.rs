//! The in-process form of `AttemptLink`: one slot of one instance, claiming from the store and writing under its fence.
//!
//! [`link`] is the port itself, `assign` what happens between a claim and the slot, `held` the renewing of leases beside
//! the slot, `remote` what a slot on another machine needs, `replay` one whose instance answers HTTP, `outputs` the way of
//! produced files, `activity` what the planner reads.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use darkroom_core::{
    EndpointName, InstanceId,
    attempt::{Lease, RunningOn},
    endpoint::Limits,
};
use darkroom_runner::link::LinkError;
use darkroom_store::jobs::JobRecord;
use tokio_util::sync::CancellationToken;

use super::Service;

mod activity;
mod assign;
mod held;
mod link;
mod outputs;
mod remote;
mod replay;
#[cfg(test)]
mod tests;

pub use activity::SlotActivity;
use held::Held;
pub use replay::Replay;

/// How long a claim holds a job unless renewed. Long enough for a restart of the server (2 s) many times over, short
/// enough that a dead server's jobs do not wait long.
pub const LEASE: Duration = Duration::from_secs(30);

/// One slot of one instance. Dropped, it lets go of what it still holds: those leases run out.
pub struct SlotLink {
    service: Service,
    endpoint: EndpointName,
    instance: InstanceId,
    /// The box that the instance runs on.
    box_name: String,
    /// Limits of the endpoint when the instance was begun.
    limits: Limits,
    /// Claim nothing more once this is cancelled.
    draining: CancellationToken,
    adopted: Mutex<VecDeque<Adopted>>,
    held: Mutex<HashMap<Lease, Arc<Held>>>,
    activity: Arc<SlotActivity>,
}

/// An attempt that runs on the instance from before a restart.
#[derive(Debug)]
pub struct Adopted {
    /// Its job.
    pub job: JobRecord,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Its lease, which this server took over.
    pub lease: Lease,
    /// Where and as what it runs.
    pub on: RunningOn,
}

impl SlotLink {
    /// A slot of an instance; it claims until `draining` is cancelled.
    pub fn new(
        service: Service,
        endpoint: EndpointName,
        limits: Limits,
        instance: InstanceId,
        draining: CancellationToken,
        activity: Arc<SlotActivity>,
    ) -> Self {
        SlotLink {
            service,
            endpoint,
            instance,
            box_name: String::new(),
            limits,
            draining,
            adopted: Mutex::new(VecDeque::new()),
            held: Mutex::new(HashMap::new()),
            activity,
        }
    }

    /// The same on a box of this name: it takes only jobs that can run there.
    #[must_use]
    pub fn on_box(mut self, box_name: impl Into<String>) -> Self {
        self.box_name = box_name.into();
        self
    }

    /// An attempt that already runs on the instance, from before a restart: handed out first. Its lease is renewed from
    /// now on: the slot may have to wait long until its instance answers again.
    pub fn adopt(&self, adopted: Adopted) {
        let prompt_id = adopted.on.prompt_id.clone();
        self.hold(adopted.lease, &adopted.job, Some(prompt_id));
        self.lock_adopted().push_back(adopted);
    }

    fn pop_adopted(&self) -> Option<Adopted> {
        self.lock_adopted().pop_front()
    }

    fn lock_adopted(&self) -> std::sync::MutexGuard<'_, VecDeque<Adopted>> {
        self.adopted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_held(&self) -> std::sync::MutexGuard<'_, HashMap<Lease, Arc<Held>>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, lease: Lease) -> Option<Arc<Held>> {
        self.lock_held().get(&lease).cloned()
    }

    fn hold(&self, lease: Lease, job: &JobRecord, prompt_id: Option<String>) -> Arc<Held> {
        let models = job.meta.models.clone();
        let held = Held::begin(&self.service, lease, models, prompt_id, self.may_take(job));
        self.lock_held().insert(lease, held.clone());
        self.activity.began();
        held
    }

    fn let_go(&self, lease: Lease) {
        let held = self.lock_held().remove(&lease);
        if let Some(held) = held {
            self.ended(lease, &held);
        }
    }

    fn ended(&self, lease: Lease, held: &Held) {
        let was_collecting = held.end();
        self.activity.end(was_collecting, self.service.clock.now());
        self.service.hub.attempt_ended(lease);
    }
}

impl Drop for SlotLink {
    fn drop(&mut self) {
        self.let_go_of_all();
    }
}

fn store_away(error: darkroom_store::Error) -> LinkError {
    tracing::warn!(error = ?error, "the store failed under an attempt");
    LinkError::Unavailable(error.to_string())
}

fn blobs_away(error: &darkroom_blobs::Error) -> LinkError {
    if error.is_transient() {
        LinkError::Unavailable(error.to_string())
    } else {
        LinkError::Rejected(error.to_string())
    }
}
