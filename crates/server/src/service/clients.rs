//! Callers that hold a socket open under a name of their choice, and learn of each job that is accepted under that name.
//! One socket per name: a newer one takes over from the older.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use darkroom_core::{EndpointName, JobId, TenantId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

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
    jobs: mpsc::UnboundedSender<JobId>,
    replaced: CancellationToken,
}

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Connection {
    clients: Clients,
    name: ClientName,
    number: u64,
    jobs: mpsc::UnboundedReceiver<JobId>,
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

    /// A job was accepted under this name.
    pub fn accepted(&self, name: &ClientName, job: JobId) {
        if let Some(entry) = self.lock().by_name.get(name) {
            // One whose socket just went away: nobody to tell.
            let _ = entry.jobs.send(job);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Connected> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// The next job that is accepted under the name. Cancel-safe.
    pub async fn next_job(&mut self) -> JobId {
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
    use super::*;

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
        let clients = Clients::default();
        let older = clients.connect(name("a"));
        let mut newer = clients.connect(name("a"));
        assert!(older.replaced().is_cancelled() && !newer.replaced().is_cancelled());
        drop(older);
        clients.accepted(&name("b"), job(1));
        clients.accepted(&name("a"), job(2));
        assert_eq!(newer.next_job().await, job(2));
        drop(newer);
        clients.accepted(&name("a"), job(3));
        assert!(clients.lock().by_name.is_empty());
    }
}
