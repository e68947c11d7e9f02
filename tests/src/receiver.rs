//! Somebody who wants to be told: a small HTTP server on this machine that keeps what it is sent.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::AbortHandle,
};

use crate::within;

const LIMIT: Duration = Duration::from_secs(90);

/// A request that came.
#[derive(Debug, Clone)]
pub struct Told {
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
}

impl Told {
    /// A header, or an empty text.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }
}

/// See the module; ends when dropped.
pub struct Receiver {
    address: SocketAddr,
    told: watch::Receiver<Vec<Told>>,
    task: AbortHandle,
}

impl Receiver {
    /// Answers with these statuses in turn, then with 200.
    pub async fn answering(statuses: &[u16]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it has an address");
        let (tell, told) = watch::channel(Vec::new());
        let (tell, statuses) = (
            Arc::new(tell),
            Arc::new(Mutex::new(VecDeque::from(statuses.to_vec()))),
        );
        let task = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let (tell, statuses) = (tell.clone(), statuses.clone());
                tokio::spawn(async move {
                    let Some(told) = read(&mut socket).await else {
                        return;
                    };
                    tell.send_modify(|all| all.push(told));
                    let status = statuses.lock().expect("nobody panicked").pop_front();
                    let status = status.unwrap_or(200);
                    let answer =
                        format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
                    let _ = socket.write_all(answer.as_bytes()).await;
                });
            }
        });
        Receiver {
            address,
            told,
            task: task.abort_handle(),
        }
    }

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://{}/told?token=hidden", self.address)
    }

    /// All that came, once there are this many.
    pub async fn told(&self, count: usize) -> Vec<Told> {
        let mut told = self.told.clone();
        let enough = told.wait_for(|all| all.len() >= count);
        let all = within("the receiver is told", LIMIT, enough).await;
        all.expect("the receiver lives").clone()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn read(socket: &mut TcpStream) -> Option<Told> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        if socket.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let headers: BTreeMap<String, String> = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        if socket.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Told { headers, body })
}
