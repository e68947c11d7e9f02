//! What the agent's ComfyUI can do: told to the server before its first job, so that graphs are checked and placed, and again
//! when it changed.

use std::{convert::Infallible, time::Duration};

use bytes::Bytes;
use darkroom_comfy::client::{Client, facts::Facts};
use tokio_util::sync::CancellationToken;

use crate::{pace::Pace, server::Server};

/// How often an idle ComfyUI is asked: its operator may add models while it runs.
const EVERY: Duration = Duration::from_secs(60);

/// See the module.
pub struct Abilities {
    comfyui: Client,
    object_info: Bytes,
    /// The server has it.
    told: bool,
}

impl Abilities {
    /// Waits until ComfyUI answers; `None`: stopped meanwhile.
    pub async fn once_it_answers(comfyui: &Client, stop: &CancellationToken) -> Option<Self> {
        let mut pace = Pace::new();
        loop {
            let asked = tokio::select! {
                asked = object_info(comfyui) => asked,
                () = stop.cancelled() => return None,
            };
            match asked {
                Ok(object_info) => {
                    return Some(Abilities {
                        comfyui: comfyui.clone(),
                        object_info,
                        told: false,
                    });
                }
                Err(why) if pace.is_first() => {
                    tracing::info!(address = %comfyui.base(), why, "waiting for ComfyUI");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = pace.wait() => {}
                () = stop.cancelled() => return None,
            }
        }
    }

    /// Tells the server, unless it was told.
    pub async fn tell(&mut self, server: &Server) {
        if self.told {
            return;
        }
        match server.tell_object_info(self.object_info.clone()).await {
            Ok(()) => self.told = true,
            Err(error) => {
                tracing::warn!(?error, "the server does not know yet what this ComfyUI can do");
                return;
            }
        }
        match Facts::of(&self.comfyui, |_| false).await {
            Ok(facts) => {
                if let Err(error) = server.tell_facts(&facts).await {
                    tracing::warn!(
                        ?error,
                        "the server was not told of this ComfyUI's version and devices"
                    );
                }
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "ComfyUI does not tell its version and devices");
            }
        }
    }

    /// Tells the server what changes, while nothing runs.
    pub async fn keep_told(&mut self, server: &Server) -> Infallible {
        let mut pace = Pace::new();
        loop {
            match self.told {
                true => tokio::time::sleep(EVERY).await,
                false => pace.wait().await,
            }
            if self.told && server.is_idle() {
                // One that is gone is found by its slot.
                if let Ok(now) = object_info(&self.comfyui).await
                    && now != self.object_info
                {
                    self.object_info = now;
                    self.told = false;
                    pace = Pace::new();
                }
            }
            self.tell(server).await;
        }
    }
}

async fn object_info(comfyui: &Client) -> Result<Bytes, String> {
    let told = comfyui.object_info().await.map_err(|error| error.to_string())?;
    let json = serde_json::to_vec(&told).map_err(|error| error.to_string())?;
    Ok(json.into())
}
