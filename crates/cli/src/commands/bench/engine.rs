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
    /// From its start to its first answer.
    pub started_in: Duration,
}

impl Engine {
    /// Starts one and waits until it answers.
    pub async fn start(scene: &Scene) -> anyhow::Result<Self> {
        let dir = scene.dir.join("engine");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let mut command = Command::new(std::env::current_exe().context("own path")?);
        command.args(["engine", "--listen", &format!("127.0.0.1:{port}")]);
        for kind in ["input", "output", "temp", "user"] {
            fs::create_dir_all(dir.join(kind))?;
            command.arg(format!("--{kind}-directory")).arg(dir.join(kind));
        }
        let log = File::create(dir.join("log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let client = Client::new(ClientConfig::new(format!("http://127.0.0.1:{port}").parse()?))?;
        let watch = Stopwatch::start();
        let mut engine = Engine {
            child: command.spawn().context("the engine cannot be started")?,
            client,
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

    /// Opens the socket that events come over.
    pub async fn open(&self) -> anyhow::Result<Conversation> {
        let client_id = SystemIds.uuid_v4().to_string();
        let options = SocketOptions {
            client_id: client_id.clone(),
            preview_metadata: true,
        };
        Ok(Conversation {
            client: self.client.clone(),
            socket: self.client.open_socket(&options).await?,
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
    socket: Socket,
    client_id: String,
}

impl Conversation {
    /// Posts a graph, waits for its end, reads its history; how long that took.
    pub async fn run(&mut self, graph: &Value) -> anyhow::Result<Duration> {
        let prompt_id = SystemIds.uuid_v4().to_string();
        let request = PromptRequest {
            prompt: graph,
            prompt_id: &prompt_id,
            client_id: &self.client_id,
            extra_data: Map::new(),
            partial_execution_targets: None,
        };
        let watch = Stopwatch::start();
        self.client.submit(&request).await?;
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
