//! An instance that comes by itself: beside a ComfyUI on any machine, dialling out to a server, it runs the same slot that
//! the server runs for its own instances, over the HTTP form of the port between them.
//!
//! It keeps no job on disk: the server knows what runs where. Killed and started again under the same name it goes on with
//! what its ComfyUI still runs; a server that restarts, or is away for a moment, is waited for. Start with [`run`]; [`link`]
//! is the port, [`server`] the session below it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use darkroom_comfy::client::{self, Client, ClientConfig};
use darkroom_core::{Clock, EndpointName, Ids};
use darkroom_runner::{InstanceAccess, Slot, SlotConfig, SlotEnd};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

mod abilities;
mod comfyui;
mod installation;
pub mod link;
mod pace;
mod refusal;
pub mod server;
mod telling;

use abilities::Abilities;
pub use comfyui::Comfyui;
use comfyui::Up;
pub use installation::Installation;
use link::{HttpLink, NoMore};
use pace::Pace;
use server::{Access, Over, Server};

/// How long a slot may take to end an attempt whose ComfyUI died.
const SLOT_END: Duration = Duration::from_secs(20);
/// A ComfyUI that lived less long is not started again at once.
const SHORT_LIFE: Duration = Duration::from_secs(60);

/// What an agent is told at its start.
pub struct Options {
    /// The server.
    pub server: Url,
    /// A key with the scope `worker`; a server without keys needs none.
    pub key: Option<String>,
    /// Whose jobs it runs.
    pub endpoint: EndpointName,
    /// How it calls itself: the same name later is the same instance.
    pub name: String,
    /// Its ComfyUI.
    pub comfyui: Comfyui,
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
    /// The same, as text.
    #[error("ComfyUI's address '{0}' cannot be used")]
    Address(String),
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
    let mut rounds = Rounds::new();
    loop {
        let Some(up) = options.comfyui.up(&options.endpoint, &*ids, &stop).await else {
            return Ok(());
        };
        rounds.begin(clock.monotonic());
        let served = serve_with(&options, &up, &clock, &ids, &stop).await;
        options.comfyui.down(&up).await;
        match served? {
            Served::Stopped => return Ok(()),
            Served::Broken | Served::Gone => {}
        }
        tokio::select! {
            () = rounds.pause(clock.monotonic()) => {}
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Lives of an installation, one after the other: between short ones there is a pause, which grows.
struct Rounds {
    pace: Pace,
    began: Duration,
}

impl Rounds {
    fn new() -> Self {
        Rounds {
            pace: Pace::new(),
            began: Duration::ZERO,
        }
    }

    /// Another begins; `now` is monotonic.
    fn begin(&mut self, now: Duration) {
        self.began = now;
    }

    /// It is over; waits until the next one may begin.
    async fn pause(&mut self, now: Duration) {
        if now.saturating_sub(self.began) >= SHORT_LIFE {
            self.pace = Pace::new();
        }
        self.pace.wait().await;
    }
}

/// Serves with one ComfyUI until that breaks.
async fn serve_with(
    options: &Options,
    up: &Up,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn Ids>,
    stop: &CancellationToken,
) -> Result<Served, Error> {
    let base = up
        .base_url
        .parse()
        .map_err(|_| Error::Address(up.base_url.clone()))?;
    let comfyui = Client::new(ClientConfig::new(base))?;
    loop {
        let mut abilities = tokio::select! {
            told = Abilities::once_it_answers(&comfyui, stop) => match told {
                Some(abilities) => abilities,
                None => return Ok(Served::Stopped),
            },
            _ = options.comfyui.died(up) => return Ok(Served::Broken),
        };
        let access = Access {
            server: options.server.clone(),
            key: options.key.clone(),
            endpoint: options.endpoint.clone(),
            name: options.name.clone(),
        };
        let server = tokio::select! {
            connected = Server::connect(access) => Arc::new(connected?),
            () = stop.cancelled() => return Ok(Served::Stopped),
        };
        tokio::select! {
            () = abilities.tell(&server) => {}
            () = stop.cancelled() => {
                server.leave("its agent was stopped", false).await;
                return Ok(Served::Stopped);
            }
        }
        match serve(options, up, &server, &mut abilities, clock, ids, stop).await? {
            // The server has given the instance up meanwhile: this is a new one.
            Served::Gone => tracing::warn!("the server has given this instance up; connecting as a new one"),
            ended => return Ok(ended),
        }
    }
}

/// How serving ended.
enum Served {
    /// As it was wished.
    Stopped,
    /// ComfyUI broke.
    Broken,
    /// The server knows the instance no more.
    Gone,
}

async fn serve(
    options: &Options,
    up: &Up,
    server: &Arc<Server>,
    abilities: &mut Abilities,
    clock: &Arc<dyn Clock>,
    ids: &Arc<dyn Ids>,
    stop: &CancellationToken,
) -> Result<Served, Error> {
    let draining = stop.child_token();
    let link = Arc::new(HttpLink::new(server.clone(), ids.clone(), draining.clone()));
    let access = InstanceAccess {
        instance: server.instance(),
        base_url: up.base_url.clone(),
        headers: vec![],
        client_id: server.client_id().to_owned(),
        dirs: up.dirs.clone(),
    };
    let config = SlotConfig::new(options.spool_dir.clone());
    let (evidence, told) = watch::channel(None);
    let slot = Slot::new(access, link.clone(), clock.clone(), ids.clone(), config)?.with_evidence(told);
    let collecting = slot.collecting();
    let hurry = CancellationToken::new();
    let running = slot.run(hurry.clone());
    let telling = abilities.keep_told(server);
    tokio::pin!(running, telling);
    tracing::info!(instance.id = %server.instance(), endpoint.name = %options.endpoint, "the agent serves");
    let ended = tokio::select! {
        ended = &mut running => ended,
        never = &mut telling => match never {},
        how = options.comfyui.died(up) => {
            // The slot ends its attempt with that; the bound is for a server that does not answer.
            evidence.send_replace(Some(how.clone()));
            let ended = tokio::time::timeout(SLOT_END, &mut running).await;
            ended.unwrap_or(SlotEnd::InstanceBroken { reason: how })
        }
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
                hurry.cancel();
                running.await;
                // Where ComfyUI runs on, an agent that comes soon under this name goes on with it.
                if options.comfyui.ends_with_us() {
                    server.leave("its agent was stopped", false).await;
                }
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
        SlotEnd::InstanceBroken { reason } => {
            tracing::warn!(reason, "ComfyUI broke");
            server.leave(&reason, true).await;
            Ok(Served::Broken)
        }
        SlotEnd::Closed => {
            let waited = tokio::time::timeout(options.grace, collecting.wait()).await;
            if waited.is_ok() {
                server.leave("its agent was stopped", false).await;
            }
            Ok(Served::Stopped)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_installation_that_breaks_at_once_is_not_started_at_once_again_and_again() {
        let began = tokio::time::Instant::now();
        let mut rounds = Rounds::new();
        for _ in 0..20 {
            rounds.begin(Duration::ZERO);
            rounds.pause(Duration::from_secs(1)).await;
        }
        assert!(began.elapsed() > Duration::from_secs(40), "{:?}", began.elapsed());
        let began = tokio::time::Instant::now();
        rounds.begin(Duration::ZERO);
        rounds.pause(SHORT_LIFE).await;
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "one that lived may come back soon"
        );
    }
}
