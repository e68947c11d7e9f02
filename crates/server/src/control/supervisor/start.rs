//! From a spawned process to an instance whose slot may claim, step by step, each written down when it is reached.

use std::time::Duration;

use darkroom_core::{InstanceState, instance::StartStep};
use darkroom_instances::Handle;
use darkroom_store::catalog::InstanceChange;
use futures::FutureExt;
use tokio::net::TcpStream;
use url::Url;

use super::{Task, chain};

/// The first pause between two looks at the port, and the longest one: an engine listens after milliseconds, a ComfyUI
/// after many seconds.
const FIRST_PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

impl Task {
    /// Waits until the instance answers, or says why it will not.
    pub(super) async fn become_ready(&self, handle: &Handle) -> Result<(), String> {
        let timeout = self.endpoint.scaling.start_timeout;
        let deadline = tokio::time::Instant::now() + timeout;
        let ready = self.control.backend.wait_ready(handle, timeout);
        tokio::pin!(ready);
        let answers = async {
            tokio::select! {
                () = listens(&handle.base_url) => {}
                ready = &mut ready => {
                    if ready.is_ok() {
                        // It listened; its answer came before our own look at the port.
                        self.reached(StartStep::Listening).await;
                    }
                    return ready;
                }
            }
            // Written beside the start, which does not wait for it.
            tokio::join!(ready, self.reached(StartStep::Listening)).0
        };
        tokio::select! {
            answered = answers => answered.map_err(|e| chain(&e))?,
            () = self.stop.cancelled() => return Err("stopped while it started".to_owned()),
            () = self.close.cancelled() => return Err("the server stopped while it started".to_owned()),
        }
        self.reached(StartStep::NodesLoaded).await;
        self.warm_up(handle, deadline).boxed().await?;
        let change = InstanceChange {
            state: Some(InstanceState::Ready),
            phase: Some(StartStep::Ready.as_str().to_owned()),
            ..InstanceChange::default()
        };
        if !self.change(InstanceState::Starting, change).await {
            return Err("it was given up meanwhile".to_owned());
        }
        self.control.wake();
        Ok(())
    }

    pub(super) async fn reached(&self, step: StartStep) {
        let change = InstanceChange {
            phase: Some(step.as_str().to_owned()),
            ..InstanceChange::default()
        };
        self.change(InstanceState::Starting, change).await;
    }
}

/// Waits until the port takes connections; for ever where the address names none.
pub(super) async fn listens(base_url: &str) {
    let Some((host, port)) = address(base_url) else {
        return std::future::pending().await;
    };
    let mut pause = FIRST_PAUSE;
    while TcpStream::connect((host.as_str(), port)).await.is_err() {
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(LONGEST_PAUSE);
    }
}

/// Host and port of an address, where it names them.
pub(super) fn address(base_url: &str) -> Option<(String, u16)> {
    let url = Url::parse(base_url).ok()?;
    let host = url.host_str()?.trim_matches(['[', ']']).to_owned();
    Some((host, url.port_or_known_default()?))
}
