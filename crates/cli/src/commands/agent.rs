//! `darkroom agent`: a ComfyUI on this machine becomes an instance of a server somewhere else.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;
use darkroom_agent::{Comfyui, Error, Installation, Options};
use darkroom_ambient::{SystemClock, SystemIds};
use darkroom_core::EndpointName;
use darkroom_server::config::comfyui_process;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::{
    args::Global,
    data_dir::DataDir,
    exit::{Exit, Failure, chain},
    logging,
};

/// Options of `agent`.
#[derive(Debug, Args)]
pub struct AgentArgs {
    /// Whose jobs it runs: an endpoint with `backend = "external"`
    #[arg(long, value_name = "NAME")]
    endpoint: EndpointName,
    /// A ComfyUI that runs (its address), or an installation that the agent starts, watches and ends (its directory)
    #[arg(long, value_name = "URL|PATH", default_value = "http://127.0.0.1:8188")]
    comfyui: String,
    /// The interpreter of an installation [default: its own environment's, else python3]
    #[arg(long, value_name = "PATH")]
    python: Option<String>,
    /// Where an installation that the agent starts keeps its files; each agent needs its own
    #[arg(long, value_name = "DIR", default_value = "darkroom-agent")]
    data_dir: PathBuf,
    /// How many seconds an installation may take to start
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    start_timeout: u64,
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
    /// Further arguments of an installation's main.py, after `--`
    #[arg(last = true, value_name = "ARG")]
    args: Vec<String>,
}

/// Serves until it is told to stop.
pub async fn agent(args: AgentArgs, global: &Global) -> Result<Exit, Failure> {
    logging::set_up(global.log.as_deref(), None);
    let server: Url = global
        .server()
        .parse()
        .map_err(|error| Failure::usage(format!("--server: {error}")))?;
    let ComfyuiOfArgs {
        comfyui,
        called,
        _held,
    } = comfyui(&args)?;
    let name = args.name.unwrap_or_else(|| default_name(&called));
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
        comfyui,
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
        Error::Comfyui(_) | Error::Access(_) | Error::Address(_) => (Exit::Usage, "usage"),
        Error::Http(_) => (Exit::Local, "local"),
    };
    Failure::new(exit, code, chain(error))
}

/// What `--comfyui` means.
struct ComfyuiOfArgs {
    comfyui: Comfyui,
    /// What tells it from others of this machine.
    called: String,
    /// An installation's data directory, ours alone.
    _held: Option<DataDir>,
}

fn comfyui(args: &AgentArgs) -> Result<ComfyuiOfArgs, Failure> {
    let wrong = |why: String| Failure::usage(format!("--comfyui: {why}"));
    if args.comfyui.starts_with("http://") || args.comfyui.starts_with("https://") {
        if args.python.is_some() || !args.args.is_empty() {
            let why = "--python and further arguments are for an installation that the agent starts";
            return Err(Failure::usage(why));
        }
        let url: Url = args.comfyui.parse().map_err(|error| wrong(format!("{error}")))?;
        return Ok(ComfyuiOfArgs {
            called: url.authority().to_owned(),
            comfyui: Comfyui::At(url),
            _held: None,
        });
    }
    let spec = comfyui_process(Path::new(&args.comfyui), args.python.clone(), args.args.clone());
    let spec = spec.map_err(wrong)?;
    let held = DataDir::lock(&args.data_dir).map_err(|error| Failure::from(anyhow::Error::from(error)))?;
    let called = spec.box_name();
    let start_timeout = Duration::from_secs(args.start_timeout);
    let installation = Installation::open(&args.data_dir, spec, start_timeout)
        .map_err(|error| Failure::local(chain(&error)))?;
    Ok(ComfyuiOfArgs {
        comfyui: Comfyui::Started(Box::new(installation)),
        called,
        _held: Some(held),
    })
}

/// Two agents of one machine serve two ComfyUIs.
fn default_name(comfyui: &str) -> String {
    let machine = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("{machine}-{comfyui}")
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
