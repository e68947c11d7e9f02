//! `darkroom engine`: only the native engine, for who wants a ComfyUI server without Darkroom around it.

use clap::Args;

use crate::exit::{Exit, Failure};

/// Options of `engine`, named as ComfyUI names them.
#[derive(Debug, Args)]
pub struct EngineArgs {
    #[command(flatten)]
    engine: darkroom_engine::Args,
}

/// Serves until SIGTERM or Ctrl-C.
pub async fn engine(args: EngineArgs) -> Result<Exit, Failure> {
    crate::logging::set_up(None, None);
    darkroom_engine::run(args.engine).await?;
    Ok(Exit::Ok)
}
