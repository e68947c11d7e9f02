//! `darkroom serve`: the parent that owns the socket, and with `--child-of` the child that does the work.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use darkroom_engine::registry::Registry;
use darkroom_server::{
    app::{self, RunOptions},
    config::{Config, LogFormat as ConfigLogFormat, Overrides},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::config::refused;
use crate::{
    args::{Global, LogFormat},
    data_dir::ServerLock,
    exit::{Exit, Failure, chain},
    failpoint, logging,
    parent::{self, child},
};

/// Options of `serve`.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// Configuration file [default: ./darkroom.toml, else /etc/darkroom/darkroom.toml, else defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1:8288]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where the state lives [default: ./darkroom-data]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// What the endpoint `default` runs on: a ComfyUI checkout
    #[arg(long, value_name = "PATH")]
    comfyui: Option<String>,
    /// How to write the log [default: text]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
    /// Serve everybody who reaches the address, with everything
    #[arg(long)]
    insecure_no_auth: bool,
    /// Stop when stdin ends: a server that must not outlive who started it
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
    /// Be the child of that process, with its socket as stdin
    #[arg(long, hide = true, value_name = "PID")]
    child_of: Option<u32>,
}

/// Runs until stopped. The parent is single-threaded and has its own runtime, so this is not `async`.
pub fn serve(args: ServeArgs, global: &Global) -> Result<ExitCode, Failure> {
    let overrides = Overrides {
        config: args.config,
        listen: args.listen,
        data_dir: args.data_dir,
        comfyui: args.comfyui,
        log_format: args.log_format.map(LogFormat::configured),
        insecure_no_auth: args.insecure_no_auth,
    };
    let config = Config::load(&overrides).map_err(|error| refused(&error))?;
    let format = match config.server.log_format {
        ConfigLogFormat::Text => LogFormat::Text,
        ConfigLogFormat::Json => LogFormat::Json,
    };
    logging::set_up(global.log.as_deref(), Some(format));
    match args.child_of {
        Some(parent) => work(config, &overrides, parent),
        None => {
            let options = parent::Options {
                listen: config.server.listen,
                data_dir: config.server.data_dir,
                child_args: std::env::args_os().skip(1).collect(),
                until_stdin_closes: args.until_stdin_closes,
            };
            parent::run(&options).map_err(|error| Failure::local(chain(&error)))
        }
    }
}

fn work(config: Config, overrides: &Overrides, parent: u32) -> Result<ExitCode, Failure> {
    child::die_with_parent(parent).context("cannot follow the parent process")?;
    let listener = child::inherited_listener().context("stdin is no listening socket")?;
    let _lock = ServerLock::take(&config.server.data_dir).context("the data directory")?;
    let (reloads, reload) = mpsc::channel(1);
    let options = RunOptions {
        engine_command: engine_command()?,
        engine_object_info: Some(engine_object_info()?),
        failpoint: failpoint::from_env().context("DARKROOM_FAILPOINTS")?,
        introduce: overrides.comfyui.is_some(),
        reload: Some(reload),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start threads")?;
    runtime.block_on(async {
        let shutdown = stop_on_signals()?;
        reload_on_hangup(overrides.clone(), reloads)?;
        app::run(config, listener, options, shutdown).await?;
        Ok(Exit::Ok.into())
    })
}

/// Cancelled by SIGTERM and SIGINT.
fn stop_on_signals() -> Result<CancellationToken, Failure> {
    let shutdown = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).context("cannot listen for signals")?;
        let shutdown = shutdown.clone();
        tokio::spawn(async move {
            while signals.recv().await.is_some() {
                shutdown.cancel();
            }
        });
    }
    Ok(shutdown)
}

/// SIGHUP reads the configuration anew; one with mistakes changes nothing.
fn reload_on_hangup(overrides: Overrides, reloads: mpsc::Sender<Config>) -> Result<(), Failure> {
    let mut hangups = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    tokio::spawn(async move {
        while hangups.recv().await.is_some() {
            match Config::load(&overrides) {
                Ok(config) => {
                    if reloads.send(config).await.is_err() {
                        return;
                    }
                    tracing::info!("the configuration was read again");
                }
                Err(error) => tracing::error!(%error, "the configuration was not changed"),
            }
        }
    });
    Ok(())
}

/// An endpoint without a ComfyUI runs this binary, with the directories the backend makes for each instance.
fn engine_command() -> Result<Vec<String>, Failure> {
    let own = std::env::current_exe().context("own path")?;
    let own = own
        .into_os_string()
        .into_string()
        .map_err(|path| Failure::local(format!("{}: not a Unicode path", path.display())))?;
    let arguments = [
        ["--listen", "127.0.0.1:{port}"],
        ["--input-directory", "{input_dir}"],
        ["--output-directory", "{output_dir}"],
        ["--temp-directory", "{temp_dir}"],
        ["--user-directory", "{user_dir}"],
    ];
    let arguments = arguments.as_flattened().iter().map(|word| (*word).to_owned());
    Ok([own, "engine".to_owned()].into_iter().chain(arguments).collect())
}

/// What the engine of this build can do, as its `/object_info` says it before any file was uploaded.
fn engine_object_info() -> Result<Vec<u8>, Failure> {
    let registry = Registry::new(false);
    let classes: serde_json::Map<String, serde_json::Value> = registry
        .info()
        .classes
        .keys()
        .filter_map(|name| {
            let class = serde_json::to_value(registry.describe(name, &[])?).ok()?;
            Some((name.clone(), class))
        })
        .collect();
    Ok(serde_json::to_vec(&classes).context("the engine's node classes")?)
}
