//! The ceiling for anything that takes requests: a server of the same HTTP library that only sends the body back. It
//! runs as a process of its own, as the measured server does.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, ChildStdin, Command, Stdio},
};

use anyhow::Context;
use axum::{Router, extract::DefaultBodyLimit, routing::post};
use bytes::Bytes;

use crate::{
    exit::{Exit, Failure},
    ui::Ui,
};

/// `darkroom bench --echo`: prints its address, and serves until standard input ends.
pub async fn serve(ui: Ui) -> Result<Exit, Failure> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .context("no free port")?;
    ui.line(&listener.local_addr().context("no address")?.to_string());
    let router = Router::new()
        .route("/", post(async |body: Bytes| body))
        .route("/swallow", post(async |_: Bytes| ()))
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
