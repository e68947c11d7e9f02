//! What is different in the life of a worker that answers HTTP: it is ready when its port takes connections, and is gone
//! when it does so no more. Nothing is asked of it but what callers post, so none of its paths means anything to us.

use std::time::Duration;

use darkroom_core::{InstanceState, instance::StartStep};
use darkroom_instances::{Exit, ExitInfo, Handle, Recognition};
use darkroom_store::catalog::InstanceChange;
use tokio::net::TcpStream;

use super::{
    Task,
    start::{address, listens},
};

/// When a remote one that does not listen is shown as down.
const SAY_DOWN_AFTER: Duration = Duration::from_secs(1);
/// Between two looks at a remote one.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// So many connections in a row that failed, and it is gone. One that is busy still takes them.
const MISSES: u32 = 2;

impl Task {
    /// Waits until the port takes connections, or says why it will not.
    pub(super) async fn port_answers(&self, handle: &Handle) -> Result<(), String> {
        let timeout = self.endpoint.scaling.start_timeout;
        let too_long = async {
            match handle.remote {
                true => {
                    tokio::time::sleep(SAY_DOWN_AFTER).await;
                    self.say("down: nothing listens at its address").await;
                    std::future::pending::<()>().await;
                }
                false => tokio::time::sleep(timeout).await,
            }
        };
        let exited = async {
            match handle.remote {
                true => std::future::pending().await,
                false => self.control.backend.exited(handle).await,
            }
        };
        tokio::select! {
            () = listens(&handle.base_url) => {}
            exit = exited => return Err(exit.to_string()),
            () = too_long => return Err(format!("nothing listened on its port within {} s", timeout.as_secs())),
            () = self.stop.cancelled() => return Err("stopped while it started".to_owned()),
            () = self.close.cancelled() => return Err("the server stopped while it started".to_owned()),
        }
        if self.control.backend.recognise(handle).await == Recognition::Gone {
            // Something else has its port and listens.
            return Err("it is gone".to_owned());
        }
        let change = InstanceChange {
            state: Some(InstanceState::Ready),
            phase: Some(StartStep::Ready.as_str().to_owned()),
            reason: handle.remote.then(String::new),
            ..InstanceChange::default()
        };
        if !self.change(InstanceState::Starting, change).await {
            return Err("it was given up meanwhile".to_owned());
        }
        self.control.wake();
        Ok(())
    }
}

/// Resolves when nothing listens at an address any more.
pub(super) async fn stops_listening(base_url: &str) -> ExitInfo {
    let mut misses = 0;
    while misses < MISSES {
        tokio::time::sleep(LOOK_EVERY).await;
        misses = match takes_connections(base_url).await {
            true => 0,
            false => misses + 1,
        };
    }
    ExitInfo {
        how: Exit::Unreachable,
        last_lines: "nothing listens at its address".to_owned(),
    }
}

async fn takes_connections(base_url: &str) -> bool {
    let Some((host, port)) = address(base_url) else {
        return false;
    };
    let connecting = TcpStream::connect((host.as_str(), port));
    tokio::time::timeout(CONNECT_LIMIT, connecting)
        .await
        .is_ok_and(|connected| connected.is_ok())
}
