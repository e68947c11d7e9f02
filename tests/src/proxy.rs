//! A bad network: a way to a server on which connections break off when told, in the middle of what they carry.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// Where a connection breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// After so many bytes of the request.
    Request(u64),
    /// After so many bytes of the answer: the server has done what it was asked for.
    Answer(u64),
}

/// A way to a server; ends when dropped.
pub struct Proxy {
    address: SocketAddr,
    plan: Arc<Plan>,
    listening: JoinHandle<()>,
}

#[derive(Default)]
struct Plan {
    /// What the next request is called that breaks, and where.
    next: Mutex<Vec<(String, Cut)>>,
    done: AtomicUsize,
}

impl Plan {
    /// The plan for a request that begins with these bytes, taken off the list.
    fn take(&self, head: &[u8]) -> Option<Cut> {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line);
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let found = next.iter().position(|(part, _)| {
            let path = line.split(' ').nth(1).unwrap_or_default();
            line.ends_with("HTTP/1.1") && path.ends_with(part)
        })?;
        Some(next.remove(found).1)
    }
}

impl Proxy {
    /// A way to whoever listens on this port of this machine.
    pub async fn to(port: u16) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        let plan = Arc::new(Plan::default());
        let of_all = plan.clone();
        let listening = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, port, of_all.clone()));
            }
        });
        Proxy {
            address,
            plan,
            listening,
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The next request whose path ends so breaks off.
    pub fn cut(&self, path_end: &str, cut: Cut) {
        let mut next = self.plan.next.lock().unwrap_or_else(PoisonError::into_inner);
        next.push((path_end.to_owned(), cut));
    }

    /// How many connections were cut.
    pub fn cuts(&self) -> usize {
        self.plan.done.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Carries one connection until either end closes it, or it is cut.
async fn carry(client: TcpStream, port: u16, plan: Arc<Plan>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else {
        return;
    };
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    // How many bytes of the answer are still carried, once that is decided.
    let answer = watch::Sender::new(None);
    let cut = tokio::select! {
        cut = requests(from_client, to_server, &plan, &answer) => cut,
        cut = answers(from_server, to_client, answer.subscribe()) => cut,
    };
    if cut {
        plan.done.fetch_add(1, Ordering::SeqCst);
    }
}

async fn requests(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    plan: &Plan,
    answer: &watch::Sender<Option<u64>>,
) -> bool {
    let mut buffer = vec![0; 64 << 10];
    let mut left = None;
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return false;
        };
        if left.is_none() {
            match plan.take(&buffer[..read]) {
                Some(Cut::Request(bytes)) => left = Some(bytes),
                Some(Cut::Answer(bytes)) => drop(answer.send_replace(Some(bytes))),
                None => {}
            }
        }
        let carried = left.map_or(read, |left| read.min(usize::try_from(left).unwrap_or(read)));
        if to.write_all(&buffer[..carried]).await.is_err() {
            return false;
        }
        left = left.map(|left| left - carried as u64);
        if left == Some(0) {
            return true;
        }
    }
}

async fn answers(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bound: watch::Receiver<Option<u64>>,
) -> bool {
    let mut buffer = vec![0; 64 << 10];
    let mut carried_of_it = 0;
    loop {
        let Ok(read @ 1..) = from.read(&mut buffer).await else {
            return false;
        };
        let bound = *bound.borrow();
        let left = bound.map(|bound| bound.saturating_sub(carried_of_it));
        let carried = left.map_or(read, |left| read.min(usize::try_from(left).unwrap_or(read)));
        if to.write_all(&buffer[..carried]).await.is_err() {
            return false;
        }
        if let Some(bound) = bound {
            carried_of_it += carried as u64;
            if carried_of_it == bound {
                return true;
            }
        }
    }
}
