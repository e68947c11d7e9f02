//! The ceiling for anything that takes requests: a server of the same HTTP library that only sends the body back, and a
//! queue that is only in memory. It
//! runs as a process of its own, as the measured server does.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::Context;
use axum::{
    Router,
    extract::{
        DefaultBodyLimit, State, WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    routing::post,
};
use bytes::Bytes;
use tokio::sync::broadcast;

use crate::{
    exit::{Exit, Failure},
    ui::Ui,
};

/// Where the queue is: a POST puts, a WebSocket gets all that is put from then on.
pub const QUEUE: &str = "/queue";

/// `darkroom bench --echo`: prints its address, and serves until standard input ends.
pub async fn serve(ui: Ui) -> Result<Exit, Failure> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .context("no free port")?;
    ui.line(&listener.local_addr().context("no address")?.to_string());
    let router = Router::new()
        .route("/", post(async |body: Bytes| body))
        .route("/swallow", post(async |_: Bytes| ()))
        .route(QUEUE, post(put).get(watch))
        .with_state(broadcast::channel(1 << 16).0)
        .layer(DefaultBodyLimit::disable());
    let ended = tokio::task::spawn_blocking(|| {
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
    });
    tokio::select! {
        served = axum::serve(listener, router) => served.context("the echo server stopped")?,
        _ = ended => {}
    }
    Ok(Exit::Ok)
}

async fn put(State(queue): State<broadcast::Sender<Bytes>>, body: Bytes) -> &'static str {
    // Nobody may be watching.
    let _ = queue.send(body);
    "1"
}

async fn watch(
    State(queue): State<broadcast::Sender<Bytes>>,
    upgrade: WebSocketUpgrade,
) -> axum::response::Response {
    let items = queue.subscribe();
    upgrade.on_upgrade(|socket| deliver(socket, items))
}

async fn deliver(mut socket: WebSocket, mut items: broadcast::Receiver<Bytes>) {
    while let Ok(item) = items.recv().await {
        if socket.send(Message::Binary(item)).await.is_err() {
            return;
        }
    }
}

/// The running echo server; ends when dropped.
#[derive(Debug)]
pub struct Echo {
    child: Child,
    /// It serves until this closes.
    stdin: Option<ChildStdin>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Echo {
    /// Starts one.
    pub fn start() -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe().context("own path")?)
            .args(["bench", "--echo"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the echo server cannot be started")?;
        let stdin = child.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        let address = line
            .trim()
            .parse()
            .with_context(|| format!("the echo server said '{}'", line.trim()));
        match address {
            Ok(address) => Ok(Echo {
                child,
                stdin,
                address,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(error)
            }
        }
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
