//! ComfyUI servers that somebody else runs: never started, never ended, only used and watched.
//!
//! Here "running" means that the server is one of the endpoint's; whether it answers is found out by asking. It is gone
//! when nobody listens any more, or when it has not answered for a long while.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use darkroom_core::{InstanceId, endpoint::RemoteServer};
use reqwest::header::HeaderMap;

use crate::{
    Error, Exit, ExitInfo, Handle, InstanceBackend, Recognition, Spec, StartError, StartRequest, Usage,
};

mod ask;
#[cfg(test)]
mod tests;

use ask::Answer;

/// Between two questions whether it is up.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// The longest of these pauses: a server that is down for hours is not asked four times a second.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Between two looks at a server that is used.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// So many refused connections in a row, [`LOOK_EVERY`] apart, and it is gone: a ComfyUI that restarts is away longer,
/// and has forgotten its queue.
const REFUSED_IS_GONE: u32 = 2;
/// So many looks without an answer: a node may hold Python's interpreter for many seconds, not for minutes.
const SILENT_IS_GONE: u32 = 12;

/// Finds the server of a handle in the configuration as it is now; `None` when it is not there any more.
pub type Servers = Arc<dyn Fn(&Handle) -> Option<RemoteServer> + Send + Sync>;

/// Uses ComfyUI servers that somebody else runs. Cheap to clone.
#[derive(Clone)]
pub struct RemoteBackend {
    http: reqwest::Client,
    servers: Servers,
    look_every: Duration,
}

impl RemoteBackend {
    /// A backend for the servers that `servers` knows. Keys of servers are looked up there each time, never kept in a
    /// handle.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(servers: Servers) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(5))
            .build()?;
        Ok(RemoteBackend {
            http,
            servers,
            look_every: LOOK_EVERY,
        })
    }

    fn headers(&self, handle: &Handle) -> HeaderMap {
        (self.servers)(handle).map_or_else(HeaderMap::new, |server| ask::headers(&server))
    }

    async fn ask(&self, handle: &Handle) -> Answer {
        ask::system_stats(&self.http, &handle.base_url, self.headers(handle)).await
    }
}

#[async_trait]
impl InstanceBackend for RemoteBackend {
    async fn start(&self, request: StartRequest) -> Result<Handle, StartError> {
        let Spec::Remote(server) = request.spec else {
            return Err(StartError::Command("is no remote server".to_owned()));
        };
        Ok(Handle {
            instance: request.instance,
            endpoint: request.endpoint,
            base_url: server.url,
            dirs: None,
            log_path: None,
            process: None,
            remote: true,
        })
    }

    async fn wait_ready(&self, handle: &Handle, timeout: Duration) -> Result<(), StartError> {
        let mut last = "it was not asked yet".to_owned();
        let asking = async {
            let mut pause = FIRST_PAUSE;
            loop {
                match self.ask(handle).await {
                    Answer::Fine => return,
                    not_yet => last = not_yet.to_string(),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        let answered = tokio::time::timeout(timeout, asking).await;
        answered.map_err(|_| StartError::NotReady {
            timeout,
            last_answer: last,
            last_lines: String::new(),
        })
    }

    async fn recognise(&self, handle: &Handle) -> Recognition {
        match (self.servers)(handle) {
            Some(_) => Recognition::Alive,
            None => Recognition::Gone,
        }
    }

    async fn exited(&self, handle: &Handle) -> ExitInfo {
        let (mut refused, mut silent) = (0, 0);
        loop {
            let said = match self.ask(handle).await {
                // What it answers is the slot's business, as long as somebody is there.
                Answer::Fine | Answer::Status(_) | Answer::Garbage => {
                    (refused, silent) = (0, 0);
                    String::new()
                }
                down @ (Answer::Refused | Answer::NoHttp) => {
                    refused += 1;
                    down.to_string()
                }
                down @ Answer::Silent => {
                    silent += 1;
                    down.to_string()
                }
            };
            if (self.servers)(handle).is_none() {
                return gone("it is not configured any more".to_owned());
            }
            if refused >= REFUSED_IS_GONE || silent >= SILENT_IS_GONE {
                return gone(said);
            }
            tokio::time::sleep(self.look_every).await;
        }
    }

    async fn stop(&self, _: &Handle, _: Duration) -> Result<(), Error> {
        // It is not ours.
        Ok(())
    }

    async fn logs(&self, handle: &Handle, tail_bytes: u64) -> Result<Bytes, Error> {
        let log = ask::log(&self.http, &handle.base_url, self.headers(handle)).await;
        let tail = usize::try_from(tail_bytes).unwrap_or(usize::MAX);
        let mut from = log.len().saturating_sub(tail);
        while !log.is_char_boundary(from) {
            from += 1;
        }
        Ok(Bytes::from(log[from..].to_owned()))
    }

    async fn trim_logs(&self, _: &Handle, _: u64) -> Result<(), Error> {
        Ok(())
    }

    async fn remove_files(&self, _: &Handle) -> Result<(), Error> {
        Ok(())
    }

    async fn usage(&self, _: &Handle) -> Option<Usage> {
        None
    }

    async fn find(&self, _: InstanceId) -> Result<Option<Handle>, Error> {
        // Nothing is started, so nothing is left by a server that died while starting it.
        Ok(None)
    }

    async fn orphans(&self, _: &[InstanceId]) -> Result<Vec<Handle>, Error> {
        Ok(vec![])
    }
}

fn gone(why: String) -> ExitInfo {
    ExitInfo {
        how: Exit::Unreachable,
        last_lines: why,
    }
}
