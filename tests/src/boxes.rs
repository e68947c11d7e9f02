//! ComfyUI servers that somebody else than Darkroom runs: engines that a test starts itself, and doors before them.

use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
};

use crate::{binary, eventually, server::free_port};

const LIMIT: Duration = Duration::from_secs(60);

/// An engine on a port of its own, in directories of its own; ended when dropped.
pub struct Engine {
    child: Option<Child>,
    home: TempDir,
    port: u16,
    test_nodes: bool,
}

impl Engine {
    /// One that is not running yet.
    pub fn new(test_nodes: bool) -> Engine {
        Engine {
            child: None,
            home: TempDir::with_prefix("darkroom-box-").expect("a temporary directory"),
            port: free_port(),
            test_nodes,
        }
    }

    /// One that runs, but may not listen yet.
    pub fn running(test_nodes: bool) -> Engine {
        let mut engine = Engine::new(test_nodes);
        engine.start();
        engine
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The name of its box.
    pub fn name(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it, with nothing of an earlier run in its memory.
    pub fn start(&mut self) {
        let mut command = Command::new(binary::darkroom());
        command.args(["engine", "--listen", &self.name()]);
        for name in ["input", "output", "temp", "user"] {
            let directory = self.home.path().join(name);
            std::fs::create_dir_all(&directory).expect("a directory");
            command.arg(format!("--{name}-directory")).arg(directory);
        }
        if self.test_nodes {
            command.arg("--test-nodes");
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.child = Some(command.spawn().expect("the engine starts"));
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Waits until it answers.
    pub async fn listens(&self) {
        let address: SocketAddr = self.name().parse().expect("an address");
        eventually("the engine listens", LIMIT, async || {
            TcpStream::connect(address).await.ok()
        })
        .await;
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A door before an engine that lets in only connections whose first request shows a key; it notes what those asked.
pub struct Door {
    /// Its address.
    pub url: String,
    /// First lines of requests that were let in.
    pub let_in: Arc<Mutex<Vec<String>>>,
}

impl Door {
    /// A door with that `x-key`.
    pub async fn before(engine: &Engine, key: &'static str) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let let_in: Arc<Mutex<Vec<String>>> = Arc::default();
        let (noted, target) = (let_in.clone(), engine.name());
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(through(connection, target.clone(), key, noted.clone()));
            }
        });
        Door { url, let_in }
    }
}

async fn through(mut client: TcpStream, target: String, key: &str, noted: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        match client.read_buf(&mut head).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    let text = String::from_utf8_lossy(&head).into_owned();
    let shown = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name.eq_ignore_ascii_case("x-key") && value.trim() == key);
    if !shown {
        let refusal = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        let _ = client.write_all(refusal).await;
        return;
    }
    let first = text.lines().next().unwrap_or_default().to_owned();
    noted.lock().expect("no panic").push(first);
    let Ok(mut server) = TcpStream::connect(target).await else {
        return;
    };
    if server.write_all(&head).await.is_ok() {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
