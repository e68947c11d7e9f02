//! The graph that each new instance runs before its first job, so that models are loaded and compiled by then.

use std::path::Path;

use anyhow::{Context, bail};
use darkroom_comfy::{client::Client, graph::convert, object_info::ObjectInfo};
use darkroom_core::{JobId, instance::StartStep};
use darkroom_instances::Handle;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::Task;

impl Task {
    /// Runs `warmup`, if there is one, until `deadline`. An instance that cannot be warmed up serves nevertheless: its first
    /// job may be slow, and the log says why.
    pub(super) async fn warm_up(&self, handle: &Handle, deadline: Instant) {
        let Some(path) = &self.endpoint.warmup else {
            return;
        };
        let warming = async {
            tokio::select! {
                warmed = timeout_at(deadline, self.run_warmup(handle, path)) => warmed,
                // Who gives the instance up does not wait for it.
                () = self.stop.cancelled() => Ok(Ok(())),
                () = self.close.cancelled() => Ok(Ok(())),
            }
        };
        match warming.await {
            Ok(Ok(())) => self.reached(StartStep::WarmedUp).await,
            Ok(Err(error)) => {
                tracing::warn!(instance.id = %self.id, endpoint.name = %self.endpoint.name, error = format!("{error:#}"), "an instance was not warmed up");
            }
            Err(_) => {
                tracing::warn!(instance.id = %self.id, endpoint.name = %self.endpoint.name, "an instance was not warmed up within start_timeout");
            }
        }
    }

    async fn run_warmup(&self, handle: &Handle, path: &Path) -> anyhow::Result<()> {
        let text = tokio::fs::read(path)
            .await
            .with_context(|| path.display().to_string())?;
        let file: Value = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
        let client = self.client(handle)?;
        let graph = in_api_format(&client, file).await?;
        let id = JobId::new(&*self.control.service.ids).to_string();
        let entry = client.run(&graph, &id).await?;
        match entry.succeeded() {
            Some(false) => {
                let why = entry.error().map(|error| error.exception_message);
                bail!("the graph failed: {}", why.flatten().unwrap_or_default().trim())
            }
            Some(true) | None => Ok(()),
        }
    }
}

async fn in_api_format(client: &Client, file: Value) -> anyhow::Result<Value> {
    if !convert::is_ui_format(&file) {
        return Ok(file);
    }
    let info = ObjectInfo::parse(client.object_info().await?)?;
    Ok(convert::to_api_format(&file, &info)?)
}
