//! `darkroom config check|example`

use std::path::PathBuf;

use clap::Subcommand;
use darkroom_server::config::{Config, Error, Overrides};
use serde_json::{Value, json};

use crate::{
    args::Global,
    exit::{Exit, Failure, chain},
    logging,
};

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Read a configuration as `serve` would, and report everything that is wrong at once
    Check {
        /// The file [default: ./darkroom.toml, else /etc/darkroom/darkroom.toml]
        file: Option<PathBuf>,
    },
    /// Print a commented file with every setting and its default
    Example,
}

/// Runs one of them.
pub fn config(command: ConfigCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check { file } => check(file, global),
        ConfigCommand::Example => {
            global.ui().line(Config::example().trim_end());
            Ok(Exit::Ok)
        }
    }
}

fn check(file: Option<PathBuf>, global: &Global) -> Result<Exit, Failure> {
    logging::set_up(Some("warn"), None);
    let overrides = Overrides {
        config: file,
        ..Overrides::default()
    };
    let config = Config::load(&overrides).map_err(|error| refused(&error))?;
    global.ui().show(&summary(&config), |summary| {
        format!(
            "{} is right: {} endpoint(s), {} key(s), listens on {}",
            summary["file"].as_str().unwrap_or("the default configuration"),
            summary["endpoints"].as_array().map_or(0, Vec::len),
            summary["keys"],
            summary["listen"].as_str().unwrap_or("?"),
        )
    });
    Ok(Exit::Ok)
}

fn summary(config: &Config) -> Value {
    json!({
        "file": config.file,
        "listen": config.server.listen.to_string(),
        "data_dir": config.server.data_dir,
        "endpoints": config.endpoints.keys().map(ToString::to_string).collect::<Vec<_>>(),
        "keys": config.keys.len(),
    })
}

/// A configuration that cannot be used, with every problem in `details`.
pub fn refused(error: &Error) -> Failure {
    let mut failure = Failure::new(Exit::Usage, "invalid_config", chain(error));
    if let Error::Invalid { problems, .. } = error {
        let problems: Vec<Value> = problems
            .iter()
            .map(
                |problem| json!({"path": problem.path, "origin": problem.origin, "message": problem.message}),
            )
            .collect();
        failure.details = Some(Box::new(json!({"problems": problems})));
    }
    failure
}
