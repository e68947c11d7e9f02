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
        for record in service.store.instances(false).await? {
            if record.home != service.node {
                continue;
            }
            known.push(record.id);
            let attempts = running.remove(&record.id).unwrap_or_default();
            match self.recognise(&record).await {
                Some(handle) => self.take_over(record, handle, attempts).await?,
                None => self.bury(record, attempts).await?,
            }
        }
        for attempt in running.into_values().flatten() {
            self.release(&attempt, "the server restarted and its instance was gone")
                .await?;
        }
        for handle in self.backend.orphans(&known).await? {
            tracing::warn!(instance.id = %handle.instance, "ending an instance that no row knows");
            if let Err(error) = self.backend.stop(&handle, STOP_GRACE_AT_START).await {
                tracing::error!(instance.id = %handle.instance, error = ?error, "it could not be ended");
                continue;
            }
            if let Err(error) = self.backend.remove_files(&handle).await {
                tracing::warn!(instance.id = %handle.instance, error = ?error, "its files could not be removed");
            }
        }
        Ok(())
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
        let mut adopted: Vec<Adopted> = Vec::new();
        for attempt in attempts {
            let lease = Lease {
                job: attempt.job,
                fence: attempt.fence,
            };
            let Some(on) = attempt.running_on.clone() else {
                self.release(&attempt, "the server restarted before its prompt was posted")
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
                self.backend.stop(&handle, STOP_GRACE_AT_START).await?;
                self.bury(record, vec![]).await?;
            }
        }
        Ok(())
    }

    /// An instance that is gone: its row says so, and what ran on it goes back to the queue.
    async fn bury(&self, record: InstanceRecord, attempts: Vec<AttemptRecord>) -> anyhow::Result<()> {
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
            reason: Some("it was gone when the server started".to_owned()),
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
        let finish = Finish {
            outcome: AttemptOutcome::Released {
                reason: reason.to_owned(),
            },
            outputs: vec![],
            result: None,
            events: vec![],
        };
        // A stale lease means that somebody else gave it back already.
        let _ = self.service.store.finish(lease, finish).await?;
        Ok(())
    }
}
