//! An instance that comes by itself: beside a ComfyUI on any machine, dialling out to a server, it runs the same slot that
//! the server runs for its own instances, over the HTTP form of the port between them.
//!
//! It keeps nothing on disk: the server knows what runs where. Killed and started again under the same name it goes on with
//! what its ComfyUI still runs; a server that restarts, or is away for a moment, is waited for. Start with [`run`]; [`link`]
//! is the port, [`server`] the session below it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use darkroom_comfy::client::{self, Client, ClientConfig};
use darkroom_core::{Clock, EndpointName, Ids};
use darkroom_runner::{InstanceAccess, Slot, SlotConfig, SlotEnd};
use tokio_util::sync::CancellationToken;
use url::Url;

mod abilities;
pub mod link;
mod pace;
pub mod server;
mod telling;

use abilities::Abilities;
use link::{HttpLink, NoMore};
use server::{Access, Over, Server};

/// What an agent is told at its start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The server.
    pub server: Url,
    /// A key with the scope `worker`; a server without keys needs none.
    pub key: Option<String>,
    /// Whose jobs it runs.
    pub endpoint: EndpointName,
    /// How it calls itself: the same name later is the same instance.
    pub name: String,
    /// Where its ComfyUI answers.
    pub comfyui: Url,
    /// Where outputs wait for the server.
    pub spool_dir: PathBuf,
    /// When it is told to stop: what runs may take so long to end.
    pub grace: Duration,
}

/// Why an agent ended that was not told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server will not have it.
    #[error("the server refuses the agent: {0}")]
    Refused(String),
    /// Somebody else connected under its name.
    #[error("another agent connected as '{0}'; give each its own --name")]
    Superseded(String),
    /// The ComfyUI's address is of no use.
    #[error("ComfyUI's address cannot be used")]
    Comfyui(#[from] client::Error),
    /// The same, as the runner sees it.
    #[error("ComfyUI's address cannot be used")]
    Access(#[from] darkroom_runner::AccessError),
    /// No HTTP client.
    #[error("no HTTP client can be made")]
    Http(#[from] reqwest::Error),
}

/// Serves until `stop`, or until the server takes the instance out of service.
///
/// # Errors
/// [`Error`]; a server or a ComfyUI that is away is waited for.
pub async fn run(
    options: Options,
    clock: Arc<dyn Clock>,
    ids: Arc<dyn Ids>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let comfyui = Client::new(ClientConfig::new(options.comfyui.clone()))?;
    loop {
        let Some(mut abilities) = Abilities::once_it_answers(&comfyui, &stop).await else {
            return Ok(());
        };
        let access = Access {
            server: options.server.clone(),
            key: options.key.clone(),
            endpoint: options.endpoint.clone(),
            name: options.name.clone(),
        };
        let connected = tokio::select! {
            connected = Server::connect(access) => connected?,
            () = stop.cancelled() => return Ok(()),
        };
        let server = Arc::new(connected);
        abilities.tell(&server).await;
        match serve(&options, &server, &mut abilities, &clock, &ids, &stop).await? {
            Served::Stopped => return Ok(()),
            Served::Broken(reason) => {
                tracing::warn!(reason, "ComfyUI broke; waiting until it answers again");
                server.leave(&reason, true).await;
            }
            // The server has given the instance up meanwhile: this is a new one.
            Served::Gone => tracing::warn!("the server has given this instance up; connecting as a new one"),
        }
    }
}

enum Served {
    Stopped,
    Broken(String),
    Gone,
}

async fn serve(
    options: &Options,
    server: &Arc<Server>,
    abilities: &mut Abilities,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn Ids>,
    stop: &CancellationToken,
) -> Result<Served, Error> {
    let draining = stop.child_token();
    let link = Arc::new(HttpLink::new(server.clone(), draining.clone()));
    let access = InstanceAccess {
        instance: server.instance(),
        base_url: options.comfyui.as_str().trim_end_matches('/').to_owned(),
        headers: vec![],
        client_id: server.client_id().to_owned(),
        dirs: None,
    };
    let config = SlotConfig::new(options.spool_dir.clone());
    let slot = Slot::new(access, link.clone(), clock.clone(), ids.clone(), config)?;
    let collecting = slot.collecting();
    let hurry = CancellationToken::new();
    let running = slot.run(hurry.clone());
    let telling = abilities.keep_told(server);
    tokio::pin!(running, telling);
    tracing::info!(instance.id = %server.instance(), endpoint.name = %options.endpoint, "the agent serves");
    let ended = tokio::select! {
        ended = &mut running => ended,
        never = &mut telling => match never {},
        over = server.over() => {
            hurry.cancel();
            running.await;
            return Err(match over {
                Over::Superseded => Error::Superseded(options.name.clone()),
                Over::Refused(why) => Error::Refused(why),
            });
        }
        () = stop.cancelled() => match tokio::time::timeout(options.grace, &mut running).await {
            Ok(ended) => ended,
            Err(_) => {
                // It runs on at its ComfyUI; an agent that comes soon under this name goes on with it.
                hurry.cancel();
                running.await;
                return Ok(Served::Stopped);
            }
        },
    };
    // What waits for the server needs neither the slot nor ComfyUI, only this process.
    collecting.close();
    if link.no_more() == Some(NoMore::Gone) {
        return Ok(Served::Gone);
    }
    match ended {
        SlotEnd::InstanceBroken { reason } => Ok(Served::Broken(reason)),
        SlotEnd::Closed => {
            let waited = tokio::time::timeout(options.grace, collecting.wait()).await;
            if waited.is_ok() {
                server.leave("its agent was stopped", false).await;
            }
            Ok(Served::Stopped)
        }
    }
}
