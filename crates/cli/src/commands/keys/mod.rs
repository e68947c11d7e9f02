//! `darkroom keys …`: who may call a server. Works through the API, and on the data directory of a stopped server.

mod agent_line;
mod create;
mod list;
mod offline;
mod revoke;
mod webhook_secret;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use darkroom_server::config::{Config, Overrides};

use crate::{
    args::Global,
    client::Client,
    commands::config::refused,
    exit::{Exit, Failure},
};

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Make a key; its secret is printed once
    Create(create::CreateArgs),
    /// All keys
    List(list::ListArgs),
    /// End a key's life
    Revoke(revoke::RevokeArgs),
    /// What receivers check the signatures of webhooks with
    WebhookSecret(webhook_secret::WebhookSecretArgs),
}

/// Where the keys are.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// State of a server that is not running: the keys are changed there directly
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// Where a command works.
enum Where {
    /// Through a running server.
    Server(Client),
    /// On the store of a stopped one.
    Store(offline::Keys),
}

impl Place {
    /// A running server, unless `--data-dir` says otherwise or none runs at the default address: then the state that
    /// `darkroom serve`, started here, would use.
    async fn find(&self, global: &Global) -> Result<Where, Failure> {
        if let Some(dir) = &self.data_dir {
            return Ok(Where::Store(offline::Keys::open(dir)?));
        }
        let client = global.client()?;
        match client.ready().await {
            Err(failure) if failure.code == "unreachable" && global.server.is_none() => {
                let config = Config::load(&Overrides::default()).map_err(|error| refused(&error))?;
                Ok(Where::Store(offline::Keys::open(&config.server.data_dir)?))
            }
            // A server that is up but not ready (disk full) can still change keys.
            _ => Ok(Where::Server(client)),
        }
    }
}

/// Runs one of them.
pub async fn keys(command: KeysCommand, global: &Global) -> Result<Exit, Failure> {
    match command {
        KeysCommand::Create(args) => create::create(args, global).await,
        KeysCommand::List(args) => list::list(args, global).await,
        KeysCommand::Revoke(args) => revoke::revoke(args, global).await,
        KeysCommand::WebhookSecret(args) => webhook_secret::webhook_secret(args, global).await,
    }
}
