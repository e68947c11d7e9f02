//! The engine by itself, without a server in front: what a call costs when nothing is durable.

use std::{
    fs::{self, File},
    net::TcpListener,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, bail};
use darkroom_ambient::SystemIds;
use darkroom_comfy::{
    client::{Client, ClientConfig, Incoming, Socket, SocketOptions},
    wire::{Body, PromptRequest},
};
use darkroom_core::Ids;
use serde_json::{Map, Value};

use super::scene::Scene;
use crate::stopwatch::Stopwatch;

/// Between two looks whether it answers.
const POLL: Duration = Duration::from_millis(1);
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A running `darkroom engine`; ends when dropped.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    client: Client,
    address: String,
    /// From its start to its first answer.
    pub started_in: Duration,
}

impl Engine {
    /// Starts one with these further arguments and waits until it answers.
    pub async fn start(scene: &Scene, arguments: &[&str]) -> anyhow::Result<Self> {
        let dir = scene.dir.join("engine");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(std::env::current_exe().context("own path")?);
        let address = format!("127.0.0.1:{port}");
        command.args(["engine", "--listen", &address]).args(arguments);
        for kind in ["input", "output", "temp", "user"] {
            fs::create_dir_all(dir.join(kind))?;
            command.arg(format!("--{kind}-directory")).arg(dir.join(kind));
        }
        let log = File::create(dir.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let client = Client::new(ClientConfig::new(format!("http://{address}").parse()?))?;
        let watch = Stopwatch::start();
        let mut engine = Engine {
            child: command.spawn().context("the engine cannot be started")?,
            client,
            address,
            started_in: Duration::ZERO,
        };
        while engine.client.system_stats().await.is_err() {
            if watch.elapsed() > START_TIMEOUT || !matches!(engine.child.try_wait(), Ok(None)) {
                bail!("the engine did not start");
            }
            tokio::time::sleep(POLL).await;
        }
        engine.started_in = watch.elapsed();
        Ok(engine)
    }

    /// Its host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Opens the socket that events come over.
    pub async fn open(&self) -> anyhow::Result<Conversation> {
        Conversation::over(self.client.clone()).await
    }
}

impl Conversation {
    /// With whatever answers there as a ComfyUI does.
    pub async fn with(url: &str) -> anyhow::Result<Self> {
        Conversation::over(Client::new(ClientConfig::new(url.parse()?))?).await
    }

    async fn over(client: Client) -> anyhow::Result<Self> {
        let client_id = SystemIds.uuid_v4().to_string();
        let options = SocketOptions {
            client_id: client_id.clone(),
            preview_metadata: true,
        };
        Ok(Conversation {
            socket: client.open_socket(&options).await?,
            client,
            client_id,
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client of the engine as ComfyUI's own page is one.
#[derive(Debug)]
pub struct Conversation {
    client: Client,
    /// What is heard.
    pub socket: Socket,
    client_id: String,
}

impl Conversation {
    /// Posts a graph; returns its prompt id.
    pub async fn post(&self, graph: &Value) -> anyhow::Result<String> {
        let prompt_id = SystemIds.uuid_v4().to_string();
        let request = PromptRequest {
            prompt: graph,
            prompt_id: &prompt_id,
            client_id: &self.client_id,
            extra_data: Map::new(),
            partial_execution_targets: None,
        };
        self.client.submit(&request).await?;
        Ok(prompt_id)
    }

    /// Posts a graph, waits for its end, reads its history; how long that took.
    pub async fn run(&mut self, graph: &Value) -> anyhow::Result<Duration> {
        let watch = Stopwatch::start();
        let prompt_id = self.post(graph).await?;
        loop {
            let Some(incoming) = self.socket.next().await? else {
                bail!("the engine closed its socket");
            };
            let Incoming::Message(message) = incoming else {
                continue;
            };
            match message.body() {
                Body::Executing {
                    node: None,
                    prompt_id: Some(id),
                    ..
                } if *id == prompt_id => break,
                Body::ExecutionError(error) => bail!("the engine failed: {error:?}"),
                _ => {}
            }
        }
        let history = self.client.history(&prompt_id).await?;
        history.context("the engine has no history of a prompt that ended")?;
        Ok(watch.elapsed())
    }
}
