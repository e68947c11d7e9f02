//! Where the agent's ComfyUI comes from.

use darkroom_core::{EndpointName, Ids};
use darkroom_instances::Handle;
use darkroom_runner::Dirs;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::installation::Installation;

/// See the module.
pub enum Comfyui {
    /// Somebody else runs it, here.
    At(Url),
    /// The agent starts it.
    Started(Box<Installation>),
}

/// A ComfyUI that is there, as far as the agent has to do with that.
pub(crate) struct Up {
    /// Its address, without a slash at the end.
    pub base_url: String,
    /// Its directories, if nobody else has them.
    pub dirs: Option<Dirs>,
    handle: Option<Handle>,
}

impl Comfyui {
    /// Starts it, if that is ours to do; `None`: stopped meanwhile.
    pub(crate) async fn up(
        &self,
        endpoint: &EndpointName,
        ids: &dyn Ids,
        stop: &CancellationToken,
    ) -> Option<Up> {
        match self {
            Comfyui::At(url) => Some(Up {
                base_url: url.as_str().trim_end_matches('/').to_owned(),
                dirs: None,
                handle: None,
            }),
            Comfyui::Started(installation) => {
                let handle = installation.up(endpoint, ids, stop).await?;
                Some(Up {
                    base_url: handle.base_url.clone(),
                    dirs: handle.dirs.as_ref().map(|dirs| Dirs {
                        input: dirs.input.clone(),
                        output: dirs.output.clone(),
                        temp: dirs.temp.clone(),
                    }),
                    handle: Some(handle),
                })
            }
        }
    }

    /// Resolves when it is sure that it died; of one that somebody else runs that is never known here.
    pub(crate) async fn died(&self, up: &Up) -> String {
        match (self, &up.handle) {
            (Comfyui::Started(installation), Some(handle)) => installation.died(handle).await,
            (Comfyui::Started(_) | Comfyui::At(_), _) => std::future::pending().await,
        }
    }

    /// Ends it, if we started it.
    pub(crate) async fn down(&self, up: &Up) {
        if let (Comfyui::Started(installation), Some(handle)) = (self, &up.handle) {
            installation.down(handle).await;
        }
    }

    /// Whether it ends with its agent.
    pub(crate) fn ends_with_us(&self) -> bool {
        matches!(self, Comfyui::Started(_))
    }
}
