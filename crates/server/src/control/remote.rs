//! Remote servers: one instance for each that is configured, begun again when it was lost. There is nothing to plan, since
//! they run anyway; one that is down stands in nobody's way.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use darkroom_core::{
    Endpoint, EndpointName, InstanceId, InstanceState, Timestamp,
    backoff::Backoff,
    endpoint::{Backend, RemoteServer},
};
use darkroom_store::catalog::InstanceRecord;

use super::{
    Control,
    supervisor::{self, Supervised},
};

/// Between the loss of a server and the next try to use it. While it is down its instance waits, without ending.
const AGAIN: Backoff = Backoff {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(30),
};

/// An endpoint, and the name of one of its boxes.
pub(super) type Server = (EndpointName, String);

/// How often a server was lost in a row, and when last.
pub(super) type Losses = (u32, Timestamp);

impl Control {
    /// Gives every configured server an instance and retires those of servers that are not configured any more. Returns
    /// how long the next one has to wait.
    pub(super) async fn keep_servers(&self) -> anyhow::Result<Option<Duration>> {
        let service = &self.service;
        let endpoints = service.endpoints();
        self.retire_others().await?;
        let is_remote = |e: &&Arc<Endpoint>| matches!(e.backend, Backend::Remote { .. });
        if !endpoints.values().any(|e| is_remote(&e)) || self.closing.is_cancelled() {
            return Ok(None);
        }
        let live = service.store.instances(false).await?;
        let now = service.clock.now();
        let mut wake: Option<Duration> = None;
        for endpoint in endpoints.values().filter(is_remote) {
            let Backend::Remote { servers } = &endpoint.backend else {
                continue;
            };
            let mine: Vec<&InstanceRecord> = live.iter().filter(|i| i.endpoint == endpoint.name).collect();
            for record in &mine {
                if !servers.iter().any(|server| serves(record, server)) {
                    self.retire_server(record).await?;
                }
            }
            for server in servers {
                if mine.iter().any(|record| serves(record, server)) {
                    continue;
                }
                let due = self.try_again_at(&endpoint.name, &server.name);
                match due.filter(|due| *due > now) {
                    Some(due) => wake = Some(wake.map_or(due.since(now), |w| w.min(due.since(now)))),
                    None => self.begin_server(endpoint, server).await?,
                }
            }
        }
        Ok(wake)
    }

    /// Retires instances on boxes that their endpoint does not run any more: another installation or other servers stand in
    /// the configuration now.
    async fn retire_others(&self) -> anyhow::Result<()> {
        let service = &self.service;
        let endpoints = service.endpoints();
        if self.closing.is_cancelled() {
            return Ok(());
        }
        for record in service.store.instances(false).await? {
            let of = endpoints.get(&record.endpoint);
            if of.is_some_and(|endpoint| !endpoint.has_box(&record.box_name)) {
                self.retire_server(&record).await?;
            }
        }
        Ok(())
    }

    async fn begin_server(&self, endpoint: &Arc<Endpoint>, server: &RemoteServer) -> anyhow::Result<()> {
        let service = &self.service;
        let now = service.clock.now();
        let record = InstanceRecord {
            id: InstanceId::new(&*service.ids),
            endpoint: endpoint.name.clone(),
            home: service.node.clone(),
            state: InstanceState::Starting,
            state_since: now,
            created_at: now,
            gpu: None,
            box_name: server.name.clone(),
            handle: None,
            start_reason: format!("the endpoint names {}", server.url),
            state_reason: String::new(),
            jobs_done: 0,
            phases: vec![],
        };
        service.store.add_instance(record.clone()).await?;
        tracing::info!(instance.id = %record.id, endpoint.name = %endpoint.name, url = server.url, "using a remote server");
        supervisor::begin(self, record, endpoint.clone(), supervisor::Origin::Fresh);
        Ok(())
    }

    /// What runs on it is finished first.
    async fn retire_server(&self, record: &InstanceRecord) -> anyhow::Result<()> {
        let busy = self
            .lock_supervised()
            .get(&record.id)
            .is_some_and(|s| s.activity.busy() > 0);
        let why = "its box is not configured any more";
        match record.state {
            InstanceState::Ready => {
                let done = self
                    .enter(record.id, record.state, InstanceState::Draining, why)
                    .await?;
                self.tell(record.id, done, Supervised::drain);
                self.wake();
            }
            InstanceState::Starting | InstanceState::Draining if !busy => {
                let done = self
                    .enter(record.id, record.state, InstanceState::Stopping, why)
                    .await?;
                self.tell(record.id, done, Supervised::stop);
            }
            InstanceState::Starting
            | InstanceState::Draining
            | InstanceState::Stopping
            | InstanceState::Stopped
            | InstanceState::Failed => {}
        }
        Ok(())
    }

    /// An instance on a remote server was lost.
    pub(super) fn server_lost(&self, endpoint: &EndpointName, box_name: &str) {
        let mut lost = self.lost_servers.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (endpoint.clone(), box_name.to_owned());
        let now = self.service.clock.now();
        let entry = lost.entry(key).or_insert((0, now));
        *entry = (entry.0.saturating_add(1), now);
    }

    /// A remote server did a job: what was lost before does not count any more.
    pub(super) fn server_worked(&self, endpoint: &EndpointName, box_name: &str) {
        let mut lost = self.lost_servers.lock().unwrap_or_else(PoisonError::into_inner);
        lost.remove(&(endpoint.clone(), box_name.to_owned()));
    }

    fn try_again_at(&self, endpoint: &EndpointName, box_name: &str) -> Option<Timestamp> {
        let lost = self.lost_servers.lock().unwrap_or_else(PoisonError::into_inner);
        let (times, at) = lost.get(&(endpoint.clone(), box_name.to_owned()))?;
        Some(at.plus(AGAIN.after(*times)))
    }
}

/// Whether an instance is of this server. One whose handle was not stored yet is known by its box alone.
fn serves(record: &InstanceRecord, server: &RemoteServer) -> bool {
    let handle = record.handle.as_deref();
    let handle = handle.and_then(|json| serde_json::from_str::<darkroom_instances::Handle>(json).ok());
    record.box_name == server.name && handle.is_none_or(|handle| handle.base_url == server.url)
}
