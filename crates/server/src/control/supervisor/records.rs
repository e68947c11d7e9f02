//! What is written down at an instance's end: its attempts, its state, and why.

use darkroom_core::{AttemptOutcome, AttemptState, InstanceState, attempt::Lease};
use darkroom_store::{
    catalog::InstanceChange,
    jobs::{AttemptRecord, Finish},
};

use super::Task;

impl Task {
    /// Ends what is still open on the instance that is gone: what its slot had no time to end, or was dropped between the
    /// claim and the slot. Outputs that are being collected need no instance.
    pub(super) async fn end_attempts(&self, outcome: &AttemptOutcome) {
        let service = &self.control.service;
        let open = match service.store.open_attempts(Some(&service.node)).await {
            Ok(open) => open,
            Err(error) => {
                return tracing::error!(instance.id = %self.id, error = ?error, "its attempts end when their leases do");
            }
        };
        let of_this = |a: &&AttemptRecord| a.instance == self.id && a.state != AttemptState::Collecting;
        for attempt in open.iter().filter(of_this) {
            let outcome = match &attempt.running_on {
                Some(_) => outcome.clone(),
                // A request is sent as soon as it is claimed.
                None if self.endpoint.is_http_worker() => outcome.clone(),
                None => AttemptOutcome::Released {
                    reason: "its instance was gone before its prompt was posted".to_owned(),
                },
            };
            let lease = Lease {
                job: attempt.job,
                fence: attempt.fence,
            };
            if let Err(error) = service.store.finish(lease, Finish::empty(outcome)).await {
                tracing::error!(job.id = %attempt.job, error = ?error, "an attempt ends when its lease does");
            }
        }
    }

    pub(super) async fn failed_start(&self, reason: &str) {
        let wished = self.stop.is_cancelled() || self.close.is_cancelled();
        if !wished {
            tracing::warn!(instance.id = %self.id, endpoint.name = %self.endpoint.name, reason, "a start failed");
            self.control.start_failed(&self.endpoint.name, reason);
        }
        self.finally(
            if wished {
                InstanceState::Stopped
            } else {
                InstanceState::Failed
            },
            reason,
        )
        .await;
    }

    /// Enters a final state from whatever state the record is in.
    pub(super) async fn finally(&self, to: InstanceState, reason: &str) {
        let store = &self.control.service.store;
        for _ in 0..3 {
            let record = match store.instance(self.id).await {
                Ok(Some(record)) if !record.state.is_final() => record,
                Ok(_) => return,
                Err(error) => {
                    return tracing::error!(error = ?error, "an instance's end could not be recorded");
                }
            };
            // The table of states knows `stopping -> stopped` and `anything -> failed`.
            let step = match (to, record.state) {
                (InstanceState::Stopped, InstanceState::Stopping) => InstanceState::Stopped,
                (InstanceState::Stopped, _) => InstanceState::Stopping,
                (_, InstanceState::Stopping) => InstanceState::Stopped,
                _ => InstanceState::Failed,
            };
            let change = InstanceChange {
                state: Some(step),
                reason: Some(reason.to_owned()),
                ..InstanceChange::default()
            };
            self.change(record.state, change).await;
        }
    }

    pub(super) async fn change(&self, seen: InstanceState, change: InstanceChange) -> bool {
        match self
            .control
            .service
            .store
            .change_instance(self.id, seen, change)
            .await
        {
            Ok(changed) => changed,
            Err(error) => {
                tracing::error!(instance.id = %self.id, error = ?error, "an instance's change could not be recorded");
                false
            }
        }
    }
}
