//! What a starting server finds: instances that outlived the one before, attempts that run on them, and leftovers.

use std::collections::BTreeMap;

use darkroom_core::{AttemptOutcome, InstanceId, InstanceState, attempt::Lease};
use darkroom_instances::{Handle, Recognition};
use darkroom_store::{
    catalog::{InstanceChange, InstanceRecord},
    jobs::{AttemptRecord, Finish},
};

use super::{Control, STOP_GRACE_AT_START, supervisor};
use crate::service::attempts::{Adopted, LEASE};

impl Control {
    /// Recognises instances by their handles, adopts what runs on them under its fence, gives back the rest, and ends
    /// what nobody knows.
    pub(super) async fn adopt(&self) -> anyhow::Result<()> {
        let service = &self.service;
        let mut running: BTreeMap<InstanceId, Vec<AttemptRecord>> = BTreeMap::new();
        for attempt in service.store.open_attempts(Some(&service.node)).await? {
            running.entry(attempt.instance).or_default().push(attempt);
        }
        let mut known = Vec::new();
        for record in service.store.instances(true).await? {
            known.push(record.id);
            if record.home != service.node {
                continue;
            }
            if record.state.is_final() {
                self.see_off(&record).await;
                continue;
            }
            let attempts = running.remove(&record.id).unwrap_or_default();
            if service.agent_returns(&record, &attempts).await?
                || service.worker_returns(&record, &attempts).await?
            {
                continue;
            }
            match self.recognise(&record).await {
                Some(handle) => self.take_over(record, handle, attempts).await?,
                None => {
                    self.bury(record, attempts, "it was gone when the server started")
                        .await?
                }
            }
        }
        service.agents_may_connect();
        for attempt in running.into_values().flatten() {
            self.release(&attempt, "the server restarted and its instance was gone")
                .await?;
        }
        service.workers_are_known();
        self.end_orphans(&known).await;
        Ok(())
    }

    /// An instance whose row has ended: its process should have, unless an earlier server died in between. Its log and
    /// directories stay for whoever asks why; the sweeper removes them with the row.
    async fn see_off(&self, record: &InstanceRecord) {
        if let Some(handle) = self.recognise(record).await.filter(|handle| !handle.remote) {
            tracing::warn!(instance.id = %record.id, "ending an instance whose row ended before it did");
            self.end(&handle).await;
        }
    }

    /// What nobody knows is ended. One leftover that will not go is the operator's business, and no reason not to serve.
    async fn end_orphans(&self, known: &[InstanceId]) {
        let orphans = match self.backend.orphans(known).await {
            Ok(orphans) => orphans,
            Err(error) => {
                return tracing::error!(error = ?error, "leftovers of earlier servers cannot be looked for");
            }
        };
        for handle in orphans {
            tracing::warn!(instance.id = %handle.instance, "ending an instance that no row knows");
            if !self.end(&handle).await {
                continue;
            }
            if let Err(error) = self.backend.remove_files(&handle).await {
                tracing::warn!(instance.id = %handle.instance, error = ?error, "its files could not be removed");
            }
        }
    }

    /// `false`: it could not be ended, which is logged.
    async fn end(&self, handle: &Handle) -> bool {
        let stopped = self.backend.stop(handle, STOP_GRACE_AT_START).await;
        if let Err(error) = &stopped {
            tracing::error!(instance.id = %handle.instance, error = ?error, "a leftover could not be ended");
        }
        stopped.is_ok()
    }

    async fn recognise(&self, record: &InstanceRecord) -> Option<Handle> {
        let stored = record
            .handle
            .as_deref()
            .and_then(|json| serde_json::from_str::<Handle>(json).ok());
        let handle = match stored {
            Some(handle) => handle,
            // The server died between spawning it and storing its handle.
            None => self.backend.find(record.id).await.ok().flatten()?,
        };
        match self.backend.recognise(&handle).await {
            Recognition::Alive => Some(handle),
            Recognition::Gone => None,
        }
    }

    async fn take_over(
        &self,
        record: InstanceRecord,
        handle: Handle,
        attempts: Vec<AttemptRecord>,
    ) -> anyhow::Result<()> {
        let service = &self.service;
        if let Ok(endpoint) = service.endpoint(&record.endpoint)
            && endpoint.has_pull_workers()
        {
            supervisor::worker::begin(self, record, endpoint, Some((handle, attempts))).await;
            return Ok(());
        }
        let mut adopted: Vec<Adopted> = Vec::new();
        for attempt in attempts {
            let lease = Lease {
                job: attempt.job,
                fence: attempt.fence,
            };
            let Some(on) = attempt.running_on.clone() else {
                self.release(
                    &attempt,
                    "the server restarted, and nothing of it can be taken up",
                )
                .await?;
                continue;
            };
            let ours = service
                .store
                .adopt(lease, service.node.clone(), LEASE)
                .await?
                .is_ok();
            if ours && let Some(job) = service.store.job(None, attempt.job).await? {
                tracing::info!(job.id = %attempt.job, instance.id = %record.id, "adopting a running attempt");
                adopted.push(Adopted {
                    job,
                    attempt: attempt.number,
                    lease,
                    on,
                });
            }
        }
        let endpoint = service.endpoint(&record.endpoint);
        match endpoint {
            Ok(endpoint) => {
                if record.handle.is_none() {
                    let change = InstanceChange {
                        handle: serde_json::to_string(&handle).ok(),
                        ..InstanceChange::default()
                    };
                    service
                        .store
                        .change_instance(record.id, record.state, change)
                        .await?;
                }
                supervisor::begin(
                    self,
                    record,
                    endpoint,
                    supervisor::Origin::Adopted(Box::new(handle), adopted),
                );
            }
            Err(_) => {
                // Its endpoint is not configured any more: nothing can run on it.
                for attempt in adopted {
                    self.give_back(attempt.lease, "its endpoint was removed").await?;
                }
                // The next server tries again, should it refuse to go.
                let reason = match self.end(&handle).await {
                    true => "its endpoint was removed",
                    false => "its endpoint was removed, and it could not be ended",
                };
                self.bury(record, vec![], reason).await?;
            }
        }
        Ok(())
    }

    /// The row of an instance says that it has ended, and what ran on it goes back to the queue.
    async fn bury(
        &self,
        record: InstanceRecord,
        attempts: Vec<AttemptRecord>,
        reason: &str,
    ) -> anyhow::Result<()> {
        for attempt in attempts {
            self.release(&attempt, "the server restarted and its instance was gone")
                .await?;
        }
        let to = match record.state {
            InstanceState::Stopping => InstanceState::Stopped,
            _ => InstanceState::Failed,
        };
        let change = InstanceChange {
            state: Some(to),
            reason: Some(reason.to_owned()),
            ..InstanceChange::default()
        };
        self.service
            .store
            .change_instance(record.id, record.state, change)
            .await?;
        Ok(())
    }

    async fn release(&self, attempt: &AttemptRecord, reason: &str) -> anyhow::Result<()> {
        self.give_back(
            Lease {
                job: attempt.job,
                fence: attempt.fence,
            },
            reason,
        )
        .await
    }

    async fn give_back(&self, lease: Lease, reason: &str) -> anyhow::Result<()> {
        let released = AttemptOutcome::Released {
            reason: reason.to_owned(),
        };
        // A stale lease means that somebody else gave it back already.
        let _ = self.service.store.finish(lease, Finish::empty(released)).await?;
        Ok(())
    }
}
