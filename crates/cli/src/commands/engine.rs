//! `darkroom engine`: only the native engine; what an endpoint without a ComfyUI starts.

use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use darkroom_ambient::{SystemClock, SystemIds};

use crate::{
    args::Global,
    exit::{Exit, Failure},
    logging,
};

/// Options of `engine`, named as ComfyUI names them.
#[derive(Debug, Args)]
pub struct EngineArgs {
    #[command(flatten)]
    engine: darkroom_engine::Args,
}

/// Serves until the process is ended.
pub async fn engine(args: EngineArgs, global: &Global) -> Result<Exit, Failure> {
    logging::set_up(global.log.as_deref(), None);
    let options = args.engine.options();
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let address = listener.local_addr().context("the listener has no address")?;
    tracing::info!(%address, "engine listens");
    darkroom_engine::serve(
        options,
        listener,
        Arc::new(SystemClock::new()),
        Arc::new(SystemIds),
    )
    .await
    .context("the engine stopped")?;
    Ok(Exit::Ok)
}
