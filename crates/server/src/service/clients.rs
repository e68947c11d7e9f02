//! Callers that hold a socket open under a name of their choice, and learn of each job that is accepted under that name.
//! One socket per name: a newer one takes over from the older.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use darkroom_core::{EndpointName, TenantId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::follow::Follower;

/// Whose socket, at which endpoint, under which name.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientName {
    /// Whose.
    pub tenant: TenantId,
    /// At which endpoint.
    pub endpoint: EndpointName,
    /// Their name for it.
    pub name: String,
}

/// All of them; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Clients(Arc<Mutex<Connected>>);

#[derive(Debug, Default)]
struct Connected {
    by_name: HashMap<ClientName, Entry>,
    last_number: u64,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    jobs: mpsc::UnboundedSender<Follower>,
    replaced: CancellationToken,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Connection {
    clients: Clients,
    name: ClientName,
    number: u64,
    jobs: mpsc::UnboundedReceiver<Follower>,
    replaced: CancellationToken,
}

impl Clients {
    /// Registers a socket; an older one of the same name is told that it was replaced.
    pub fn connect(&self, name: ClientName) -> Connection {
        let (sender, jobs) = mpsc::unbounded_channel();
        let replaced = CancellationToken::new();
        let mut connected = self.lock();
        connected.last_number += 1;
        let number = connected.last_number;
        let entry = Entry {
            number,
            jobs: sender,
            replaced: replaced.clone(),
        };
        if let Some(older) = connected.by_name.insert(name.clone(), entry) {
            older.replaced.cancel();
        }
        drop(connected);
        Connection {
            clients: self.clone(),
            name,
            number,
            jobs,
            replaced,
        }
    }

    /// Whether a socket is open under this name now.
    pub fn is_connected(&self, name: &ClientName) -> bool {
        self.lock().by_name.contains_key(name)
    }

    /// A job was accepted under this name; its follower is made only if somebody listens.
    pub fn accepted(&self, name: &ClientName, job: impl FnOnce() -> Follower) {
        let listening = self.lock().by_name.get(name).map(|entry| entry.jobs.clone());
        if let Some(jobs) = listening {
            // One whose socket just went away: nobody to tell.
            let _ = jobs.send(job());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// The next job that is accepted under the name. Cancel-safe.
    pub async fn next_job(&mut self) -> Follower {
        match self.jobs.recv().await {
            Some(job) => job,
            // Replaced: there are no more.
            None => std::future::pending().await,
        }
    }

    /// Cancelled when a newer socket took the name over.
    pub fn replaced(&self) -> CancellationToken {
        self.replaced.clone()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut connected = self.clients.lock();
        if connected
            .by_name
            .get(&self.name)
            .is_some_and(|entry| entry.number == self.number)
        {
            connected.by_name.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use darkroom_core::JobId;

    use super::*;
    use crate::service::testing::Bench;

    fn name(name: &str) -> ClientName {
        ClientName {
            tenant: "t".parse().unwrap(),
            endpoint: "default".parse().unwrap(),
            name: name.to_owned(),
        }
    }

    fn job(n: u128) -> JobId {
        JobId::from_uuid(uuid::Uuid::from_u128(n))
    }

    #[tokio::test]
    async fn a_newer_socket_takes_over_and_keeps_the_name_when_the_older_one_ends() {
        let bench = Bench::new();
        let clients = &bench.service.clients;
        let accept = |to: &str, n| clients.accepted(&name(to), || bench.service.follow(job(n), 0));
        let older = clients.connect(name("a"));
        let mut newer = clients.connect(name("a"));
        assert!(older.replaced().is_cancelled() && !newer.replaced().is_cancelled());
        drop(older);
        accept("b", 1);
        accept("a", 2);
        assert_eq!(newer.next_job().await.job(), job(2));
        assert!(clients.is_connected(&name("a")));
        drop(newer);
        accept("a", 3);
        assert!(!clients.is_connected(&name("a")));
        assert!(bench.service.hub.is_empty(), "nobody follows");
    }
}
