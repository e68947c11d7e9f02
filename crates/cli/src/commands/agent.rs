//! `darkroom agent`: a ComfyUI on this machine becomes an instance of a server somewhere else.

use std::{path::PathBuf, sync::Arc, time::Duration};

use clap::Args;
use darkroom_agent::{Error, Options};
use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_core::EndpointName;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    args::Global,
    exit::{Exit, Failure, chain},
    logging,
};

/// Options of `agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Whose jobs it runs: an endpoint with `backend = "external"`
    #[arg(long, value_name = "NAME")]
    endpoint: EndpointName,
    /// Where ComfyUI answers
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8188")]
    comfyui: Url,
    /// What to call this instance; the same name later is the same instance [default: this machine's name and ComfyUI's
    /// address]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Where outputs wait while the server is away [default: a directory below the system's temporary ones]
    #[arg(long, value_name = "DIR")]
    spool: Option<PathBuf>,
    /// After SIGTERM or Ctrl-C, how many seconds a running job may take to end
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    grace: u64,
}

/// Serves until it is told to stop.
pub async fn agent(args: AgentArgs, global: &Global) -> Result<Exit, Failure> {
    logging::set_up(global.log.as_deref(), None);
    let server: Url = global
        .server()
        .parse()
        .map_err(|error| Failure::usage(format!("--server: {error}")))?;
    let name = args.name.unwrap_or_else(|| default_name(&args.comfyui));
    let made;
    let spool_dir = match args.spool {
        Some(directory) => directory,
        None => {
            let directory = tempfile::TempDir::with_prefix("darkroom-agent-");
            made = directory.map_err(|e| Failure::local(format!("no temporary directory: {e}")))?;
            made.path().to_owned()
        }
    };
    darkroom_runner::clear_spool(&spool_dir)
        .map_err(|e| Failure::local(format!("{}: {e}", spool_dir.display())))?;
    let options = Options {
        server,
        key: global.key.clone(),
        endpoint: args.endpoint,
        name,
        comfyui: args.comfyui,
        spool_dir,
        grace: Duration::from_secs(args.grace),
    };
    let stop = CancellationToken::new();
    let stopping = tokio::spawn(cancel_at_signal(stop.clone()));
    let ran = darkroom_agent::run(options, Arc::new(SystemClock::new()), Arc::new(SystemIds), stop).await;
    stopping.abort();
    match ran {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => Err(failure(&error)),
    }
}

fn failure(error: &Error) -> Failure {
    let (exit, code) = match error {
        Error::Refused(_) => (Exit::Refused, "refused"),
        Error::Superseded(_) => (Exit::Refused, "superseded"),
        Error::Comfyui(_) | Error::Access(_) => (Exit::Usage, "usage"),
        Error::Http(_) => (Exit::Local, "local"),
    };
    Failure::new(exit, code, chain(error))
}

/// Two agents of one machine serve two ComfyUIs.
fn default_name(comfyui: &Url) -> String {
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{machine}-{}", comfyui.authority())
}

async fn cancel_at_signal(stop: CancellationToken) {
    let (Ok(mut term), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return;
    };
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("stopping once the running job has ended");
    stop.cancel();
}
