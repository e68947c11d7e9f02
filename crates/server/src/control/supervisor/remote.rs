//! What is different in the life of an instance that somebody else runs: it is waited for as long as it takes, and it is
//! known what it can do before it gets its first job.

use std::time::Duration;

use darkroom_core::InstanceState;
use darkroom_instances::Handle;
use darkroom_store::catalog::InstanceChange;

use super::{Task, chain};

/// How long its state says the same before it is looked whether it should say something else.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// After an answer that cannot be used.
const AFTER_GARBAGE: Duration = Duration::from_secs(2);

impl Task {
    /// Waits until the server answers and told what it can do. Until then the instance says why it is down.
    pub(super) async fn server_answers(&self, handle: &Handle) -> Result<(), String> {
        tokio::select! {
            () = self.listens_and_tells(handle) => {}
            () = self.stop.cancelled() => return Err("stopped while its server was down".to_owned()),
            () = self.close.cancelled() => return Err("the server stopped".to_owned()),
        }
        let change = InstanceChange {
            state: Some(InstanceState::Ready),
            phase: Some("ready".into()),
            reason: Some(String::new()),
            ..InstanceChange::default()
        };
        if !self.change(InstanceState::Starting, change).await {
            return Err("it was given up meanwhile".to_owned());
        }
        self.control.wake();
        Ok(())
    }

    async fn listens_and_tells(&self, handle: &Handle) {
        let mut said = String::new();
        loop {
            // Short at first, so that what is wrong is shown at once.
            let patience = match said.is_empty() {
                true => Duration::from_secs(1),
                false => LOOK_AGAIN,
            };
            let wrong = match self.control.backend.wait_ready(handle, patience).await {
                Err(error) => chain(&error),
                Ok(()) => match self.tell_abilities(handle).await {
                    Ok(()) => return,
                    Err(error) => {
                        tokio::time::sleep(AFTER_GARBAGE).await;
                        format!("its object_info cannot be used: {error:#}")
                    }
                },
            };
            // "not ready after 10s: ..." is our way of asking, not what is wrong.
            let wrong = wrong.split_once(": ").map_or(wrong.as_str(), |(_, what)| what);
            let wrong = format!("down: {wrong}");
            if wrong != said {
                tracing::warn!(instance.id = %self.id, url = handle.base_url, reason = wrong, "a remote server is down");
                self.say(&wrong).await;
                said = wrong;
            }
        }
    }

    pub(super) async fn say(&self, reason: &str) {
        let change = InstanceChange {
            reason: Some(reason.to_owned()),
            ..InstanceChange::default()
        };
        self.change(InstanceState::Starting, change).await;
    }

    /// Its instance ended against our wish: the next one waits a little, longer each time it did nothing in between.
    pub(super) fn server_broke(&self) {
        if self.activity.ended() > 0 {
            self.control.server_worked(&self.endpoint.name, &self.box_name);
        }
        self.control.server_lost(&self.endpoint.name, &self.box_name);
    }

    /// What must be sent with every request to it.
    pub(super) fn headers(&self, handle: &Handle) -> Vec<(String, String)> {
        let service = &self.control.service;
        let server = match handle.remote {
            true => service.remote_server(&self.endpoint.name, &handle.base_url),
            false => None,
        };
        server.map_or_else(Vec::new, |server| server.headers.into_iter().collect())
    }
}
