//! The graph that each new instance runs before its first job, so that models are loaded and compiled by then.

use std::{path::Path, time::Duration};

use anyhow::{Context, bail};
use darkroom_comfy::{client::Client, graph::convert, object_info::ObjectInfo, wire::HistoryEntry};
use darkroom_core::instance::StartStep;
use darkroom_instances::Handle;
use serde_json::Value;
use tokio::time::{Instant, timeout, timeout_at};

use super::Task;

/// How long a warm-up that took too long may take to end: less than the planner's patience with a start beyond
/// `start_timeout`.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(20);

impl Task {
    /// Runs `warmup`, if there is one, until `deadline`. An instance that cannot be warmed up serves nevertheless: its first
    /// job may be slow, and the log says why. But it serves only when nothing of the warm-up is left on it.
    ///
    /// # Errors
    /// Why the instance must not serve: it was given up meanwhile, or its warm-up does not end.
    pub(super) async fn warm_up(&self, handle: &Handle, deadline: Instant) -> Result<(), String> {
        let Some(path) = &self.endpoint.warmup else {
            return Ok(());
        };
        let warmed = tokio::select! {
            warmed = timeout_at(deadline, self.run_warmup(handle, path)) => warmed,
            // Who gives the instance up does not wait for it.
            () = self.stop.cancelled() => return Err("stopped while it was warmed up".to_owned()),
            () = self.close.cancelled() => return Err("the server stopped while it was warmed up".to_owned()),
        };
        match warmed {
            Ok(Ok(())) => self.reached(StartStep::WarmedUp).await,
            Ok(Err(error)) => {
                tracing::warn!(instance.id = %self.id, endpoint.name = %self.endpoint.name, error = format!("{error:#}"), "an instance was not warmed up");
            }
            Err(_) => {
                tracing::warn!(instance.id = %self.id, endpoint.name = %self.endpoint.name, "an instance was not warmed up within start_timeout");
                return self.end_warmup(handle).await;
            }
        }
        Ok(())
    }

    /// The prompt that its warm-up is: one for the whole life of the instance, so that a server that adopts it while it
    /// starts knows it again.
    fn warmup_id(&self) -> String {
        self.id.as_uuid().to_string()
    }

    async fn run_warmup(&self, handle: &Handle, path: &Path) -> anyhow::Result<()> {
        let text = tokio::fs::read(path)
            .await
            .with_context(|| path.display().to_string())?;
        let file: Value = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let client = self.client(handle)?;
        let entry = match self.begun_before(&client).await? {
            true => client.ended(&self.warmup_id()).await?,
            false => {
                let graph = in_api_format(&client, file).await?;
                client.run(&graph, &self.warmup_id()).await?
            }
        };
        verdict(&entry)
    }

    /// Whether an earlier server posted it already.
    async fn begun_before(&self, client: &Client) -> anyhow::Result<bool> {
        let id = self.warmup_id();
        let queue = client.queue().await?;
        let known = queue.is_running(&id) || queue.is_pending(&id);
        Ok(known || client.history(&id).await?.is_some())
    }

    async fn end_warmup(&self, handle: &Handle) -> Result<(), String> {
        let client = self.client(handle).map_err(|error| format!("{error:#}"))?;
        let withdrawn = tokio::select! {
            withdrawn = timeout(WITHDRAWN_WITHIN, client.empty()) => withdrawn,
            () = self.stop.cancelled() => return Err("stopped while it was warmed up".to_owned()),
            () = self.close.cancelled() => return Err("the server stopped while it was warmed up".to_owned()),
        };
        match withdrawn {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(format!("its warm-up could not be ended: {error}")),
            Err(_) => Err(
                "its warm-up took longer than start_timeout and cannot be interrupted; give it more time or less to do"
                    .to_owned(),
            ),
        }
    }
}

fn verdict(entry: &HistoryEntry) -> anyhow::Result<()> {
    match entry.succeeded() {
        Some(false) => {
            let why = entry.error().map(|error| error.exception_message);
            bail!("the graph failed: {}", why.flatten().unwrap_or_default().trim())
        }
        Some(true) | None => Ok(()),
    }
}

async fn in_api_format(client: &Client, file: Value) -> anyhow::Result<Value> {
    if !convert::is_ui_format(&file) {
        return Ok(file);
    }
    let info = ObjectInfo::parse(client.object_info().await?)?;
    Ok(convert::to_api_format(&file, &info)?)
}
